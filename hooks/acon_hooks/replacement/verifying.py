"""Measure what a plan does to a network, on images that its lines were not fitted on."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from acon_analysis.errors import AconError
from acon_analysis.moments.gram import Gram
from acon_analysis.statistics.paired import UNCHANGED, paired
from acon_hooks.engine.edits import Edit, Editing, Edits
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.plans import logits_of, run_plans
from acon_hooks.engine.visiting import Site, visiting
from acon_hooks.guards import unwrap
from acon_hooks.layers.reading import fold
from acon_hooks.readings.batch import Key
from acon_hooks.replacement.linearizing import plan_edits
from acon_hooks.replacement.plan import Plan

#: Step of the difference quotient, in float64, where an operation has no forward derivative.
STEP = 1e-5

#: Quantiles of the relative change of the logits over the images.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

forward: Any = forward_ad
FloatArray = npt.NDArray[np.float64]

#: Values of a layer's output that are brought to float64 at once.
_VALUES = 2**22


@dataclass(frozen=True)
class PlanReport:
    """What a plan does to a network.

    Parameters
    ----------
    summary : dict
        units, images; change (mean) and its quantiles q05 to q95 over the images, where the
        change of an image is the norm of the difference of its logits over their norm;
        predicted (median change predicted to first order: the residuals of the lines times the
        network's derivative); agreement, the share of images whose largest logit stays;
        loss_change with its 95 % interval loss_low to loss_high and loss_p, as
        `acon_analysis.statistics.paired.paired` has them of the losses that
        `acon_hooks.engine.plans.run_plans` takes; with class labels accuracy_before and
        accuracy_after.
    samples : DataFrame
        One row an image: sample, change, predicted, agrees.
    layers : DataFrame
        One row a use of a layer: layer, call, units, channels, predicted and measured: the squared
        error of its lines over the variance of the layer's output, as the fit says and on these
        images, both with the layers before it unchanged.
    """

    summary: dict[str, float]
    samples: pd.DataFrame
    layers: pd.DataFrame


def verify_plan(
    model: nn.Module,
    plan: Plan,
    data: Any,
    *,
    limit: int | None = None,
    batch_size: int = 64,
    any_weights: bool = False,
) -> PlanReport:
    """Measure what a plan does to a network, and how well it was predicted.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode, with logits (N, K) as its output.
    plan : Plan
        Units and lines, from another split.
    data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        Images; see `acon_hooks.engine.feeding.open_feed`. Accuracy needs class indices as labels.
    limit, batch_size : int
        As for `fit_units`.
    any_weights : bool
        As for `linearize`.

    Returns
    -------
    PlanReport
        From two forward passes an image in the network's dtype, and one with its forward
        derivative, which costs about as much as two more.
    """
    network = unwrap(model)
    edits = plan_edits(network, plan, any_weights=any_weights)
    prediction = _Prediction(network, plan, edits)
    frames, predicted = [], []
    for batch in open_feed(data, limit=limit, batch_size=batch_size).batches():
        if batch.ids:
            frames.append(run_plans(network, _OneBatch(batch), {"lines": edits}))
            predicted.append(prediction.of(batch))
    if not frames:
        raise AconError("linearize: there were no images to measure on")
    frame = pd.concat(frames, ignore_index=True)
    samples = frame.loc[frame["plan"] == "lines", ["sample", "output_change", "agrees"]]
    samples = samples.rename(columns={"output_change": "change"}).reset_index(drop=True)
    samples.insert(2, "predicted", np.concatenate(predicted))
    return PlanReport(_summary(samples, frame, plan), samples, prediction.layers())


@dataclass(frozen=True)
class _OneBatch:
    """A feed of one batch."""

    batch: Batch

    def batches(self) -> list[Batch]:
        """Return the batch."""
        return [self.batch]


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
        "agreement": float(samples["agrees"].mean()),
        **{f"loss_{name}": float(loss[name]) for name in ("change", "low", "high", "p")},
    }
    for when, name in (("before", UNCHANGED), ("after", "lines")):
        correct = frame.loc[frame["plan"] == name, "correct"]
        if correct.notna().all():
            summary[f"accuracy_{when}"] = float(correct.mean())
    return summary


class _FirstStep(Editing):
    """Takes outputs a first step towards their lines, and sums the residuals of the lines.

    Attributes
    ----------
    size : float or None
        Of the step; None makes dual numbers of the outputs, the residuals their tangents.
    errors : dict
        Sum of the squared residuals on the chosen channels, by (layer, call).
    outputs : dict
        Sums of the outputs, `Gram` of shape (C,) with one variable, by (layer, call).
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__(edits)
        self.size: float | None = None
        self.errors: dict[Key, float] = {}
        self.outputs: dict[Key, Gram] = {}
        self._seen: dict[Key, tuple[float, Gram]] = {}

    def edit(self, site: Site, edit: Edit, x: Tensor, y: Tensor) -> Tensor:
        """Return the output and its tangent, or the output a step further."""
        (x, _), (y, tangent) = forward.unpack_dual(x), forward.unpack_dual(y)
        rest = edit.apply(x, y) - y
        if not self.size:  # the layers before are as they were
            error = float((rest * rest).sum(dtype=torch.float64))
            self._seen[site.name, site.call or 0] = error, _sums(y, site.axis)
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


def _sums(values: Tensor, axis: int) -> Gram:
    """Return the sums of values, (C,), some samples at a time."""
    folded = fold(values, axis)
    size = max(1, _VALUES * len(folded) // max(folded.numel(), 1))
    parts = torch.split(folded, size)
    return reduce(add, (Gram.of(part.unsqueeze(-1), axis=(0, 2)) for part in parts))


class _Prediction:
    """Predicts the change of the logits to first order: the residuals of the lines, carried on.

    The derivative on the way from the activations to their lines is taken by forward-mode
    differentiation in the network's dtype; where an operation does not offer it, by a difference
    quotient of a copy in float64.
    """

    def __init__(self, network: nn.Module, plan: Plan, edits: Edits) -> None:
        self.network, self.plan = network, plan
        self.step = _FirstStep(edits)

    def of(self, batch: Batch) -> FloatArray:
        """Return the predicted change of the logits of each image over their norm, (N,)."""
        device = next((value.device for value in self.network.parameters()), torch.device("cpu"))
        arguments = batch.to(device).arguments()
        with torch.inference_mode(False), torch.no_grad():
            if self.step.size is None:
                try:
                    return self._derivative(arguments)
                except NotImplementedError:
                    self.network = copy.deepcopy(self.network).double()
                    self.step.edits = plan_edits(self.network, self.plan, any_weights=True)
            return self._quotient(arguments)

    def _derivative(self, arguments: tuple[Any, ...]) -> FloatArray:
        """Return the prediction by forward-mode differentiation."""
        with forward.dual_level(), warnings.catch_warnings():
            # The first dual number makes PyTorch script some functions of its own.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            logits, change = forward.unpack_dual(self._run(arguments))
        logits = logits_of(logits)
        change = torch.zeros_like(logits) if change is None else logits_of(change)
        return np.asarray((change.norm(dim=1) / logits.norm(dim=1)).numpy())

    def _quotient(self, arguments: tuple[Any, ...]) -> FloatArray:
        """Return the prediction by a difference quotient."""
        wide = [v.double() if v.is_floating_point() else v for v in arguments]
        outputs = []
        for self.step.size in (0.0, STEP):
            outputs.append(logits_of(self._run(wide)))
        change = (outputs[1] - outputs[0]) / STEP
        return np.asarray((change.norm(dim=1) / outputs[0].norm(dim=1)).numpy())

    def _run(self, arguments: Sequence[Any]) -> Any:
        """Return the output of the network while outputs take their first step."""
        with visiting(self.network, self.step.edits, self.step):
            return self.network(*arguments)

    def layers(self) -> pd.DataFrame:
        """Return one row a use of a layer: predicted and measured squared error."""
        counts = self.plan.table.groupby(["layer", "call"], sort=False).size()
        rows = []
        for use in self.plan.layers:
            key = use.layer, use.call
            total = float(self.step.outputs[key].C.sum())
            rows.append(
                {
                    "layer": use.layer,
                    "call": use.call,
                    "units": int(counts.loc[key]),
                    "channels": use.channels,
                    "predicted": self.plan.lost[key],
                    "measured": self.step.errors[key] / total if total > 0 else 0.0,
                }
            )
        return pd.DataFrame(rows).astype({"layer": "str"})
