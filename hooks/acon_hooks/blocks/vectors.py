"""Which vectors an affine map takes to which: positions, whole samples, or neither."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from acon_analysis.moments.gram import Gram
from acon_analysis.statistics.affine_blocks import VECTORS_PER_DIMENSION
from acon_hooks.blocks.calls import BlockCall
from acon_hooks.errors import HookError

#: Each position's channels, all values of a sample, or positions that see each other.
POSITIONS, SAMPLES, MIXED = "positions", "samples", "mixes positions"

#: Folds of samples.
FOLDS = 5

#: Values of input and output together beyond which a sample is not taken as one vector.
_MOST_OF_SAMPLE = 2048

#: By how much an output may differ where nothing was changed, relative to the largest one.
_ROUNDING = 1e-5

#: Numbers that are summed at once.
_VALUES = 2**22

#: Means over parts of one to three axes.
_POOLS: dict[int, Callable[..., Tensor]] = {
    1: adaptive_avg_pool1d,
    2: adaptive_avg_pool2d,
    3: adaptive_avg_pool3d,
}

Axes = tuple[int, int]


def kind_of_vectors(call: BlockCall, axes: Axes, samples: int | None) -> str:
    """Return between which vectors R² is measured: `POSITIONS`, `SAMPLES` or `MIXED`."""
    x, y = call.x, call.y
    if x.ndim == 2 and y.ndim == 2:
        return SAMPLES
    if _maps_positions_alone(call, axes):
        return POSITIONS
    inputs, outputs = x[0].numel(), y[0].numel()
    fits = inputs + outputs <= _MOST_OF_SAMPLE and call.valid[0] is None
    return SAMPLES if fits and (samples or 0) >= VECTORS_PER_DIMENSION * inputs else MIXED


def _maps_positions_alone(call: BlockCall, axes: Axes) -> bool:
    """Return whether a change at one position of the input changes no other of the output."""
    # The first, the middle and the last position and the one that varies most are given the values
    # that the latter has in another sample, one at a time: attention that looks back only would not
    # show with the last one, and margins of images may never vary.
    x, y = (_by_position(value, axis) for value, axis in zip((call.x, call.y), axes, strict=True))
    positions, changed = x.shape[1], False
    if positions != y.shape[1] or call.x.ndim != call.y.ndim:
        return False
    limit = _ROUNDING * float(y.abs().max())
    varies = int(x.var(0, correction=0).sum(-1).argmax())
    for at in {0, positions // 2, positions - 1, varies}:
        other = call.x.clone()
        moved = other.movedim(axes[0], -1)
        index: Any = (slice(None), *np.unravel_index(at, moved.shape[1:-1]))
        moved[index] = x[:, varies].roll(1, 0)
        change = (_by_position(call.run(other), axes[1]) - y).abs()
        changed = changed or bool(change[:, at].max() > limit)
        change[:, at] = 0
        if not float(change.max()) <= limit:
            return False
    return changed


def _by_position(value: Tensor, axis: int) -> Tensor:
    """Return (N, positions, channels)."""
    moved = value.movedim(axis, -1)
    return moved.reshape(len(moved), math.prod(moved.shape[1:-1]), moved.shape[-1])


def vectors(call: BlockCall, axes: Axes, kind: str) -> tuple[Tensor, Tensor | None]:
    """Return inputs next to outputs, (N, vectors of a sample, p + q), and which of them count."""
    x, y, valid = call.x, call.y, call.valid
    if valid[0] is not None and valid[1] is None and kind == MIXED and y.ndim == 2:
        kept = torch.where(valid[0], x, 0).movedim(axes[0], 1).flatten(2).sum(2)
        return torch.cat([kept / valid[0].flatten(1).sum(1, keepdim=True), y], 1)[:, None], None
    if valid[0] is not None or valid[1] is not None:
        masks = [
            m.movedim(a, -1).flatten(1) for m, a in zip(valid, axes, strict=True) if m is not None
        ]
        if len(masks) < 2 or not torch.equal(*masks):
            raise HookError("the mask holds for other positions of its input than of its output")
        return _side_by_side(x, y, axes, kind), masks[1]
    return _side_by_side(x, y, axes, kind), None


def _side_by_side(x: Tensor, y: Tensor, axes: Axes, kind: str) -> Tensor:
    """Return inputs and outputs next to each other, (N, vectors of a sample, p + q)."""
    if kind == SAMPLES:
        return torch.cat([x.reshape(len(x), 1, -1), y.reshape(len(y), 1, -1)], -1)
    if kind == MIXED:
        x = _on_grid(x.movedim(axes[0], 1), y.movedim(axes[1], 1)).movedim(1, axes[1])
        axes = axes[1], axes[1]
    return torch.cat([_by_position(x, axes[0]), _by_position(y, axes[1])], -1)


def _on_grid(x: Tensor, y: Tensor) -> Tensor:
    """Return x (N, C, ...) at the positions of y (N, K, ...): means of the positions near them."""
    grid = y.shape[2:]
    if x.shape[2:] == grid:
        return x
    if x.ndim == y.ndim and 1 <= len(grid) <= 3:
        return _POOLS[len(grid)](x, tuple(grid))
    flat = x.reshape(*x.shape[:2], max(1, math.prod(x.shape[2:])))
    return adaptive_avg_pool1d(flat, max(1, math.prod(grid))).reshape(*x.shape[:2], *grid)


class FoldSums:
    """Sums of vectors for every fold of the samples, `Gram` of shape (FOLDS,)."""

    # Vectors wait until there are several for each dimension: a matrix of sums is then added once
    # for many of them.
    def __init__(self, inputs: int, outputs: int) -> None:
        self.inputs, self.size = inputs, inputs + outputs
        self._sums: list[Gram | None] = [None] * FOLDS
        self._waiting: list[list[Tensor]] = [[] for _ in range(FOLDS)]

    def add(
        self, values: Tensor, folds: npt.NDArray[np.int64], valid: Tensor | None = None
    ) -> None:
        """Add vectors (N, V, p + q), each sample of one fold; `valid`, bool (N, V)."""
        for fold, waiting in enumerate(self._waiting):
            chosen = torch.from_numpy(np.flatnonzero(folds == fold)).to(values.device)
            rows = values[chosen].reshape(-1, self.size)
            waiting.append(rows if valid is None else rows[valid[chosen].flatten()])
            if sum(map(len, waiting)) >= self.size // 2:
                self._sum(fold)

    def _sum(self, fold: int) -> None:
        rows = torch.cat(self._waiting[fold])
        self._waiting[fold] = []
        for part in torch.split(rows, max(1, _VALUES // max(rows.shape[1], 1))):
            # Of numpy's arrays: its product of a matrix with itself takes half the time.
            sums, held = Gram.of(part if part.is_cuda else part.numpy()), self._sums[fold]
            self._sums[fold] = sums if held is None else held + sums

    def result(self) -> Gram:
        """Return the sums of every fold, numpy arrays of first axis `FOLDS`."""
        for fold, waiting in enumerate(self._waiting):
            if waiting:
                self._sum(fold)
        nothing = Gram.of(np.zeros((0, self.size)))
        found = [nothing if one is None else one for one in self._sums]
        names = ("n", "mean", "C")
        return Gram(*(np.stack([_on_cpu(getattr(g, name)) for g in found]) for name in names))


def _on_cpu(values: Any) -> Any:
    """Return a tensor or an array as an array."""
    return values.cpu().numpy() if isinstance(values, Tensor) else values


def sum_bytes(size: int) -> int:
    """Return the bytes of the sums of a block of p + q dimensions, and of the vectors that wait."""
    return FOLDS * (8 + 2) * size * size


def random_folds(count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the folds of samples, every run of `FOLDS` of them in an order of its own."""
    runs = -(-count // FOLDS)
    return np.concatenate([generator.permutation(FOLDS) for _ in range(runs)])[:count]
