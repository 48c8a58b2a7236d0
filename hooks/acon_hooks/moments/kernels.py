"""Sums over the pixels of each sample and channel, in as few passes over memory as eager allows.

Everything is reduced in float32, tile by tile so that a tile stays in the cache, with two guards
that keep the digits (the sums become float64 means and moments afterwards):

- Not y is summed but w = y - k·x, with k near the slope of the channel's affine fit: the residual
  of w is that of y, and rounding is relative to what the fit leaves over, not to y. For the ACON
  family w = (d/2)·x·(tanh((β·d/2)·x) + (m - k)/(d/2)), computed from x without reading y.
- Channels whose mean is large against their spread are summed about an offset.

k, offsets and the constant reference β are fixed per run (`acon_hooks.moments.constants`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """Sums over the pixels, (N, C) each, in the order of ``rows.h``; None where a kind has none.

    Of x, x², w, w² and x·w, x and w about their offsets; the extremes of x and the count of x > 0.
    For the ACON family those of t = tanh(z) and t², and the extremes of z = (β·d/2)·x. With a
    reference those of r, which is w at the reference β, of r² and of x·r.
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


#: Names of the sums that are taken: of activations, of ACON with one β a channel, and of ACON with
#: one β a sample and channel, compared with the constant reference.
PLAIN, GATED, REFERRED = Sums._fields[:8], Sums._fields[:12], Sums._fields

#: Sums of squares of one variable.
_SQUARES = ("xx", "ww", "tt", "rr")

#: Elements of a tile on the CPU: 512 KB of float32. Accelerators take a layer in one piece.
TILE = 1 << 17

#: Channels from which the CPU sums over pixels as fast where channels lie side by side. Of fewer a
#: copy with the pixels side by side costs less: a third at 24 channels of 112 x 112 pixels.
WIDE = 64


@dataclass(frozen=True)
class Gate:
    """Constants of the ACON family for one call; (C,) each, on the layer's device.

    Parameters
    ----------
    half : Tensor
        d/2 = (p1 - p2)/2.
    middle : Tensor
        m = (p1 + p2)/2.
    reference : Tensor or None
        Constant β of the counterfactual.
    """

    half: Tensor
    middle: Tensor
    reference: Tensor | None


@dataclass(frozen=True)
class Guards:
    """What keeps the digits of the sums; see the module.

    Parameters
    ----------
    slope : Tensor
        k, (C,).
    offsets : Tensor
        (4, C): of x, w, r and t; 0 where a channel needs none.
    shifted : Tensor or None
        Numbers of the channels that need offsets.
    """

    slope: Tensor
    offsets: Tensor
    shifted: Tensor | None


def unguarded(channels: int, device: torch.device) -> Guards:
    """Return guards that do nothing: k = 0, no offsets."""
    zero = torch.zeros(channels, device=device)
    return Guards(zero, zero.expand(4, channels), None)


def rows_of(gate: Gate | None) -> tuple[str, ...]:
    """Return the names of the sums for a layer."""
    if gate is None:
        return PLAIN
    return GATED if gate.reference is None else REFERRED


def sums(
    x: Tensor,
    y: Tensor,
    beta: Tensor | None,
    axis: int,
    gate: Gate | None,
    guards: Guards,
) -> Tensor:
    """Sum over the pixels of each sample and channel.

    Parameters
    ----------
    x, y : Tensor
        Input and output, samples on axis 0, channels on `axis`; any floating dtype.
    beta : Tensor or None
        (N or 1, C or 1, 1 or P); for the ACON family.
    axis : int
        Channel axis.
    gate : Gate or None
        None outside the ACON family: then w comes from y.
    guards : Guards
        Slope and offsets.

    Returns
    -------
    Tensor
        (`rows_of(gate)`, N, C): float32 (float64 for float64 inputs, and where a sample has a
        single pixel).
    """
    width = x.shape[axis]
    pixels = x.numel() // max(x.shape[0] * width, 1)
    if pixels == 1:
        flat = (x.shape[0], width)
        wide = None if beta is None else beta.double()
        return _Tiles(
            x.double().reshape(*flat, 1), y.double().reshape(*flat, 1), wide, gate, guards, -1
        ).reduce(flat)
    shape = (x.shape[0], width)
    plain = Guards(guards.slope, guards.offsets, None)
    if _channels_last(x, axis) and (width >= WIDE or x.device.type != "cpu"):
        xs, ys = (t.movedim(axis, -1).flatten(1, -2) for t in (x, y))
        steep = None if beta is None else beta.transpose(1, 2)
        total = _Tiles(xs, ys, steep, gate, plain, 1).reduce(shape)
        xs, ys = xs.transpose(1, 2), ys.transpose(1, 2)
    else:
        xs, ys = (t.movedim(axis, 1).flatten(2) for t in (x, y))
        total = _Tiles(xs, ys, beta, gate, plain, -1).reduce(shape)
    if guards.shifted is not None:
        some = _select(xs, ys, beta, gate, guards)
        total[:, :, guards.shifted] = some.reduce((x.shape[0], guards.shifted.numel()))
    return total


def _channels_last(x: Tensor, axis: int) -> bool:
    """Return whether channels are adjacent in memory."""
    return x.ndim > 2 and x.stride(axis) == 1 and x.shape[axis] > 1


def _select(
    xs: Tensor, ys: Tensor, beta: Tensor | None, gate: Gate | None, guards: Guards
) -> "_Tiles":
    """Return the tiles of the shifted channels only."""
    index = guards.shifted
    assert index is not None
    if beta is not None and beta.shape[1] > 1:
        beta = beta[:, index]
    if gate is not None:
        reference = None if gate.reference is None else gate.reference[index]
        gate = Gate(gate.half[index], gate.middle[index], reference)
    some = Guards(guards.slope[index], guards.offsets[:, index], index)
    return _Tiles(xs[:, index], ys[:, index] if gate is None else xs, beta, gate, some, -1)


def over(values: Tensor, half: Tensor) -> Tensor:
    """Divide by d/2; 0 where d is 0, for then w and r are 0, too."""
    return torch.where(half == 0, 0.0, values / torch.where(half == 0, 1.0, half))


class _Tiles:
    """Data of one call as a matrix of pixels, cut into tiles along its first axis.

    With ``dim=-1`` (N, C, P) becomes (N·C, P); with ``dim=1`` it stays (N, P, C).
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        beta: Tensor | None,
        gate: Gate | None,
        guards: Guards,
        dim: int,
    ) -> None:
        self.dim, self.gate = dim, gate
        self.count, self.width = x.shape[0], x.shape[1 if dim == -1 else 2]
        self.work = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.x = x.reshape(-1, x.shape[2]) if dim == -1 else x
        self.y = None
        if gate is None:
            self.y = y.reshape(-1, y.shape[2]) if dim == -1 else y
        self.slope = self._per_channel(guards.slope)
        self.half = None if gate is None else gate.half.to(self.work)
        self.offsets = None
        if guards.shifted is not None:
            offsets = guards.offsets
            if gate is not None:
                offsets = torch.stack(
                    [offsets[0], *(over(offsets[i], gate.half) for i in (1, 2)), offsets[3]]
                )
            self.offsets = [self._per_channel(o) for o in offsets]
        self.curves: list[Tensor] = []
        if gate is not None and beta is not None:
            self.slope = self._per_channel(over(gate.middle - guards.slope, gate.half))
            self.curves.append(self._spread(beta.to(self.work), gate.half))
            if gate.reference is not None:
                self.curves.append(self._per_channel(gate.reference * gate.half))

    def _per_channel(self, values: Tensor) -> Tensor:
        """Give (C,) the layout of the data."""
        values = values.to(self.work)
        if self.dim == -1:
            return values.repeat(self.count).unsqueeze(1)
        return values.expand(self.count, 1, self.width)

    def _spread(self, beta: Tensor, half: Tensor) -> Tensor:
        """Give β·d/2 the layout of the data."""
        half = half.to(self.work)
        if self.dim == 1:
            return (beta * half).expand(self.count, -1, self.width)
        steep = (beta * half.unsqueeze(1)).expand(self.count, self.width, -1)
        return steep.reshape(self.count * self.width, -1)

    def reduce(self, shape: tuple[int, int]) -> Tensor:
        """Return the sums, (K, N, C)."""
        names = rows_of(self.gate)
        kept = self.x.shape[0] if self.dim == -1 else shape
        out = torch.empty(
            (len(names), *((kept,) if isinstance(kept, int) else kept)),
            dtype=self.work,
            device=self.x.device,
        )
        scratch: list[Tensor] = []
        for part in self._tiles():
            x = self.x[part].to(self.work)
            if not scratch or scratch[0].shape != x.shape:
                scratch = [torch.empty_like(x) for _ in range(3 if self.offsets else 2)]
            self._tile(dict(zip(names, out[:, part], strict=True)), x, part, scratch)
        if self.dim == -1:
            for row, name in enumerate(names):
                if name in _SQUARES:
                    out[row].square_()
        out = out.reshape(len(names), *shape)
        if self.half is not None:  # so far w and r lack the factor d/2
            square = self.half * self.half
            for row, name in enumerate(names):
                if name in ("w", "xw", "r", "xr"):
                    out[row] *= self.half
                elif name in ("ww", "rr"):
                    out[row] *= square
        return out

    def _tiles(self) -> Iterator[slice]:
        length = self.x.shape[0]
        each = max(self.x.numel() // max(length, 1), 1)
        step = max(1, TILE // each) if self.x.device.type == "cpu" else length
        for start in range(0, length, step):
            yield slice(start, start + step)

    def _tile(self, out: dict[str, Tensor], x: Tensor, part: slice, scratch: list[Tensor]) -> None:
        a = scratch[0]
        torch.amin(x, self.dim, out=out["low_x"])
        torch.amax(x, self.dim, out=out["high_x"])
        torch.gt(x, 0, out=a)
        torch.sum(a, self.dim, out=out["positive"])
        centred = x
        if self.offsets is not None:
            centred = torch.sub(x, self.offsets[0][part], out=scratch[2])
        torch.sum(centred, self.dim, out=out["x"])
        self._square(centred, out["xx"], scratch[1])
        if self.y is not None:
            y = self.y[part].to(self.work)
            torch.mul(x, self.slope[part], out=a)
            torch.sub(y, a, out=a)
            self._products(a, centred, scratch[1], out, "w", part)
            return
        for index, steep in enumerate(self.curves):
            torch.mul(x, steep[part], out=a)
            if index == 0 and steep.shape == self.x.shape:
                torch.amin(a, self.dim, out=out["low_z"])
                torch.amax(a, self.dim, out=out["high_z"])
            elif index == 0:
                ends = [out[k] * steep[part].squeeze(self.dim) for k in ("low_x", "high_x")]
                torch.minimum(*ends, out=out["low_z"])
                torch.maximum(*ends, out=out["high_z"])
            a.tanh_()
            if index == 0:
                gate = a
                if self.offsets is not None:
                    gate = torch.sub(a, self.offsets[3][part], out=scratch[1])
                torch.sum(gate, self.dim, out=out["t"])
                self._square(gate, out["tt"], scratch[1])
            # Kernels with two broadcast operands do not vectorise: never addcmul here.
            a.add_(self.slope[part]).mul_(x)
            self._products(a, centred, scratch[1], out, "wr"[index], part)

    def _products(
        self, w: Tensor, x: Tensor, free: Tensor, out: dict[str, Tensor], name: str, part: slice
    ) -> None:
        """Sum w, w² and x·w; w is overwritten."""
        if self.offsets is not None:
            w.sub_(self.offsets[1 if name == "w" else 2][part])
        torch.sum(w, self.dim, out=out[name])
        self._square(w, out[name * 2], free)
        torch.sum(w.mul_(x), self.dim, out=out[f"x{name}"])

    def _square(self, values: Tensor, out: Tensor, free: Tensor) -> None:
        """Sum the squares: a norm is the fastest kernel along rows, and the slowest across."""
        if self.dim == -1:
            torch.linalg.vector_norm(values, 2, self.dim, out=out)  # squared in `reduce`
        else:
            torch.sum(torch.mul(values, values, out=free), self.dim, out=out)
