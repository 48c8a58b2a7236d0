"""Activations replaced by cheaper functions without training: the copy, and what it loses."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from acon_analysis.columns import REPLACEMENT_COLUMNS, dtypes, names
from acon_analysis.errors import UsageError, closest, named_arguments
from acon_analysis.files import write_csv
from acon_analysis.screen import counted
from acon_analysis.statistics.paired import paired
from acon_hooks.engine.edits import EditPlan
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import data_name, named_data, own_preprocess
from acon_hooks.engine.held import Held
from acon_hooks.engine.inputs import Forward, Mask, input_options
from acon_hooks.engine.outputs import Output
from acon_hooks.engine.plans import fitted, run_batch, run_plans
from acon_hooks.guards import unwrap
from acon_hooks.layers.scan import KINDS, scan_layers
from acon_hooks.replacement.fitting import LINEARIZABLE, fit_units
from acon_hooks.replacement.folding import Folded, fold_lines
from acon_hooks.replacement.linearizing import linearize, plan_edits, save_linearized
from acon_hooks.replacement.mixing import MIXED, FewSamples, checked_forms, mixed_plan
from acon_hooks.replacement.plan import Plan
from acon_hooks.replacement.recalibrating import batch_norms, recalibrated
from acon_hooks.replacement.replacing import (
    FIRST_ORDER,
    add_first_order,
    first_batch,
    warn_of_the_same,
)

#: The form that every replacement is compared with.
BASELINE = "relu"

#: Data sets with a training split, which forms are fitted on unless other data are given.
_SPLITS = ("digits", "cifar10")


@named_arguments
def replace(
    model: nn.Module,
    fit_data: Any,
    with_: str | Sequence[str] = "two-piece",
    layers: Sequence[str] | None = None,
    budget: int | float = 1.0,
    *,
    max_change: float | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    output: Output = None,
    forward: Forward | None = None,
    mask: Mask | None = None,
    sample_axis: int = 0,
) -> nn.Module:
    """Return a copy of a model whose activations are cheaper functions, fitted without training.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode. It stays as it is.
    fit_data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        Training samples, to fit the functions on; see `acon_hooks.engine.feeding.open_feed`.
    with_ : str or sequence of str
        On each channel: "line", slope·x + intercept; "two-piece", slope·x + intercept +
        bend·relu(x - hinge); "poly:K", a polynomial of degree K of 1 to 4; these by least squares.
        "relu" and "hardswish" as they are. Of several, the cheapest first, every channel gets the
        first that changes the output little enough, see `max_change`.
    layers : sequence of str, optional
        Only these elementwise activations, modules or calls of functions, by name; by default all,
        and Meta-ACON, which becomes a function without β.
    budget : int or float
        How many channels are replaced: an integer counts them, a float in (0, 1] is a share. Less
        than all are those with the smallest change of the output as predicted to first order, over
        all layers; this costs, for each form, a backward pass a logit on 128 samples.
    max_change : float, optional
        Instead of a budget of channels: how much all replacements together may change the output,
        a share of its norm such as 0.05; required with several forms. A channel gets the first form
        whose own change, as predicted to first order, is within a tolerance; if none is, it keeps
        its activation. The tolerance is the same for all channels, and as large as `max_change`
        allows for the mean change measured on 128 samples of the fit.
    limit, batch_size : int
        Only the first N samples; samples a forward pass.
    output : int, str or callable, optional
        Which tensor of the output is meant; see `acon_hooks.engine.outputs.pick_output`.
    forward, mask, sample_axis
        How samples enter the network; as for `acon_hooks.captures.capturing.capture`.

    Returns
    -------
    Module
        As `acon_hooks.replacement.linearizing.linearize` has it, of standard operators. Parameters
        that no channel needs any more, such as β networks, are left out.

    Raises
    ------
    UsageError
        If there is no such form or elementwise activation, or the budget is out of range; if
        several forms are given without `max_change`, or both that and a budget.
    HookError
        If no layer can be measured.
    """
    plan = plan_forms(
        model, fit_data, with_, layers, budget, max_change=max_change, limit=limit,
        batch_size=batch_size, output=output, forward=forward, mask=mask, sample_axis=sample_axis,
    )  # fmt: skip
    return linearize(model, plan)


def plan_forms(
    model: nn.Module,
    fit_data: Any,
    with_: str | Sequence[str] = "two-piece",
    layers: Sequence[str] | None = None,
    budget: int | float = 1.0,
    *,
    max_change: float | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    output: Output = None,
    forward: Forward | None = None,
    mask: Mask | None = None,
    sample_axis: int = 0,
    seen: set[str] | None = None,
) -> Plan:
    """Return the plan of `replace`, whose arguments it takes; `seen` gets the samples' SHA-256."""
    network = unwrap(model)
    whole = isinstance(budget, float) and budget == 1
    forms = checked_forms(with_, whole, max_change)
    chosen = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
    _refuse_other_kinds(network, chosen or ())
    held = None
    if max_change is not None or not whole:
        options = input_options(network, forward, mask, sample_axis)
        held = Held(fit_data, limit, batch_size, options, "ranking")
    fits = [
        fit_units(
            network, fit_data, layers=chosen, limit=limit, batch_size=batch_size, form=form,
            forward=forward, mask=mask, sample_axis=sample_axis,
        )
        for form in forms
    ]  # fmt: skip
    fit = fits[0]
    if seen is not None:
        seen |= fit.seen
    if held is None:
        return fit.plan(layers=fit.table["layer"].unique())
    fit.plan(budget=budget)  # raises for one that is out of range
    few = FewSamples.of(held)
    fits = [add_first_order(network, fit, few.kept, output=output) for fit in fits]
    if max_change is not None:
        return mixed_plan(fits, max_change, lambda plan: few.change(network, plan, output))
    plan = fits[0].plan(budget=budget, by=FIRST_ORDER)
    if not plan.units:
        raise UsageError(f"the budget {budget} buys no channel of {len(fit.table)}")
    return plan


@dataclass(frozen=True)
class Replacement:
    """What `replace_data` has made."""

    model: nn.Module
    # Of several forms the table calls it "mixed".
    plan: Plan
    # Columns `acon_analysis.columns.REPLACEMENT_COLUMNS`.
    table: pd.DataFrame
    # One row a plan and sample, as `run_plans` has them.
    samples: pd.DataFrame
    # Where it was asked for.
    folded: Folded | None = None

    def called(self, form: str) -> str:
        """Return what people read for a form of the table: the baseline is called one."""
        own = form != BASELINE or set(forms_of(self.plan)) == {BASELINE}
        return form if own else f"{form} (baseline)"


def replace_data(
    model: nn.Module,
    data: Any,
    with_: str | Sequence[str] = "two-piece",
    fit_data: Any = None,
    layers: Sequence[str] | None = None,
    budget: int | float = 1.0,
    *,
    max_change: float | None = None,
    out: str | Path | None = None,
    fold: bool = False,
    limit: int | None = None,
    batch_size: int = 64,
    output: Output = None,
    logits: bool | None = None,
    forward: Forward | None = None,
    mask: Mask | None = None,
    sample_axis: int = 0,
) -> Replacement:
    """Replace activations as `replace` does, and measure on other samples what the network loses.

    The same channels as ReLUs are the baseline, and where the network has BatchNorms, both with
    those estimated again on the samples of the fit: by default the training split of a named data
    set. Data are read more than once; `limit` is of both. `out` gets plan.json, model.safetensors,
    damage.csv, samples.csv and, if folded, fold.csv. SameDataWarning: if some samples are in
    both data.
    """
    network = unwrap(model)
    preprocess = own_preprocess(network)
    fit_data = training_split(data) if fit_data is None else fit_data
    name, fit_data = data_name(fit_data), named_data(fit_data, preprocess)
    source = named_data(data, preprocess)
    options = input_options(network, forward, mask, sample_axis)
    held, other = (
        Held(each, limit, batch_size, options, what)
        for each, what in ((source, "damage"), (fit_data, "BatchNorms"))
    )
    first_batch(network, source, min(limit or batch_size, batch_size), options, output)
    seen: set[str] = set()
    plan = plan_forms(
        model, fit_data, with_, layers, budget, max_change=max_change, limit=limit,
        batch_size=batch_size, output=output, forward=forward, mask=mask, sample_axis=sample_axis,
        seen=seen,
    )  # fmt: skip
    edits = _edits(network, plan, other, output)
    samples = run_plans(network, held, edits, output=output, logits=logits)
    warn_of_the_same(seen, held.seen, name)
    changed, folded = linearize(model, plan), None
    if fold:
        folded = fold_lines(changed, _first_images(changed, held), output=output)
    table = damage_table(samples, len(plan.units))
    if out is not None:
        tables = {"damage": table, "samples": samples}
        if folded is not None:
            tables["fold"] = folded.table.assign(error=folded.error)
        write_csv(save_linearized(changed, plan, out), tables)
    return Replacement(changed, plan, table, samples, folded)


def training_split(data: Any) -> str:
    """Return the training split of a named data set."""
    name, _, split = data.partition(":") if isinstance(data, str) else ("", "", "")
    if name in _SPLITS and split != "train":
        return f"{name}:train"
    raise UsageError(
        f"{str(data)!r} has no training split of its own to fit the functions on: give other data "
        "of the same kind (--fit; in Python fit_data=)"
    )


def damage_table(samples: pd.DataFrame, channels: int) -> pd.DataFrame:
    """Return `columns.REPLACEMENT_COLUMNS`: every plan of `run_plans` next to the network."""
    table = paired(samples).rename(columns={"change": "loss_change", "n": "samples"})
    right = samples["correct"].astype("Float64").astype("float64")
    groups = samples.assign(correct=right).groupby("plan", sort=False)
    means = groups[["correct", "agrees", "output_change"]].mean().loc[table["plan"]]
    accuracy = paired(samples.assign(loss=right))
    parts = table["plan"].str.partition("\n")
    return table.assign(
        form=parts[0],
        recalibrated=parts[2] != "",
        channels=channels,
        accuracy=means["correct"].to_numpy(),
        accuracy_change=accuracy["change"],
        accuracy_low=accuracy["low"],
        accuracy_high=accuracy["high"],
        agreement=means["agrees"].to_numpy(),
        output_change=means["output_change"].to_numpy(),
    )[names(REPLACEMENT_COLUMNS)].astype(dtypes(REPLACEMENT_COLUMNS))


def sentence(done: Replacement) -> str:
    """Return in one sentence what a replacement did."""
    layers = len({unit.layer for unit in done.plan.units})
    words = []
    for row in done.table.to_dict("records"):
        again = ", BatchNorms estimated again" if row["recalibrated"] else ""
        ends = (100 * row[name] for name in ("accuracy_change", "accuracy_low", "accuracy_high"))
        points = "accuracy {:+.2f} points ({:+.2f} to {:+.2f}), ".format(*ends)
        change = f"output changes by {row['output_change']:.3g}"
        damage = f"{'' if np.isnan(row['accuracy']) else points}{change}"
        words.append(f"{done.called(row['form'])}{again}: {damage}")
    counts = ", ".join(f"{count} {form}" for form, count in forms_of(done.plan).items())
    what = f"{counted(len(done.plan.units), 'channel')} of {counted(layers, 'layer')}"
    baseline = f". Baseline: {BASELINE} in the same channels." if len(words) > 1 else ""
    return f"{what} ({counts}). {'; '.join(words)}{baseline}"


def forms_of(plan: Plan) -> Counter[str]:
    """Count the channels of each form of a plan."""
    return Counter(unit.form for unit in plan.units)


def _edits(network: nn.Module, plan: Plan, held: Held, output: Output) -> dict[str, EditPlan]:
    """Return the edits of a plan and of its baseline, and both with BatchNorms estimated again."""
    counts = forms_of(plan)
    form = next(iter(counts)) if len(counts) == 1 else MIXED
    plain = tuple(
        with_fields(unit, form=BASELINE, slope=0.0, intercept=0.0, coefficients=())
        for unit in plan.units
    )
    edits: dict[str, EditPlan] = {
        form: plan_edits(network, plan),
        BASELINE: plan_edits(network, with_fields(plan, units=plain)),
    }
    norms = batch_norms(network, [site.module for site in edits[form] if site.function is None])
    if norms:

        def run(batch: Batch) -> Tensor:
            return run_batch(network, batch, output)

        again = recalibrated(network, held.batches(), edits, norms, run)
        for name in list(edits):
            edits[f"{name}\nrecalibrated"] = {**edits[name], **again[name]}
    return edits


def _first_images(network: nn.Module, held: Held) -> Tensor:
    """Return the first batch, for the proof of a fold."""
    inputs = fitted(network, next(held.batches())).inputs
    if not isinstance(inputs, Tensor):
        raise UsageError("folding is proved on data of one tensor a sample")
    return inputs


def _refuse_other_kinds(network: nn.Module, layers: Sequence[str]) -> None:
    """Raise for layers that are no elementwise activations, such as products of two tensors."""
    kinds = {layer.name: layer.kind for layer in scan_layers(network, KINDS)}
    for name in layers:
        if kinds.get(name, LINEARIZABLE[0]) not in LINEARIZABLE:
            known = [own for own, kind in kinds.items() if kind in LINEARIZABLE]
            raise UsageError(
                f"layer {name!r} is of kind {kinds[name]!r}: only elementwise activations can be "
                f"replaced by functions of x; {closest(name, known)}"
            )
