"""Measure what a plan does to a network, on images that its lines were not fitted on."""

import warnings
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.errors import AconError
from acon_analysis.moments.gram import Gram
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.paired import UNCHANGED, paired
from acon_hooks.engine.derivatives import dual_numbers, forward
from acon_hooks.engine.edits import Edit, Editing, Edits
from acon_hooks.engine.feed import Batch, hashes
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.held import shown
from acon_hooks.engine.inputs import Forward, Mask, input_options
from acon_hooks.engine.outputs import Output
from acon_hooks.engine.plans import Comparison, relative_change, relative_norm, run_batch
from acon_hooks.engine.rows import Rows
from acon_hooks.engine.sites import Site
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import SameDataWarning
from acon_hooks.guards import full_precision, unwrap
from acon_hooks.layers.reading import fold
from acon_hooks.readings.batch import Key
from acon_hooks.replacement.linearizing import plan_edits
from acon_hooks.replacement.plan import Plan

#: Quantiles of the relative change of the output over the images.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

#: Name of the plan in the comparison with the unchanged network.
LINES = "lines"

#: The predicted change of each sample, and what it may be off by, (N,) each.
_Predicted = tuple[FloatArray, FloatArray]

#: Values of a layer's output that are brought to float64 at once.
_VALUES = 2**22


@dataclass(frozen=True)
class PlanReport:
    """What a plan does to a network.

    Parameters
    ----------
    summary : dict
        units, images; change (mean) and its quantiles q05 to q95 over the images, where the
        change of an image is the norm of the difference of its outputs over their norm;
        predicted (median change predicted to first order: the residuals of the lines times the
        network's derivative) and predicted_error (the median of what the prediction may be off
        by); agreement, the share of images (and positions) whose largest logit stays;
        loss_change with its 95 % interval loss_low to loss_high and loss_p, as
        `acon_analysis.statistics.paired.paired` has them of the losses of
        `acon_hooks.engine.plans.Comparison`; with class labels accuracy_before and
        accuracy_after. Agreement and loss are NaN where the output is no logits.
    samples : DataFrame
        One row an image: sample, change, predicted, predicted_error, agrees.
    layers : DataFrame
        One row a use of a layer: layer, call, units, channels, predicted and measured: the squared
        error of its lines over the variance of the layer's output, as the fit says and on these
        images, both with the layers before it unchanged.
    used : str
        What was compared, what the loss is and how the change was predicted, in words.
    seen : frozenset of str
        SHA-256 of the samples.
    """

    summary: dict[str, float]
    samples: pd.DataFrame
    layers: pd.DataFrame
    used: str = ""
    seen: frozenset[str] = frozenset()


def verify_plan(
    model: nn.Module,
    plan: Plan,
    data: Any,
    *,
    output: Output = None,
    logits: bool | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    any_weights: bool = False,
    forward: Forward | None = None,
    mask: Mask | None = None,
    sample_axis: int = 0,
) -> PlanReport:
    """Measure what a plan does to a network, and how well it was predicted.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode. It runs in its own dtype.
    plan : Plan
        Units and lines, from another split.
    data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        Images, or other inputs such as the ids of tokens; see
        `acon_hooks.engine.feeding.open_feed`. Accuracy needs class indices as labels.
    output : int, str or callable, optional
        Which tensor of the network's output is meant: an index, a key or the name of an attribute,
        or a callable that is given the output. By default the only tensor, or what is called
        logits.
    logits : bool, optional
        Whether it holds class logits, (N, K) or (N, T, K) with T positions; by default what its
        shape says, see `acon_hooks.engine.plans.Comparison`.
    limit, batch_size : int
        As for `fit_units`.
    any_weights : bool
        As for `linearize`.
    forward, mask, sample_axis
        How samples enter the network; as for `acon_hooks.captures.capturing.capture`.
        Padded positions are left out of outputs with positions, too, where one mask is given for
        all of the network.

    Returns
    -------
    PlanReport
        From one forward pass an image with the plan and one with its forward derivative, which
        costs two and yields the unchanged output as well; the first batch runs twice more to see
        that both are right. Where there is no forward derivative, from three forward passes.

    Raises
    ------
    UsageError
        If it is not clear which tensor of the output is meant.
    AconError
        If there are no images.

    Warns
    -----
    SameDataWarning
        If the lines were fitted on data of the same name.
    """
    network = unwrap(model)
    edits = plan_edits(network, plan, any_weights=any_weights)
    options = input_options(network, forward, mask, sample_axis)
    feed = open_feed(data, limit=limit, batch_size=batch_size, options=options)
    if feed.samples is not None and feed.identity["data"] == plan.data:
        text = f"the lines were fitted on {plan.data}, too: measure them on other images"
        warnings.warn(text, SameDataWarning, stacklevel=2)
    comparison, lines = Comparison(logits), _Lines(network, edits, output)
    predicted, seen = [], set[str]()
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        full_precision(),
        visiting(network, edits, lines.step),
    ):
        for batch in shown(feed, "damage"):
            if batch.ids:
                unchanged, after, found = lines.run(batch)
                comparison.add(UNCHANGED, batch, unchanged, unchanged)
                comparison.add(LINES, batch, after, unchanged)
                predicted.append(found)
                seen |= hashes(feed, batch)
    if not predicted:
        raise AconError("linearize: there were no images to measure on")
    frame = comparison.rows()
    samples = frame.loc[frame["plan"] == LINES, ["sample", "output_change", "agrees"]]
    samples = samples.rename(columns={"output_change": "change"}).reset_index(drop=True)
    for index, name in enumerate(("predicted", "predicted_error")):
        samples.insert(2 + index, name, np.concatenate([found[index] for found in predicted]))
    used = f"{comparison.words()}; {lines.words()}"
    summary = _summary(samples, frame, plan)
    return PlanReport(summary, samples, _layers(plan, lines.step), used, frozenset(seen))


def _summary(samples: pd.DataFrame, frame: pd.DataFrame, plan: Plan) -> dict[str, float]:
    """Return the numbers of a whole report; see `PlanReport`."""
    change = samples["change"].to_numpy(dtype=np.float64)
    loss = paired(frame).iloc[0]
    summary = {
        "units": float(len(plan.units)),
        "images": float(len(samples)),
        "change": float(change.mean()),
        **{f"q{round(100 * q):02d}": float(np.quantile(change, q)) for q in QUANTILES},
        "predicted": float(samples["predicted"].median()),
        "predicted_error": float(samples["predicted_error"].median()),
        "agreement": float(samples["agrees"].mean()),
        **{f"loss_{name}": float(loss[name]) for name in ("change", "low", "high", "p")},
    }
    for when, name in (("before", UNCHANGED), ("after", LINES)):
        correct = frame.loc[frame["plan"] == name, "correct"]
        if correct.notna().all():
            summary[f"accuracy_{when}"] = float(correct.mean())
    return summary


class _FirstStep(Editing):
    """Takes outputs a step towards their lines, and sums the residuals of the lines."""

    def __init__(self, edits: Edits) -> None:
        super().__init__(edits)
        # 1 puts the lines themselves, 0 leaves the outputs as they are. None makes dual numbers of
        # the outputs, the residuals their tangents.
        self.size: float | None = None
        # Sum of the squared residuals on the chosen channels, by (layer, call).
        self.errors: dict[Key, float] = {}
        # Sums of the outputs, `Gram` of shape (C,) with one variable, by (layer, call).
        self.outputs: dict[Key, Gram] = {}
        self.tensor_rows = Rows()
        self._seen: dict[Key, tuple[float, Gram]] = {}

    def edit(self, site: Site, edit: Edit, x: Tensor, y: Tensor) -> Tensor | None:
        """Return the output and its tangent, or the output a step further."""
        if self.size == 1:
            return edit.apply(x, y)
        (x, _), (y, tangent) = forward.unpack_dual(x), forward.unpack_dual(y)
        if not self.size:  # the layers before are as they were
            self._seen[site.name, site.call or 0] = _sums(edit, x, y, site, self.tensor_rows)
        if self.size == 0:
            return None
        rest = edit.apply(x, y) - y
        if self.size is not None:
            return y + self.size * rest
        dual: Tensor = forward.make_dual(y, rest if tangent is None else tangent + rest)
        return dual

    def end(self) -> None:
        """Add up what a forward pass has shown."""
        for key, (error, sums) in self._seen.items():
            self.errors[key] = self.errors.get(key, 0.0) + error
            self.outputs[key] = self.outputs[key] + sums if key in self.outputs else sums
        super().end()

    def abort(self) -> None:
        """Forget the forward pass."""
        super().abort()
        self._seen.clear()


def _sums(edit: Edit, x: Tensor, y: Tensor, site: Site, rows: Rows) -> tuple[float, Gram]:
    """Return the squared residuals of a line and the sums of outputs, (C,), in float64."""
    error, sums, axis = 0.0, [], site.axis
    if (kept := _kept(x, site, rows)) is not None:  # the positions that hold data, (P, C)
        wide = y.double().movedim(axis, -1)[kept]
        line = edit.apply(x.double(), y.double()).movedim(axis, -1)[kept]
        return float((line - wide).square().sum()), Gram.of(wide.unsqueeze(-1), axis=(0,))
    size = max(1, _VALUES * len(y) // max(y.numel(), 1)) if axis else len(y)
    for first, second in zip(torch.split(x, size), torch.split(y, size), strict=True):
        wide = second.double()
        error += float((edit.apply(first.double(), wide) - wide).square().sum())
        sums.append(Gram.of(fold(wide, axis).unsqueeze(-1), axis=(0, 2)))
    return error, reduce(add, sums)


def _kept(x: Tensor, site: Site, rows: Rows) -> Tensor | None:
    """Return where an input without its channel axis holds data; None if everywhere."""
    along = rows.axis_of(x, site.axis)
    channels = site.axis + (site.axis < along)
    moved = x.movedim(along, 0)
    try:
        valid = rows.positions(site.name, moved.shape, channels)
    except ValueError:  # positions of its own: all of them hold data
        return None
    if valid is None:
        return None
    shape = [size for axis, size in enumerate(moved.shape) if axis != channels]
    return valid.to(x.device).reshape(shape).movedim(0, along - (site.axis < along))


class _Lines:
    """Runs a network unchanged and with lines, and predicts the difference to first order.

    The derivative on the way from the activations to their lines is taken by forward-mode
    differentiation, which yields the unchanged output as well. Where it does not yield the same
    bit for bit on the first batch, the network runs unchanged, too. A difference quotient replaces
    the derivative where an operation has none, and where the two differ on the first batch: a
    network may cut derivatives off (`Tensor.detach`) or declare others.
    """

    def __init__(self, network: nn.Module, edits: Edits, output: Output) -> None:
        self.network, self.edits, self.output = network, edits, output
        self.step = _FirstStep(edits)
        self.derives: bool | None = None  # not known yet
        self.yields_unchanged = True
        self.because = ""

    def run(self, batch: Batch) -> tuple[Tensor, Tensor, _Predicted]:
        """Return the unchanged and the changed output, (N, ...), and the predicted change."""
        slope, first = None, self.derives is None
        self.step.tensor_rows = batch.tensor_rows
        if self.derives is not False:
            try:
                unchanged, slope = self._derivative(batch)
            except RuntimeError:  # whatever PyTorch raises where it has no derivative
                self.derives, self.because = False, "an operation has no forward derivative"
        if slope is None:
            unchanged = self._run(batch, 0.0)
        elif first or not self.yields_unchanged:
            plain = self._plain(batch)
            self.derives, self.yields_unchanged = True, torch.equal(plain, unchanged)
            unchanged = plain
        after = self._run(batch, 1.0)
        if slope is None:
            return unchanged, after, self._quotient(batch, unchanged, after)
        found = relative_norm(slope, unchanged), np.zeros(len(after))
        if first:
            quotient = self._quotient(batch, unchanged, after)
            if _differ(found[0], quotient):
                self.derives, self.because = False, "the network cuts off its derivative"
                return unchanged, after, quotient
        return unchanged, after, found

    def words(self) -> str:
        """Return how the change was predicted, in words."""
        if self.derives:
            return "predicted by forward-mode differentiation"
        return f"predicted by a difference quotient: {self.because}"

    def _run(self, batch: Batch, size: float | None) -> Tensor:
        """Return the output after a step of some size."""
        self.step.edits, self.step.size = self.edits, size
        return run_batch(self.network, batch, self.output)

    def _plain(self, batch: Batch) -> Tensor:
        """Return the output of the network as it is."""
        self.step.edits = {}
        return run_batch(self.network, batch, self.output)

    def _derivative(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the output and its derivative towards the lines."""
        with dual_numbers():
            unchanged, slope = forward.unpack_dual(self._run(batch, None))
        return unchanged, torch.zeros_like(unchanged) if slope is None else slope

    def _quotient(self, batch: Batch, unchanged: Tensor, after: Tensor) -> _Predicted:
        """Return the derivative from a step h and the whole step, and what it may be off by."""
        # With D(h) = (z(h) - z(0)) / h, the value (D(h) - h·D(1)) / (1 - h) is free of the second
        # derivative. It differs from D(h) by about what it may be off by; rounding z(h) to its
        # dtype adds ε/h. The larger the whole change, the smaller h: both errors are then about √ε
        # of the change.
        epsilon = torch.finfo(unchanged.dtype).eps
        change = np.nan_to_num(np.median(relative_change(unchanged, after)), posinf=1.0)
        exponent = np.log2(epsilon**0.5 / max(float(change), epsilon))
        size = float(2.0 ** np.clip(np.round(exponent), np.log2(epsilon) / 2, -1))
        near = self._run(batch, size)
        zero, whole = unchanged.double(), after.double()
        first = (near.double() - zero) / size
        slope = (first - size * (whole - zero)) / (1 - size)
        error = relative_norm(slope - first, zero) + epsilon / size
        return relative_norm(slope, zero), error


def _differ(slope: FloatArray, quotient: _Predicted) -> bool:
    """Return whether a derivative is not that of the network, for half of the samples or more."""
    found, error = quotient
    beyond = np.abs(found - slope) - 4 * error > 0.1 * np.maximum(found, slope)
    return bool(np.mean(beyond) >= 0.5)


def _layers(plan: Plan, step: _FirstStep) -> pd.DataFrame:
    """Return one row a use of a layer: predicted and measured squared error."""
    counts = plan.table.groupby(["layer", "call"], sort=False).size()
    rows = []
    for use in plan.layers:
        key = use.layer, use.call
        total = float(step.outputs[key].C.sum())
        measured = step.errors[key] / total if total > 0 else 0.0
        rows.append((*key, int(counts.loc[key]), use.channels, plan.lost[key], measured))
    columns = ["layer", "call", "units", "channels", "predicted", "measured"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "str"})
