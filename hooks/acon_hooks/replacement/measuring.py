"""Other measures of nonlinearity (`statistics.other_measures`) of a live network's units."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.statistics.other_measures import measure_table
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.fitting import LINEARIZABLE, acon_slopes, folded_values


def unit_measures(
    model: nn.Module,
    images: Tensor,
    *,
    kinds: Sequence[str] = LINEARIZABLE,
    layers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Compute the other measures of every unit, in one forward pass.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    images : Tensor
        (N, ...); all values of a layer are held in memory at once.
    kinds : sequence of str
        Kinds of layers.
    layers : sequence of str, optional
        Only these layers.

    Returns
    -------
    DataFrame
        Layer, call, the columns of `measure_table`. Slopes are those at the inputs
        seen, β held at its value; NaN for layers that are not elementwise.
    """
    frames: list[pd.DataFrame] = []

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        slopes = _slopes(layer, x, beta)
        table = measure_table(
            _rows(x, layer.axis),
            _rows(y, layer.axis),
            slopes=None if slopes is None else _rows(slopes, layer.axis),
            beta=None if beta is None else _per_sample(beta, x.shape[layer.axis]),
        )
        frames.append(table.assign(layer=layer.name, call=call))

    with (
        torch.inference_mode(),
        Tap(model, layers, kinds=tuple(kinds), observe=observe) as tap,
    ):
        model(images)
        tap.take()
    table = pd.concat(frames, ignore_index=True).astype({"layer": "str"})
    return table[["layer", "call", *table.columns.drop(["layer", "call"])]]


def _rows(values: Tensor, axis: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return (N·positions, C)."""
    folded = folded_values(values, axis)
    return folded.transpose(0, 2, 1).reshape(-1, folded.shape[1])


def _per_sample(beta: Tensor, channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return β as (N, C), pixels averaged."""
    means = beta.double().mean(2).cpu()
    return np.asarray(means.expand(len(means), channels).numpy())


def _slopes(layer: Layer, x: Tensor, beta: Tensor | None) -> Tensor | None:
    """Return f'(x) of every value, x's shape; None where a value's output has other inputs."""
    pair = acon_slopes(layer)
    if pair is not None and beta is not None:
        moved = x.movedim(layer.axis, 1)
        flat = moved.reshape(*moved.shape[:2], -1)
        p1, p2 = (slope.reshape(1, -1, 1) for slope in pair)
        d = p1 - p2
        u = beta * d * flat
        gate = torch.sigmoid(u)
        slopes = p2 + d * (gate + u * gate * (1 - gate))
        return slopes.reshape(moved.shape).movedim(1, layer.axis)
    if layer.kind != "activation":
        return None
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.clone().requires_grad_()
        output: Tensor = layer.module.forward(leaf.clone())
        (slopes,) = torch.autograd.grad(output.sum(), leaf)
    return slopes
