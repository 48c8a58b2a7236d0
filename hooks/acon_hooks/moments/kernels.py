"""Moments over the pixels of each sample and channel, by torch's operators.

Summed in float64 about the first pixel of each sample and channel, whatever the dtype of the data:
products of float32 are exact in it and squares neither overflow nor vanish. A pixel is at most
sqrt(P) deviations from the mean of P, so centred sums keep their digits whatever the mean is, and
those of constant data are exactly 0. Nothing depends on other samples or batches.

For the ACON family not y is summed but its even part w = (d/2)·x·tanh((β·d/2)·x), from x without
reading y: y = m·x + w, and where β is small w keeps digits that y has lost. For float32 data the
gate is in float32, unless an output varies so little that its rounding would be seen (`ROUGH`).

`acon_hooks.moments.native.sums` has the same in C++.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acon_analysis.moments.gram import Gram
from acon_hooks.layers.reading import Factors, fold

FloatArray = npt.NDArray[np.float64]


class Sums(NamedTuple):
    """Moments over the pixels, (N, C) each, in the order of ``rows.h``; None where a kind has none.

    ``x`` and ``w`` are means, ``xx``, ``ww`` and ``xw`` centred sums of products; the extremes of x
    and the count of x > 0. w is y, or the even part in the ACON family. For that also those of
    t = tanh(z), and the extremes of z = (β·d/2)·x. With a reference those of r, which is w at the
    reference β.
    """

    x: Tensor
    xx: Tensor
    w: Tensor
    ww: Tensor
    xw: Tensor
    low_x: Tensor
    high_x: Tensor
    positive: Tensor
    t: Tensor | None = None
    tt: Tensor | None = None
    low_z: Tensor | None = None
    high_z: Tensor | None = None
    r: Tensor | None = None
    rr: Tensor | None = None
    xr: Tensor | None = None


class ProductSums(NamedTuple):
    """The same of gated products w = a·h, h = g(x): those of `PLAIN`, of the factor a and of h."""

    x: Tensor
    xx: Tensor
    w: Tensor
    ww: Tensor
    xw: Tensor
    low_x: Tensor
    high_x: Tensor
    positive: Tensor
    a: Tensor
    aa: Tensor
    xa: Tensor
    aw: Tensor
    h: Tensor
    hh: Tensor
    xh: Tensor

    def residual(self, pixels: Tensor) -> Tensor:
        """Return the residual of the fit of w on x and a, (N, C); `pixels` values each, (C,)."""
        rows = (self.xx, self.xa, self.xw), (self.xa, self.aa, self.aw), (self.xw, self.aw, self.ww)
        C = torch.stack([torch.stack(row, -1) for row in rows], -2)
        mean = torch.stack([self.x, self.a, self.w], -1)
        found: Tensor = Gram(pixels.expand_as(self.x), mean, C).residual(2, [0, 1])
        return found


@dataclass(frozen=True)
class CallSums:
    """Sums of one call in the current batch, (rows, N, C), and its β, (N, C)."""

    rows: tuple[str, ...]  # what the sums are
    sums: Tensor
    beta: Tensor | None
    pixels: int | FloatArray  # of all samples, or of each, (N,)
    eps: float  # relative rounding of its outputs


#: Names of the sums that are taken: of activations, of ACON with one β a channel, and of ACON with
#: one β a sample and channel, compared with the constant reference; and of products.
PLAIN, GATED, REFERRED = Sums._fields[:8], Sums._fields[:12], Sums._fields
PRODUCT = ProductSums._fields

#: Takes the rows `PLAIN` of two tensors; None where it cannot.
Pair = Callable[[Tensor, Tensor], Tensor | None]

#: Elements of a tile on the CPU, whose caches hold it, and on accelerators, to spare their memory.
TILE, LARGE_TILE = 1 << 15, 1 << 24

#: What an output's standard deviation has to exceed for a gate in float32, relative to d/2 times
#: the root mean square of x: the first over sqrt(P), and the second. Such a gate is right to 1e-7;
#: below, its rounding, which is less seen the more pixels there are, would move L by 1e-6. As in
#: ``results.h``.
ROUGH = 0.3, 3e-3


@dataclass(frozen=True)
class Gate:
    """Constants of the ACON family for one call; float64 (C,) each, on the layer's device."""

    # d/2 = (p1 - p2)/2.
    half: Tensor
    # m = (p1 + p2)/2.
    middle: Tensor
    # Constant β of the counterfactual.
    reference: Tensor | None

    @cached_property
    def table(self) -> Tensor:
        """All of them side by side, (3, C); 0 without a reference."""
        reference = torch.zeros_like(self.half) if self.reference is None else self.reference
        return torch.stack([self.half, self.middle, reference])

    def select(self, index: Tensor | slice) -> "Gate":
        """Return the constants of some channels."""
        reference = None if self.reference is None else self.reference[index]
        return Gate(self.half[index], self.middle[index], reference)


def rows_of(gate: Gate | None) -> tuple[str, ...]:
    """Return the names of the sums for a layer."""
    if gate is None:
        return PLAIN
    return GATED if gate.reference is None else REFERRED


def sums(x: Tensor, y: Tensor, beta: Tensor | None, axis: int, gate: Gate | None) -> Tensor:
    """Return moments over the pixels by sample and channel, (`rows_of(gate)`, N, C), float64.

    x, y of any floating dtype have the samples on axis 0, channels on `axis`; beta is (N or 1, C or
    1, 1 or P) for the ACON family. Outside of it the gate is None, and w is y.
    """
    xs, ys = fold(x, axis), fold(y, axis)
    pixels = xs.shape[2]
    if gate is None or x.dtype == torch.float64 or not x.is_cpu or pixels < 2:
        return _tiled(xs, ys, beta, gate, torch.float64)
    found = _tiled(xs, ys, beta, gate, torch.float32)
    repeat(found, _rough(Sums(*found), gate, pixels).any(0), x, y, beta, axis, gate)
    return found


def repeat(
    found: Tensor,
    channels: Tensor,
    x: Tensor,
    y: Tensor,
    beta: Tensor | None,
    axis: int,
    gate: Gate | None,
) -> None:
    """Overwrite the moments of some channels, bool (C,), in `found`, by those of a float64 gate."""
    index = channels.nonzero().flatten()
    if not len(index):
        return
    if beta is not None and beta.shape[1] > 1:
        beta = beta[:, index]
    xs, ys = (fold(t, axis)[:, index] for t in (x, y))
    own = None if gate is None else gate.select(index)
    found[:, :, index] = _tiled(xs, ys, beta, own, torch.float64)


def _rough(at: Sums, gate: Gate, pixels: int) -> Tensor:
    """Return where the output varies next to nothing although x does, (N, C)."""
    few, least = ROUGH
    limit = max(few**2 / pixels, least**2) * gate.half**2 * (at.xx + pixels * at.x**2)
    seen = torch.zeros_like(at.xx, dtype=torch.bool)
    for own, cross in ((at.ww, at.xw), (at.rr, at.xr)):
        if own is not None and cross is not None:
            seen |= own + gate.middle * (2 * cross + gate.middle * at.xx) < limit
    return seen & (at.xx > 0)


def _tiled(
    x: Tensor, y: Tensor, beta: Tensor | None, gate: Gate | None, dtype: torch.dtype
) -> Tensor:
    """Take the moments of (N, C, P), tile by tile; gates are computed in `dtype`."""
    shape = (len(rows_of(gate)), *x.shape[:2])
    out = torch.empty(shape, dtype=torch.float64, device=x.device)
    if not x.shape[2]:
        return out.fill_(torch.nan)  # there are no positions
    steep = None
    if gate is not None and beta is not None:
        steep = (beta.double() * gate.half.unsqueeze(1)).expand(*x.shape[:2], -1)
    for tile in _tiles(x):
        if gate is None or steep is None:
            rows = _of_activation(x[tile], y[tile])
        else:
            rows = _of_gate(x[tile], steep[tile], gate.select(tile[1]), dtype)
        for row, values in zip(out, rows, strict=True):
            row[tile] = values
    return out


def _tiles(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield ranges of samples and channels."""
    samples, channels, pixels = x.shape
    most = max((TILE if x.is_cpu else LARGE_TILE) // max(pixels, 1), 1)
    wide = min(most, channels)
    step = max(most // max(channels, 1), 1)
    for start in range(0, samples, step):
        for first in range(0, channels, wide):
            yield slice(start, start + step), slice(first, first + wide)


def product_sums(x: Tensor, y: Tensor, factors: Factors, axis: int) -> Tensor:
    """Return the moments of a gated product like `sums`, (`PRODUCT`, N, C), float64."""
    xs, ys, a, h = (fold(t, axis) for t in (x, y, *factors))
    out = torch.empty((len(PRODUCT), *xs.shape[:2]), dtype=torch.float64, device=x.device)
    if not xs.shape[2]:
        return out.fill_(torch.nan)  # there are no positions
    for tile in _tiles(xs):
        for row, values in zip(out, _of_product(*(t[tile] for t in (xs, ys, a, h))), strict=True):
            row[tile] = values
    return out


def product_by_pairs(
    x: Tensor, y: Tensor, factors: Factors, axis: int, pair: Pair | None
) -> Tensor:
    """Do what `product_sums` does by sums of pairs, or of one where pixels share a gate."""
    if not x.numel():
        return product_sums(x, y, factors, axis)
    a, gate = factors
    inner = [i for i in range(1, x.ndim) if i != axis]
    steady = inner and not any(t.stride(i) and t.size(i) > 1 for t in (x, gate) for i in inner)
    if steady:
        found = None if pair is None else pair(a, y)
        found = sums(a, y, None, axis, None) if found is None else found
        pixels = math.prod(x.size(i) for i in inner)
        b, h = (fold(t, axis)[:, :, 0].double() for t in (x, gate))
        none = torch.zeros_like(b)
        a, aa, w, ww, aw, *_ = found
        rows = [b, none, w, ww, none, b, b, (b > 0) * pixels, a, aa, none, aw, h, none, none]
        return torch.stack([row.double() for row in rows])
    if pair is not None:
        pairs = [pair(one, other) for one, other in ((x, y), (x, a), (a, y), (x, gate))]
        first, second, third, fourth = pairs
        if first is not None and second is not None and third is not None and fourth is not None:
            return torch.cat([first, second[2:5], third[4:5], fourth[2:5]])
    return product_sums(x, y, factors, axis)


def _of_product(x: Tensor, y: Tensor, a: Tensor, h: Tensor) -> list[Tensor]:
    """Take the rows `PRODUCT` of a tile, (n, c, P)."""
    values = _wide(x)
    free = torch.empty_like(values)
    ends = _ends(values, free)
    b, w, a_, h_ = _Centred(values), *(_Centred(_wide(t)) for t in (y, a, h))
    rows = [b.mean, b.square(free), w.mean, w.square(free), w.product(b, free), *ends]
    rows += [a_.mean, a_.square(free), a_.product(b, free), a_.product(w, free)]
    return [*rows, h_.mean, h_.square(free), h_.product(b, free)]


class _Centred:
    """A variable, (n, c, P) float64, about its first pixel; what is given is overwritten."""

    def __init__(self, values: Tensor) -> None:
        first = values[:, :, :1].clone()
        self.deviations = values.sub_(first)
        self.total = values.sum(2)
        self.mean = first.squeeze(2) + self.total / values.shape[2]

    def product(self, other: "_Centred", free: Tensor) -> Tensor:
        """Return the centred sum of products with another variable."""
        products = torch.mul(self.deviations, other.deviations, out=free).sum(2)
        return products - self.total * other.total / free.shape[2]

    def square(self, free: Tensor) -> Tensor:
        """Return the centred sum of squares."""
        return self.product(self, free).clamp_min(0)


def _wide(values: Tensor) -> Tensor:
    """Copy values as float64, pixels side by side."""
    return values.to(torch.float64, copy=True, memory_format=torch.contiguous_format)


def _ends(values: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return extremes, and how many values are positive."""
    return values.amin(2), values.amax(2), torch.gt(values, 0, out=free).sum(2)


def _of_activation(x: Tensor, y: Tensor) -> list[Tensor]:
    """Take the rows `PLAIN` of a tile, (n, c, P)."""
    values = _wide(x)
    free = torch.empty_like(values)
    ends = _ends(values, free)
    a, w = _Centred(values), _Centred(_wide(y))
    return [a.mean, a.square(free), w.mean, w.square(free), w.product(a, free), *ends]


def _of_gate(x: Tensor, steep: Tensor, gate: Gate, dtype: torch.dtype) -> list[Tensor]:
    """Take the rows `GATED` or `REFERRED` of a tile; `steep` is β·d/2, (n, c, 1 or P)."""
    values = _wide(x)
    free, narrow = torch.empty_like(values), values.to(dtype)
    low, high, positive = _ends(values, free)
    z = narrow * steep.to(dtype)
    each = torch.stack([low * steep[:, :, 0], high * steep[:, :, 0]]) if steep.shape[2] == 1 else z
    axis = 0 if steep.shape[2] == 1 else 2
    steepest = each.amin(axis), each.amax(axis)
    gates = z.tanh_().double()
    even, others = gates * values, None
    if gate.reference is not None:
        z = narrow * (gate.reference * gate.half).to(dtype).unsqueeze(1)
        others = z.tanh_().double() * values
    a, w, t = _Centred(values), _Centred(even), _Centred(gates)

    def scaled(w: _Centred) -> list[Tensor]:
        """So far w and r lack the factor d/2."""
        half = gate.half
        return [w.mean * half, w.square(free) * half**2, w.product(a, free) * half]

    rows = [a.mean, a.square(free), *scaled(w), low, high, positive]
    rows += [t.mean, t.square(free), *steepest]
    return rows if others is None else [*rows, *scaled(_Centred(others))]
