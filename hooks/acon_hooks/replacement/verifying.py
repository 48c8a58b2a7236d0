"""Measure what a plan does to a network, on images that its lines were not fitted on."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.errors import AconError
from acon_hooks.engine.feeding import open_feed
from acon_hooks.guards import unwrap
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.batch import Key
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.fitting import LINEARIZABLE, folded_values
from acon_hooks.replacement.linearizing import linearize, linearized_layers
from acon_hooks.replacement.plan import Plan

#: Step of the difference quotient, in float64, that the first-order prediction is taken with.
STEP = 1e-5

#: Quantiles of the relative change of the logits over the images.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class PlanReport:
    """What a plan does to a network.

    Parameters
    ----------
    summary : dict
        units, images; change (mean) and its quantiles q05 to q95 over the images, where the
        change of an image is the norm of the difference of its logits over their norm;
        predicted (median change predicted to first order: the residuals of the lines times the
        network's derivative); agreement, the share of images whose largest logit stays; with
        labels accuracy_before and accuracy_after.
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
        Images; see `acon_hooks.engine.feeding.open_feed`. Accuracy needs an image source with
        labels.
    limit, batch_size : int
        As for `fit_units`.
    any_weights : bool
        As for `linearize`.

    Returns
    -------
    PlanReport
        From four forward passes an image, two of them in float64.
    """
    network = unwrap(model)
    changed = linearize(network, plan, any_weights=any_weights)
    wide = linearize(network, plan, any_weights=any_weights).double()
    feed = open_feed(data, limit=limit, batch_size=batch_size)
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    errors = _Errors(plan)
    frames = []
    names = list(dict.fromkeys(layer.layer for layer in plan.layers))
    with torch.inference_mode(), Tap(network, names, kinds=LINEARIZABLE, observe=errors) as tap:
        for batch in feed.batches():
            images = batch.to(device).inputs
            if images is None:
                continue
            before = network(images)
            tap.take()
            after = changed(images)
            _require_logits(before)
            slope = _first_order(wide, images.double())
            frames.append(_rows(batch.ids, before, after, slope))
    if not frames:
        raise AconError("linearize: there were no images to measure on")
    samples = pd.concat(frames, ignore_index=True)
    summary = _summary(samples, plan, getattr(getattr(feed, "source", None), "targets", None))
    public = samples[["sample", "change", "predicted", "agrees"]]
    return PlanReport(summary, public, errors.table())


def _first_order(model: nn.Module, images: Tensor) -> Tensor:
    """Return the derivative of the logits along the way from the activations to the lines."""
    outputs = []
    for share in (0.0, STEP):
        for layer in linearized_layers(model).values():
            layer.take_share(share)
        outputs.append(model(images))
    change: Tensor = (outputs[1] - outputs[0]) / STEP
    return change


def _require_logits(output: Any) -> None:
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise AconError(f"linearize: the model's output must be logits (N, K); it is {shape}")


def _rows(ids: list[int], before: Tensor, after: Tensor, slope: Tensor) -> pd.DataFrame:
    norm = before.double().norm(dim=1)
    columns = {
        "change": (after.double() - before.double()).norm(dim=1) / norm,
        "predicted": slope.norm(dim=1) / norm,
        "agrees": before.argmax(1) == after.argmax(1),
        "before": before.argmax(1),
        "after": after.argmax(1),
    }
    values = {name: column.cpu().numpy() for name, column in columns.items()}
    return pd.DataFrame({"sample": np.asarray(ids, dtype=np.int64), **values})


def _summary(
    samples: pd.DataFrame, plan: Plan, targets: npt.NDArray[np.int64] | None
) -> dict[str, float]:
    change = samples["change"].to_numpy(dtype=np.float64)
    summary = {
        "units": float(len(plan.units)),
        "images": float(len(samples)),
        "change": float(change.mean()),
        **{f"q{round(100 * q):02d}": float(np.quantile(change, q)) for q in QUANTILES},
        "predicted": float(samples["predicted"].median()),
        "agreement": float(samples["agrees"].mean()),
    }
    if targets is not None:
        labels = np.asarray(targets)[samples["sample"].to_numpy()]
        for when in ("before", "after"):
            summary[f"accuracy_{when}"] = float((samples[when].to_numpy() == labels).mean())
    return summary


class _Errors:
    """Squared errors of a plan's lines where the network itself computes x and y."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        groups = plan.table.groupby(["layer", "call"], sort=False)
        self.lines: dict[Key, pd.DataFrame] = {
            (str(own["layer"].iloc[0]), int(own["call"].iloc[0])): own for _, own in groups
        }
        self.error: dict[Key, float] = defaultdict(float)
        self.sums: dict[Key, list[npt.NDArray[np.float64]]] = {}

    def __call__(self, layer: Layer, call: int, x: Tensor, y: Tensor, _beta: Tensor | None) -> None:
        """Take one call's values in."""
        own = self.lines.get((layer.name, call))
        if own is None:
            return
        xs, ys = folded_values(x, layer.axis), folded_values(y, layer.axis)
        slope, intercept = (own[name].to_numpy()[:, None] for name in ("slope", "intercept"))
        index = own["channel"].to_numpy()
        rest = ys[:, index] - slope * xs[:, index] - intercept
        self.error[layer.name, call] += float((rest * rest).sum())
        count = np.array([ys.shape[0] * ys.shape[2]], dtype=np.float64)
        mean = ys.mean((0, 2))
        spread = ((ys - mean[:, None]) ** 2).sum((0, 2))
        self.sums.setdefault((layer.name, call), []).append(np.concatenate([count, mean, spread]))

    def table(self) -> pd.DataFrame:
        """One row a use of a layer: predicted and measured squared error."""
        rows = []
        for use in self.plan.layers:
            key = use.layer, use.call
            parts = np.stack(self.sums[key])
            count, mean = parts[:, :1], parts[:, 1 : 1 + use.channels]
            centre = (count * mean).sum(0) / count.sum()
            total = parts[:, 1 + use.channels :].sum() + (count * (mean - centre) ** 2).sum()
            rows.append(
                {
                    "layer": use.layer,
                    "call": use.call,
                    "units": len(self.lines[key]),
                    "channels": use.channels,
                    "predicted": self.plan.lost[key],
                    "measured": self.error[key] / total if total > 0 else 0.0,
                }
            )
        return pd.DataFrame(rows).astype({"layer": "str"})
