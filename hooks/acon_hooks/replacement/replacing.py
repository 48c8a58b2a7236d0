"""From a captured run to a linearised model and its measured damage: ``acon linearize``."""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, UsageError
from acon_analysis.files import write_csv
from acon_analysis.runs.run import Run, open_run
from acon_analysis.screen import counted
from acon_analysis.usercode import load_callable
from acon_hooks.captures.identity import model_name, state_sha256
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import named_data, open_feed, own_preprocess
from acon_hooks.engine.inputs import Forward, InputOptions, Mask, input_options
from acon_hooks.engine.outputs import Output
from acon_hooks.engine.plans import fitted, run_batch
from acon_hooks.errors import SameDataWarning
from acon_hooks.guards import unwrap
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.batch import Key
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.damage import first_order_damage
from acon_hooks.replacement.fitting import LINEARIZABLE, Fit, planned_layers
from acon_hooks.replacement.folding import Folded, fold_lines
from acon_hooks.replacement.linearizing import linearize, save_linearized
from acon_hooks.replacement.plan import KEYS, Plan
from acon_hooks.replacement.verifying import PlanReport, verify_plan

#: What `--by` ranks by besides the columns of a channel table.
FIRST_ORDER = "first_order"

#: Images that `with_first_order` predicts from, by default.
FIRST_ORDER_IMAGES = 128


@dataclass(frozen=True)
class Replaced:
    """What `replace_from_run` has made."""

    model: nn.Module
    plan: Plan
    report: PlanReport
    # Where it was asked for.
    folded: Folded | None


def fit_from_run(model: nn.Module, run: str | Path | Run, *, example: Batch | None = None) -> Fit:
    """Return the lines of every channel from a run with moments; the axes from `example`."""
    found = run if isinstance(run, Run) else open_run(run)
    network = unwrap(model)
    identity = found.identity
    weights = state_sha256(network)
    if identity["weights_sha256"] != weights:
        raise AconError(
            f"the run {str(found.path)!r} is of {found.model} with weights "
            f"{identity['weights_sha256'][:12]}..., the given model has {weights[:12]}...; "
            f"capture this model first"
        )
    run_id = str(found.manifest["run_id"])
    data = str(identity["data"])
    kinds = [kind for kind in identity["kinds"] if kind in LINEARIZABLE]
    table = found.linearity("channel", columns="all")
    uses = found.layers[found.layers["kind"].isin(LINEARIZABLE)]
    keys = pd.MultiIndex.from_frame(uses[["layer", "call"]])
    table = table[pd.MultiIndex.from_frame(table[["layer", "call"]]).isin(keys)]
    calls = _calls(network, kinds, example or _random_images(network))
    planned = {
        (name, int(call)): (calls[name, call], int(channels))
        for name, call, channels in uses[["layer", "call", "channels"]].itertuples(index=False)
    }
    return Fit(table, planned_layers(planned), model_name(network), weights, data, run_id)


def replace_from_run(
    model: nn.Module,
    run: str | Path | Run,
    data: Any,
    out: str | Path,
    *,
    budget: int | float | None = None,
    by: str = "s_c",
    within: bool = False,
    layers: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    fold: bool = False,
    output: Output = None,
    logits: bool | None = None,
    forward: Forward | None = None,
    mask: Mask | None = None,
    sample_axis: int = 0,
) -> Replaced:
    """Linearise a network by a run's lines, measure it on other images, and write the tables.

    `by` may also be "first_order", see `with_first_order`. `out` gets plan.json, model.safetensors,
    summary.csv, samples.csv, layers.csv and, if folded, fold.csv. SameDataWarning: if some of the
    images are those of the run.
    """
    source = named_data(data, own_preprocess(model))
    found, network = run if isinstance(run, Run) else open_run(run), unwrap(model)
    options = input_options(network, forward, mask, sample_axis)
    _refuse_other_inputs(found, options)
    first = first_batch(network, source, min(limit or batch_size, batch_size), options, output)
    fit = fit_from_run(network, found, example=first)
    if by == FIRST_ORDER:
        fit = with_first_order(network, fit, output=output)
    plan = fit.plan(budget=budget, by=by, within=within, layers=layers)
    if not plan.units:
        raise UsageError("the budget buys no channel; give a larger one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SameDataWarning)  # said below, of the samples
        report = verify_plan(
            network, plan, source, output=output, logits=logits, limit=limit,
            batch_size=batch_size, forward=forward, mask=mask, sample_axis=sample_axis,
        )  # fmt: skip
    warn_of_the_same(set(found.samples["sha256"]), report.seen, found.data_name)
    changed = linearize(model, plan)
    folder = save_linearized(changed, plan, out)
    folded = None
    if fold:
        if first is None or not isinstance(first.inputs, Tensor):
            raise UsageError(
                "linearize: folding is proved on data that can be read again, one tensor a sample"
            )
        folded = fold_lines(changed, fitted(changed, first).inputs, output=output)
        write_csv(folder, {"fold": folded.table.assign(error=folded.error)})
    summary = pd.DataFrame([report.summary])
    write_csv(folder, {"summary": summary, "samples": report.samples, "layers": report.layers})
    return Replaced(changed, plan, report, folded)


def with_first_order(
    model: nn.Module, fit: Fit, *, images: int = FIRST_ORDER_IMAGES, output: Output = None
) -> Fit:
    """Add the column ``first_order`` to a fit: the predicted change of the logits.

    It costs, for each 64 of the fit's own images, evenly spread, a forward pass and a backward pass
    *per logit*, and the memory of all their activations.
    """
    try:
        source = open_data(fit.data, own_preprocess(unwrap(model)))
    except UsageError as error:
        raise AconError(
            f"ranking by {FIRST_ORDER} needs the images of the run again, and {fit.data!r} cannot "
            f"be opened; rank by s_c, which needs none"
        ) from error
    count = min(images, len(source))
    whole = torch.stack([source[index * len(source) // count] for index in range(count)])
    parts = (Batch(0, list(range(len(part))), part) for part in torch.split(whole, 64))
    return add_first_order(model, fit, parts, output=output)


def add_first_order(
    model: nn.Module, fit: Fit, batches: Iterable[Batch], *, output: Output = None
) -> Fit:
    """Add the column ``first_order`` to a fit, the mean over the samples of some batches."""
    parts, count = [], 0
    for batch in batches:
        own = first_order_damage(model, fit, batch, output=output).set_index(KEYS)
        parts.append(own["first_order"] * len(batch.ids))
        count += len(batch.ids)
    mean = pd.concat(parts).groupby(level=KEYS).sum() / count
    return replace(fit, table=fit.table.join(mean, on=KEYS))


def sentence(done: Replaced) -> str:
    """Return in one sentence what a replacement did."""
    found = done.report.summary
    one = len(done.plan.units) == 1
    what = "the output changes" if math.isnan(found["agreement"]) else "logits change"
    text = (
        f"{counted(len(done.plan.units), 'channel')} {'becomes a line' if one else 'become lines'} "
        f"({done.plan.chosen_by}); {what} by {found['q50']:.3g} (median over "
        f"{counted(int(found['images']), 'sample')}; predicted "
        f"{found['predicted']:.3g}), 5 to 95 %: {found['q05']:.3g} to {found['q95']:.3g}"
    )
    if "accuracy_after" in found:
        text += f"; accuracy {found['accuracy_before']:.4f} -> {found['accuracy_after']:.4f}"
    if done.folded is not None:
        gone = int((done.folded.table["where"] != "").sum())
        text += (
            f"; {gone} of {len(done.folded.table)} whole layers folded, "
            f"output equal to {done.folded.error:.1g}"
        )
    return text


def parse_budget(text: str) -> int | float:
    """Read a budget: ``200`` channels, ``0.25`` or ``25%`` of them."""
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return float(text) if "." in text else int(text)
    except ValueError as error:
        raise UsageError(
            f"budget: give channels (200) or a share (0.25, 25%); got {text!r}"
        ) from error


def parse_output(text: str) -> Output:
    """Read what picks a tensor of an output: an index, a name, or ``file.py:callable``."""
    if ":" in text:
        return load_callable("output", text, ["output"])[0]
    return int(text) if text.lstrip("-").isdigit() else text


def _calls(model: nn.Module, kinds: Sequence[str], example: Batch) -> dict[Key, Layer]:
    """Return every use of every layer, from one forward pass."""
    with torch.no_grad(), Tap(model, kinds=kinds, report_failures=True) as tap:
        fitted(model, example).run(model)
        tap.take()
        return dict(tap.calls)


def _random_images(model: nn.Module) -> Batch:
    """Return two random images of the size that a model says it takes."""
    shape = getattr(model, "input_shape", None)
    if shape is None:
        raise AconError(
            "the model does not say how large its images are (input_shape), so the axes of its "
            "channels are unknown: fit the lines with fit_units(model, images)"
        )
    return Batch(0, [0, 1], torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))


def first_batch(
    network: nn.Module, data: Any, batch_size: int, options: InputOptions, output: Output
) -> Batch | None:
    """Return the first samples of data that can be read again, after a run that raises early."""
    if isinstance(data, Iterator):
        return None
    feed = open_feed(data, limit=batch_size, batch_size=batch_size, options=options)
    first = next((batch for batch in feed.batches() if batch.ids), None)
    if first is not None:
        with torch.no_grad():
            run_batch(network, first, output)
    return first


def _refuse_other_inputs(run: Run, options: InputOptions) -> None:
    """Raise if the run took its inputs with a mask or an axis of samples, and these not."""
    for name in ("mask", "sample_axis"):
        was, now = (identity.get(name) for identity in (run.identity, options.identity))
        if (was is None) != (now is None):
            raise UsageError(
                f"the run {str(run.path)!r} was captured with {name} {was!r}, and here it is "
                f"{now!r}: give the same"
            )


def warn_of_the_same(fitted_on: Set[str], measured_on: Set[str], name: str) -> None:
    """Warn of samples that were fitted on and measured on, known by their bytes."""
    where = f" ({name})" if name else ""
    if count := len((fitted_on & measured_on) - {""}):
        warnings.warn(
            f"{count:,} of {counted(len(measured_on), 'sample')} measured on "
            f"{'is' if count == 1 else 'are'} among those of the fit{where}: the damage on other "
            "samples may be larger; give other samples, --data",
            SameDataWarning,
            stacklevel=3,
        )
