"""What replacing single channels does to a network's output, and what could predict it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors
from tqdm.auto import tqdm

from acon_analysis.errors import UsageError
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.other_measures import measure_table
from acon_hooks.engine.edits import Edit, Editing, Edits, Form, Hold, Line
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.outputs import Output
from acon_hooks.engine.plans import run_batch, run_plans
from acon_hooks.engine.rows import Rows
from acon_hooks.engine.sites import Site
from acon_hooks.engine.visiting import visiting
from acon_hooks.guards import full_precision, unwrap
from acon_hooks.layers.reading import fold
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.constants import GATED_KINDS
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.fitting import LINEARIZABLE, Fit
from acon_hooks.replacement.linearizing import plan_edits
from acon_hooks.replacement.plan import KEYS, Plan

#: What can replace a channel: made of its line or other form, and of the mask which holds that
#: channel alone.
REPLACEMENTS: dict[str, Callable[[Form, Tensor], Edit]] = {
    "affine": lambda form, only: replace(form, chosen=only),
    "identity": lambda form, only: Line(
        torch.ones(only.shape), torch.zeros(only.shape), chosen=only, axis=form.axis
    ),
    "zero": lambda form, only: Hold(torch.zeros(only.shape), only, form.axis),
}


def channel_damage(
    model: nn.Module,
    fit: Fit,
    images: Tensor,
    *,
    layers: Sequence[str] | None = None,
    replacements: Sequence[str] = ("affine",),
    output: Output = None,
) -> pd.DataFrame:
    """Replace every channel alone and measure the change of the output.

    Images (N, ...), or the ids of tokens, are best of another split than those of the fit; each
    channel and replacement (keys of `REPLACEMENTS`: the line or other form, the input itself, or
    zero) takes a forward pass. `output` picks what is compared, see
    `acon_hooks.engine.outputs.pick_output`.

    Returns layer, call, channel, replacement; mean, median, q95 over the images of the relative
    change of the output, the norm of the difference over the norm; flips, the share of images (and
    positions) whose largest logit is another one, NaN without logits.
    """
    for name in replacements:
        if name not in REPLACEMENTS:
            known = ", ".join(REPLACEMENTS)
            raise UsageError(f"there is no replacement {name!r}; choose from {known}")
    network = unwrap(model)
    plan = _whole_plan(fit, layers)
    lines = {
        (site.name, site.call): (site, line) for site, line in plan_edits(network, plan).items()
    }
    plans: dict[str, Edits] = {}
    for unit in plan.units:
        site, line = lines[unit.layer, unit.call]
        assert line.chosen is not None
        only = torch.zeros_like(line.chosen)
        only[unit.channel] = True
        for name in replacements:
            plans[str(len(plans))] = {site: REPLACEMENTS[name](line, only)}
    frame = run_plans(network, open_feed([images]), plans, output=output)
    groups = frame.groupby("plan")
    change = groups["output_change"]
    found = pd.DataFrame(
        {
            "mean": change.mean(),
            "median": change.median(),
            "q95": change.quantile(0.95),
            "flips": 1 - groups["agrees"].mean(),
        }
    ).loc[list(plans)]
    table = plan.table[KEYS].merge(pd.DataFrame({"replacement": replacements}), how="cross")
    return pd.concat([table, found.reset_index(drop=True)], axis=1)


def first_order_damage(
    model: nn.Module,
    fit: Fit,
    images: Tensor | Batch,
    *,
    layers: Sequence[str] | None = None,
    output: Output = None,
) -> pd.DataFrame:
    """Predict every channel's damage from the residual of its form and the network's derivative.

    One forward pass and one backward pass a logit (or other value of a sample's output) give, for
    all channels at once, the first-order change Σ_pixels ∂z/∂y · (f(x) - y) of a form f. Returns
    layer, call, channel and first_order, the mean over images of its norm over that of z, a row a
    channel that has a line. Arguments are those of `channel_damage`. A UsageError if lines of a
    layer change the output, but no gradient of it arrives at the layer, or if the output of a
    sample depends on rows of others.
    """
    network = unwrap(model)
    plan = _whole_plan(fit, layers)
    edits = plan_edits(network, plan)
    batch = images if isinstance(images, Batch) else Batch(0, list(range(len(images))), images)
    residuals = _Residuals(edits, batch.tensor_rows)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(),
        allow_mutation_on_saved_tensors(),
    ):
        with visiting(network, edits, residuals):
            found = run_batch(network, batch, output).flatten(1)
        residuals.require_samples(found)
        zeros = [residuals.zeros[site] for site in edits]
        totals = [torch.zeros(residuals.rests[site].shape[:2]).double() for site in edits]
        reached: set[Site] = set()
        columns = range(found.shape[1] if found.requires_grad else 0)
        for column in tqdm(columns, desc="first order", unit="output", disable=None, leave=False):
            slopes = torch.autograd.grad(
                found[:, column].sum(),
                zeros,
                retain_graph=column + 1 < found.shape[1],
                allow_unused=True,
            )
            for site, total, slope in zip(edits, totals, slopes, strict=True):
                if slope is not None:
                    reached.add(site)
                    rest = residuals.rests[site]
                    wide = torch.promote_types(rest.dtype, torch.float32)  # a sum of many values
                    change = (residuals.by_sample(slope, site).to(wide) * rest).sum(2)
                    total += change.double().cpu() ** 2
    unreached = {site: edit for site, edit in edits.items() if site not in reached}
    _refuse_cut_off(network, unreached, batch, found, output)
    norm = found.detach().double().norm(dim=1).cpu().unsqueeze(1)
    values = {
        (site.name, site.call): (total.sqrt() / norm).mean(0).numpy()
        for site, total in zip(edits, totals, strict=True)
    }
    mine = [float(values[unit.layer, unit.call][unit.channel]) for unit in plan.units]
    return plan.table[KEYS].assign(first_order=mine)


def _refuse_cut_off(
    network: nn.Module, edits: Edits, batch: Batch, unchanged: Tensor, output: Output
) -> None:
    """Raise if lines of layers that no gradient reaches change the output, (N, values)."""
    with torch.inference_mode(False), torch.no_grad():
        for site, edit in edits.items():
            with visiting(network, [site], Editing({site: edit})):
                after = run_batch(network, batch, output).flatten(1)
            if not torch.equal(after, unchanged):
                raise UsageError(
                    f"layer {site.name!r} changes the output, but no gradient of the output "
                    "arrives at it (something on the way is detached): rank by s_c"
                )


class _Residuals(Editing):
    """Notes what each line would add to its output, and adds 0, which gets the gradient there."""

    def __init__(self, edits: Edits, rows: Rows) -> None:
        super().__init__(edits)
        self.rows = rows
        self.zeros: dict[Site, Tensor] = {}
        self.rests: dict[Site, Tensor] = {}

    def edit(self, site: Site, edit: Edit, x: Tensor, y: Tensor) -> Tensor:
        """Return the output, with 0 added."""
        x, kept = x.detach(), y.detach()
        self.rests[site] = self.by_sample(edit.apply(x, kept) - kept, site)
        self.zeros[site] = torch.zeros_like(kept).requires_grad_()
        return y + self.zeros[site]

    def by_sample(self, values: Tensor, site: Site) -> Tensor:
        """Return values of a site's output as (N, C, P)."""
        along = self.rows.axis_of(values, site.axis)
        return fold(values.movedim(along, 0), site.axis + (site.axis < along))

    def require_samples(self, found: Tensor) -> None:
        """Raise if the first sample's output, (N, values), depends on rows of other samples."""
        if not found.requires_grad:
            return
        slopes: Any = torch.autograd.grad(
            found[0].sum(), list(self.zeros.values()), retain_graph=True, allow_unused=True
        )
        for site, slope in zip(self.zeros, slopes, strict=True):
            rows = None if slope is None else self.by_sample(slope, site)
            if rows is not None and (len(rows) != len(found) or bool(rows[1:].any())):
                raise UsageError(
                    f"layer {site.name!r}: the output of one sample depends on rows of others, as "
                    "where samples are not its first axis, so that changes have no sample: rank "
                    "by s_c"
                )


def _whole_plan(fit: Fit, layers: Sequence[str] | None) -> Plan:
    """Return a plan of all channels that have a line, or of those of some layers."""
    return fit.plan(budget=1.0) if layers is None else fit.plan(layers=layers)


def channel_measures(
    model: nn.Module,
    images: Tensor,
    *,
    kinds: Sequence[str] = LINEARIZABLE,
    layers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Compute the other measures of every channel, in one forward pass on images (N, ...).

    Returns layer, call, and the columns of `measure_table`. Slopes are those at the inputs seen, β
    held at its value; NaN for layers that are not elementwise, and for functions. All values of a
    layer are held in memory at once.
    """
    frames: list[pd.DataFrame] = []

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, extra: Any) -> None:
        beta = extra if isinstance(extra, Tensor) else None  # a product has other factors
        means = None if beta is None else beta.double().mean(2).expand(-1, x.shape[layer.axis])
        slopes = _slopes(layer, x, beta)
        table = measure_table(
            _rows(x, layer.axis),
            _rows(y, layer.axis),
            slopes=None if slopes is None else _rows(slopes, layer.axis),
            beta=None if means is None else means.cpu().numpy(),
        )
        frames.append(table.assign(layer=layer.name, call=call))

    with torch.no_grad(), Tap(model, layers, kinds=tuple(kinds), observe=observe) as tap:
        model(images.clone())  # a network may overwrite its input
        tap.take()
    table = pd.concat(frames, ignore_index=True).astype({"layer": "str"})
    return table[["layer", "call", *table.columns.drop(["layer", "call"])]]


def _rows(values: Tensor, axis: int) -> FloatArray:
    """Return (N·positions, C), float64."""
    folded = fold(values.detach(), axis).double().cpu()
    return np.asarray(folded.transpose(1, 2).flatten(0, 1).numpy())


def _slopes(layer: Layer, x: Tensor, beta: Tensor | None) -> Tensor | None:
    """Return f'(x) of every value, x's shape; None where a value's output has other inputs."""
    p1, p2 = layer.p1, layer.p2
    if layer.kind in GATED_KINDS and p1 is not None and p2 is not None and beta is not None:
        moved = x.movedim(layer.axis, 1)
        flat = moved.reshape(*moved.shape[:2], -1)
        p1, p2 = (slope.reshape(1, -1, 1) for slope in (p1, p2))
        d = p1 - p2
        u = beta * d * flat
        gate = torch.sigmoid(u)
        slopes = p2 + d * (gate + u * gate * (1 - gate))
        return slopes.reshape(moved.shape).movedim(1, layer.axis)
    if layer.kind != "activation" or layer.function is not None:
        return None
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.clone().requires_grad_()
        output: Tensor = layer.module.forward(leaf.clone())
        (slopes,) = torch.autograd.grad(output.sum(), leaf)
    return slopes
