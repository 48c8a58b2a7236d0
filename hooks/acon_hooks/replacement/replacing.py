"""From a captured run to a linearised model and its measured damage: ``acon linearize``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, UsageError
from acon_analysis.runs.run import Run, open_run
from acon_hooks.captures.identity import model_name, state_sha256
from acon_hooks.engine.feeding import open_feed
from acon_hooks.guards import unwrap
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.damage import first_order_damage
from acon_hooks.replacement.fitting import LINEARIZABLE, Fit, fit_units
from acon_hooks.replacement.folding import Folded, fold_lines
from acon_hooks.replacement.linearizing import linearize, save_linearized
from acon_hooks.replacement.plan import Plan, PlannedLayer
from acon_hooks.replacement.verifying import PlanReport, verify_plan

#: What `--by` ranks by besides the columns of a channel table.
FIRST_ORDER = "first_order"

#: Images that `with_first_order` predicts from, by default.
FIRST_ORDER_IMAGES = 128


@dataclass(frozen=True)
class Replaced:
    """What `replace_from_run` has made.

    Parameters
    ----------
    model : Module
        The linearised copy.
    plan : Plan
        Its units and lines.
    report : PlanReport
        What the plan does on the other images.
    folded : Folded or None
        The folded copy, where it was asked for.
    """

    model: nn.Module
    plan: Plan
    report: PlanReport
    folded: Folded | None


def fit_from_run(model: nn.Module, run: str | Path | Run, *, batch_size: int = 64) -> Fit:
    """Return the lines of every channel from a captured run.

    Parameters
    ----------
    model : Module
        The network that was captured, in evaluation mode.
    run : str, Path or Run
        With moments nothing is computed anew but one small forward pass; without them the network
        runs over the run's own images again, if these can be opened by their name.
    batch_size : int
        Images a forward pass, for a run without moments.

    Raises
    ------
    AconError
        If the run is of other weights, or holds no moments and its images have no name.
    """
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
    if not found.has_moments:
        try:
            source = open_data(data, _preprocess(network))
        except UsageError as error:
            raise AconError(
                f"the run {str(found.path)!r} holds no moments and its images ({data}) cannot be "
                f"opened again; capture it with --moments"
            ) from error
        count = found.manifest["samples"]
        return fit_units(
            network, source, kinds=kinds, limit=count, batch_size=batch_size, run_id=run_id
        )
    table = found.linearity("channel")
    uses = found.layers[found.layers["kind"].isin(LINEARIZABLE)]
    keys = pd.MultiIndex.from_frame(uses[["layer", "call"]])
    table = table[pd.MultiIndex.from_frame(table[["layer", "call"]]).isin(keys)]
    axes = _axes(network, kinds)
    calls = uses["layer"].value_counts()
    layers = tuple(
        PlannedLayer(name, int(call), int(calls[name]), int(channels), axes[name], kind)
        for name, call, channels, kind in uses[["layer", "call", "channels", "kind"]].itertuples(
            index=False
        )
    )
    return Fit(table, layers, model_name(network), weights, data, run_id)


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
) -> Replaced:
    """Linearise a network by a run's lines, measure it on other images, and write the tables.

    Parameters
    ----------
    model : Module
        The network that was captured.
    run : str, Path or Run
        Gives the lines.
    data : str, Path, ImageSource, ...
        Images to measure on; not those of the run.
    out : str or Path
        Folder: gets plan.json, model.safetensors, summary.csv, samples.csv, layers.csv and, if
        folded, fold.csv.
    budget, by, within, layers
        As for `plan.choose_units`; `by` may also be "first_order", see `with_first_order`.
    limit, batch_size : int
        As for `verify_plan`.
    fold : bool
        Also fold layers that are affine on all channels, and prove equality.

    Returns
    -------
    Replaced
    """
    source = open_data(data, _preprocess(model)) if isinstance(data, str | Path) else data
    fit = fit_from_run(model, run, batch_size=batch_size)
    if by == FIRST_ORDER:
        fit = with_first_order(model, fit)
    plan = fit.plan(budget=budget, by=by, within=within, layers=layers)
    if not plan.units:
        raise UsageError("linearize: the budget buys no unit; give a larger one")
    report = verify_plan(model, plan, source, limit=limit, batch_size=batch_size)
    changed = linearize(model, plan)
    folder = save_linearized(changed, plan, out)
    folded = None
    if fold:
        feed = open_feed(source, limit=batch_size, batch_size=batch_size)
        first = next(b.inputs for b in feed.batches() if b.inputs is not None)
        device = next((value.device for value in changed.parameters()), torch.device("cpu"))
        folded = fold_lines(changed, first.to(device))
        _write(folded.table.assign(error=folded.error), folder / "fold.csv")
    _write(pd.DataFrame([report.summary]), folder / "summary.csv")
    _write(report.samples, folder / "samples.csv")
    _write(report.layers, folder / "layers.csv")
    return Replaced(changed, plan, report, folded)


def with_first_order(model: nn.Module, fit: Fit, *, images: int = FIRST_ORDER_IMAGES) -> Fit:
    """Add the column ``first_order`` to a fit: the predicted change of the logits.

    Of all measures that were tried it ranks single channels best (README). It costs, for each 64
    images, one forward pass and one backward pass *a logit*: 10 for ten classes, 1,000 for
    ImageNet's; and the memory of all activations of those images.

    Parameters
    ----------
    model : Module
        The network that was fitted, in evaluation mode.
    fit : Fit
        Its lines. The prediction uses images of the fit's own data, evenly spread, so that the
        images of the measurement stay unseen.
    images : int
        How many of them, at most.

    Raises
    ------
    AconError
        If the images of the fit cannot be opened by their name.
    """
    try:
        source = open_data(fit.data, _preprocess(unwrap(model)))
    except UsageError as error:
        raise AconError(
            f"ranking by {FIRST_ORDER} needs the images of the run again, and {fit.data!r} cannot "
            f"be opened; rank by s_c, which needs none"
        ) from error
    count = min(images, len(source))
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    whole = torch.stack([source[index * len(source) // count] for index in range(count)])
    keys = ["layer", "call", "channel"]
    parts = []
    for part in torch.split(whole, 64):
        own = first_order_damage(model, fit, part.to(device)).set_index(keys)["first_order"]
        parts.append(own * (len(part) / count))
    mean = pd.concat(parts).groupby(level=keys).sum()
    return replace(fit, table=fit.table.join(mean, on=keys))


def sentence(done: Replaced) -> str:
    """Return in one sentence what a replacement did."""
    found = done.report.summary
    text = (
        f"{len(done.plan.units)} units affine ({done.plan.chosen_by}); logits change by "
        f"{found['q50']:.3g} (median over {found['images']:.0f} images; predicted "
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
    """Read a budget: ``200`` channels, ``0.25`` or ``25%`` of them.

    Raises
    ------
    UsageError
        For anything else.
    """
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return float(text) if "." in text else int(text)
    except ValueError as error:
        raise UsageError(
            f"budget: give channels (200) or a share (0.25, 25%); got {text!r}"
        ) from error


def _axes(model: nn.Module, kinds: Sequence[str]) -> dict[str, int]:
    """Return the channel axis of every layer, from one forward pass of two random images."""
    shape = getattr(model, "input_shape", None)
    if shape is None:
        raise AconError(
            "the model does not say how large its images are (input_shape), so the axes of its "
            "channels are unknown: fit the lines with fit_units(model, images)"
        )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape, generator=generator)
    first = next((value for value in model.parameters() if value.is_floating_point()), None)
    with torch.inference_mode(), Tap(model, kinds=kinds, report_failures=True) as tap:
        model(images if first is None else images.to(first.device, first.dtype))
        tap.take()
        return {layer.name: layer.axis for layer in tap.layers}


def _preprocess(model: nn.Module) -> str | None:
    """Return the name of the preprocessing that a model's weights came with."""
    return getattr(getattr(model, "acon_origin", None), "preprocess", None)


def _write(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV."""
    frame.to_csv(path, index=False, lineterminator="\n")
