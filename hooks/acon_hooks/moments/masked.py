"""Samples on any axis, and padded positions, which are left out of all moments."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acon_hooks.engine.rows import Rows, mean_of
from acon_hooks.errors import HookError
from acon_hooks.layers.reading import Factors, fold
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.kernels import PRODUCT, Gate, product_sums, rows_of, sums

FloatArray = npt.NDArray[np.float64]


def samples_first(
    rows: Rows, layer: Layer, x: Tensor, y: Tensor, beta: Tensor | Factors | None
) -> tuple[Layer, Tensor, Tensor, Tensor | Factors | None]:
    """Return a call of a layer with the samples on axis 0; β has them there already."""
    along = rows.axis_of(x, layer.axis)
    if not along or x.shape != y.shape:
        return layer, x, y, beta
    if isinstance(beta, Tensor) and len(beta) not in (1, rows.count):
        return layer, x, y, beta  # β of steps, which the second look refuses
    if isinstance(beta, Factors):
        beta = Factors(*(value.movedim(along, 0) for value in beta))
    moved = replace(layer, axis=layer.axis + (layer.axis < along))
    return moved, x.movedim(along, 0), y.movedim(along, 0), beta


def valid_positions(rows: Rows, layer: Layer, x: Tensor) -> Tensor | None:
    """Return which positions of a call hold data, bool (N, P); None if all do."""
    try:
        return rows.positions(layer.name, x.shape, layer.axis)
    except ValueError as error:
        text = f"layer {layer.name!r}: {error}, as they were on the first batch"
        raise HookError(text) from error


def misfit(rows: Rows, layer: Layer, x: Tensor) -> str:
    """Say why the mask does not fit a call; empty if it does."""
    try:
        rows.positions(layer.name, x.shape, layer.axis)
    except ValueError as error:
        return str(error)
    return ""


def masked_sums(
    x: Tensor, y: Tensor, beta: Tensor | Factors | None, axis: int, gate: Gate | None, valid: Tensor
) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """Return `kernels.sums` over the positions that hold data, and how many these are, (N,).

    `valid` is bool (N, P); of a gated product the factors come in place of β. NaN for samples
    without data. Samples of the same length are summed together, without their padded positions.
    """
    xs, ys = fold(x, axis), fold(y, axis)
    factors = beta if isinstance(beta, Factors) else None
    own_beta = None if isinstance(beta, Factors) else beta
    rows = rows_of(gate) if factors is None else PRODUCT
    lengths = valid.sum(1)
    found = torch.full((len(rows), *xs.shape[:2]), torch.nan, dtype=torch.float64, device=x.device)
    for length in sorted(set(lengths.tolist()) - {0}):
        own = (lengths == length).nonzero().flatten()
        part = partial(_valid_part, own=own, valid=valid[own])
        if factors is None:
            betas = None if own_beta is None else part(own_beta)
            found[:, own] = sums(part(xs), part(ys), betas, 1, gate)
        else:
            one = Factors(*(part(fold(value, axis)) for value in factors))
            found[:, own] = product_sums(part(xs), part(ys), one, 1)
    return found, lengths.double().cpu().numpy()


def _valid_part(values: Tensor, own: Tensor, valid: Tensor) -> Tensor:
    """Return the valid positions of some samples, (n, C, length) of (N or 1, C, P or 1)."""
    values = values[own] if len(values) > 1 else values
    if values.shape[2] != valid.shape[1]:  # one value for all positions
        return values
    values = values.expand(len(own), -1, -1)
    return values.movedim(1, 2)[valid].reshape(len(own), -1, values.shape[1]).movedim(2, 1)


def mean_beta(
    beta: Tensor | None, gate: Gate | None, raw: Tensor, valid: Tensor | None = None
) -> Tensor | None:
    """Return β of each sample and channel, (N, C) float64; None outside the ACON family."""
    if beta is None or gate is None:
        return None
    mean = (beta[:, :, 0] if beta.shape[2] == 1 else mean_of(beta, valid)).double()
    return mean.expand(raw.shape[1], raw.shape[2])


def unpadded(beta: Tensor | None, valid: Tensor | None) -> Tensor | None:
    """Return β with NaN at padded positions."""
    if beta is None or valid is None or beta.shape[2] == 1:
        return beta
    return beta.masked_fill(~valid.unsqueeze(1), torch.nan)


def lengths_of(calls: list[int | FloatArray]) -> npt.NDArray[Any]:
    """Return the values that a sample has in each channel: (layers,), or (N, layers)."""
    counts = np.broadcast_arrays(*calls)
    return np.stack(counts, axis=-1)
