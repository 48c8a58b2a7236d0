"""Sums of p variables: count, means and centred sums of products, exact under merging.

Everything that is summed here is a `Gram`, or is merged as one: two disjoint parts merge by the
formula of Chan, Golub and LeVeque (1983, "Algorithms for computing the sample variance", The
American Statistician 37(3), doi:10.1080/00031305.1983.10483115)::

    mean = mean_a + δ·nb/(na + nb)        C = Ca + Cb + δ·δᵀ·na·nb/(na + nb)

Arrays are numpy's or torch's, in float64: only operators and methods that both have are used.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from acon_analysis.errors import AconError
from acon_analysis.screen import counted

#: A numpy array or a torch tensor.
Array = Any
Arrays = Mapping[str, Array]
Merge = Callable[[Arrays, Arrays], Arrays]

#: An output (input) is dead (constant) if its deviations are below this many roundings of its
#: own size: one rounding of p1·x, of p2·x and of the gate each, doubled for safety.
ROUNDINGS = 8.0

#: Relative rounding of float32, the arithmetic of networks.
EPS32 = float(np.finfo(np.float32).eps)

#: Relative rounding of coarser arithmetic, by dtype.
_COARSE = {"torch.float16": 2.0**-10, "torch.bfloat16": 2.0**-7}

#: Relative rounding of float64.
EPS = float(np.finfo(np.float64).eps)

#: All pairs of variables at once: C as a whole, and the two keys of its factors.
_ALL_PAIRS = ((..., (slice(None), None), None),)


@dataclass(frozen=True)
class Gram:
    """Count n (...,), means (..., p) and centred sums of products C (..., p, p) of p variables.

    All float64; mean and C are 0 where n = 0. NaN or infinite values make the entries that they
    touch NaN. Means are stored as they are: after merging, C is accurate to about eps·|mean|/std
    relative to itself. Subtract an offset from the values where the mean is a million deviations.
    """

    n: Array
    mean: Array
    C: Array

    @classmethod
    def of(cls, values: Array, axis: int | tuple[int, ...] = 0) -> "Gram":
        """Sum values (..., p) over one or several axes other than the last, in two passes."""
        values = values.double() if hasattr(values, "double") else np.asarray(values, np.float64)
        axes = [a % values.ndim for a in (axis if isinstance(axis, tuple) else (axis,))]
        if values.ndim < 2 or values.ndim - 1 in axes:
            raise AconError(
                f"sums need an axis other than that of the variables, the last: shape "
                f"{tuple(values.shape)}, axis {axis}"
            )
        first = -1 - len(axes)
        values = _moved(values, axes, range(first, -1))
        count = math.prod(values.shape[first:-1])
        values = values.reshape((*values.shape[:first], count, values.shape[-1]))
        with np.errstate(invalid="ignore", over="ignore"):
            mean = values.sum(-2) / max(count, 1)
            deviation = values - mean[..., None, :]
            rest = deviation.sum(-2) / max(count, 1)  # the rounding of the mean
            deviation = deviation - rest[..., None, :]
            C = deviation.swapaxes(-1, -2) @ deviation
        return cls(_full(mean, mean.shape[:-1], float(count)), mean + rest, C)

    def __add__(self, other: "Gram") -> "Gram":
        """Merge with sums of disjoint data, of the same shape."""
        if self.C.shape != other.C.shape:
            raise AconError(
                f"sums to merge need one shape, given {tuple(self.C.shape)} and "
                f"{tuple(other.C.shape)}"
            )
        mean, C = self.mean + 0.0, self.C + 0.0
        first, second = ((-1,), (0,)), ((-2, -1), (0, 1))
        with np.errstate(invalid="ignore", over="ignore"):
            share, weight = shares(self.n, other.n)
            merge_into(
                _moved(mean, *first), _moved(C, *second),
                _moved(other.mean, *first), _moved(other.C, *second),
                share=share, weight=weight, pairs=_ALL_PAIRS,
            )  # fmt: skip
        return Gram(self.n + other.n, mean, C)

    def __getitem__(self, index: Any) -> "Gram":
        """Return the part that an index of the leading axes selects."""
        key = index if isinstance(index, tuple) else (index,)
        every = slice(None)
        return Gram(self.n[key], self.mean[(*key, ..., every)], self.C[(*key, ..., every, every)])

    def merge(self, axis: int = 0) -> "Gram":
        """Merge along one of the leading axes; of length 0 it gives n = 0."""
        axis = axis % self.n.ndim
        arrays = {name: _moved(array, (axis,), (0,)) for name, array in vars(self).items()}
        if not len(arrays["n"]):
            return Gram(**{name: array.sum(0) for name, array in arrays.items()})
        return Gram(**merge_axis(arrays, _merge_grams))

    def sse(self, slope: Array, intercept: Array, x: int = 0, y: int = 1) -> Array:
        """Return the sum of squared deviations of y from given lines, shape (...,)."""
        offset = self.mean[..., y] - slope * self.mean[..., x] - intercept
        spread = self.C[..., y, y] + slope * (slope * self.C[..., x, x] - 2 * self.C[..., x, y])
        return spread.clip(min=0) + self.n * offset * offset

    def line(self, x: int = 0, y: int = 1) -> tuple[Array, Array]:
        """Return slope and intercept of the least squares line of y on x; NaN where n = 0.

        Constant x has slope 0: its root mean square deviation is at most 8 roundings of its root
        mean square.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            known = self.n / self.n
            varies = self.C[..., x, x] > self._rounding(x)
            slope = varies * self.C[..., x, y] / (self.C[..., x, x] + ~varies)
            return slope * known, (self.mean[..., y] - slope * self.mean[..., x]) * known

    def residual(self, target: int, given: Sequence[int]) -> Array:
        """Return the sum of squared residuals of the best affine fit on some variables, (...,).

        Variables that are constant or, up to rounding, an affine function of those before them
        count for nothing. Within [0, C of the target]; NaN where the sums are.
        """
        order = [*given, target]
        rest = [[self.C[..., i, j] for j in order[k:]] for k, i in enumerate(order)]
        own = rest[-1][0]
        with np.errstate(invalid="ignore", over="ignore"):
            for step, index in enumerate(given):
                left, *cross = rest[step]
                dependent = ROUNDINGS * EPS * self.C.shape[-1] * self.C[..., index, index]
                varies = (left > self._rounding(index)) & (left > dependent)
                share = varies / (left + ~varies)
                for k, one in enumerate(cross):
                    row, scaled = rest[step + 1 + k], one * share
                    row[:] = [c - scaled * o for c, o in zip(row, cross[k:], strict=True)]
            return rest[-1][0].clip(min=0.0).clip(max=own)

    def fit(self, target: int, given: Sequence[int]) -> tuple[Array, Array]:
        """Return coefficients (..., len(given)) and intercept (...,) of a fit, in numpy's float64.

        Of least squares fits that are equally good, as on variables that depend on each other, that
        with the least standardised coefficients. NaN where n = 0 or the sums are NaN.
        """
        n, mean, C = (np.asarray(v, np.float64) for v in (self.n, self.mean, self.C))
        own = list(given)
        spread = np.sqrt(np.einsum("...ii->...i", C)[..., own])
        varies = np.stack([C[..., i, i] > Gram(n, mean, C)._rounding(i) for i in own], -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(varies, spread, np.inf)
            inner = C[..., own, :][..., own] / scale[..., None] / scale[..., None, :]
            known = np.isfinite(C).all((-2, -1)) & (n > 0)
            inner = np.where(known[..., None, None], inner, 0)
            inverse = np.linalg.pinv(inner, ROUNDINGS * EPS * C.shape[-1], hermitian=True)
            found = (inverse @ (C[..., own, target] / scale)[..., None])[..., 0] / scale
            found = np.where(known[..., None], found, np.nan)
            return found, mean[..., target] - (found * mean[..., own]).sum(-1)

    def _rounding(self, index: int) -> Array:
        """Return the largest C of a variable that is constant up to rounding, (...,)."""
        mean = self.mean[..., index]
        square = self.C[..., index, index] + self.n * mean * mean
        return (ROUNDINGS * EPS) ** 2 * square


def rounding(dtypes: Iterable[str]) -> float:
    """Return the relative rounding of a network with weights of some dtypes, at least float32's."""
    return max([EPS32, *(_COARSE.get(kind, 0.0) for kind in dtypes)])


def shares(n: Array, other: Array) -> tuple[Array, Array]:
    """Return nb/(na + nb) and na·nb/(na + nb), 0 where both counts are 0."""
    total = n + other
    share = other / (total + (total == 0))
    return share, n * share


def merge_into(
    mean: Array,
    C: Any,
    other_mean: Array,
    other_C: Any,
    *,
    share: Array,
    weight: Array,
    pairs: Sequence[tuple[Any, Any, Any]],
) -> None:
    """Merge means and centred sums of products into others, in place: Chan's formula.

    Means have their variables on the first axis; ``share`` and ``weight`` come from `shares` and
    broadcast against the axes after it. ``pairs`` gives, for each item of C, its key and those of
    its two means.
    """
    step = other_mean - mean
    for key, first, second in pairs:
        total = C[key]
        total += other_C[key]
        between = step[first] * step[second]
        between *= weight
        total += between
    step *= share
    mean += step


def residual(xx: Array, xy: Array, yy: Array) -> Array:
    """Return the sum of squared residuals of the affine fit of y on x: Cyy - Cxy²/Cxx.

    Within [0, Cyy]; Cyy where Cxx is 0, NaN where the sums are.
    """
    varies = xx > 0
    explained = xy * (xy / (xx + ~varies)) * varies
    return (yy - explained).clip(min=0.0).clip(max=yy)


def merge_axis(arrays: Arrays, merge: Merge) -> dict[str, Array]:
    """Merge all K >= 1 entries of the first axis: one half with the other, until one is left.

    ``merge`` merges two mappings of arrays of one shape.
    """
    held = dict(arrays)
    while (count := len(next(iter(held.values())))) > 1:
        half = count // 2
        left, right, odd = (
            {name: array[part] for name, array in held.items()}
            for part in (slice(half), slice(half, 2 * half), slice(2 * half, None))
        )
        held = dict(merge(left, right))
        if count % 2:
            first = merge({name: array[:1] for name, array in held.items()}, odd)
            for name, array in held.items():
                array[:1] = first[name]
    return {name: array[0] for name, array in held.items()}


def merge_groups(
    arrays: Arrays, codes: npt.ArrayLike, size: int, merge: Merge
) -> tuple[npt.NDArray[np.int64], dict[str, Array]]:
    """Merge entries of the first axis that share a code, neighbours first, as in a tournament.

    ``codes`` (K,) are in [0, size), one for each entry of the arrays; ``merge`` is that of
    `merge_axis`. Returns the codes that occur, ascending, (G,), and the arrays, (G, ...).
    """
    index = np.asarray(codes)
    rows = len(next(iter(arrays.values())))
    if index.shape != (rows,):
        raise AconError(f"one code a row: {counted(rows, 'row')}, codes of shape {index.shape}")
    if index.size and not (index.min() >= 0 and index.max() < size):
        raise AconError(f"codes must lie in [0, {size}), given {index.min()} to {index.max()}")
    order = np.argsort(index, kind="stable")
    index = index[order].astype(np.int64)
    held = {name: array[order] for name, array in arrays.items()}
    while len(index) and (index[1:] == index[:-1]).any():
        _, starts, counts = np.unique(index, return_index=True, return_counts=True)
        rank = np.arange(len(index)) - np.repeat(starts, counts)
        right, kept = np.flatnonzero(rank % 2), np.flatnonzero(rank % 2 == 0)
        left = {name: array[right - 1] for name, array in held.items()}
        merged = merge(left, {name: array[right] for name, array in held.items()})
        at = np.searchsorted(kept, right - 1)
        index, held = index[kept], {name: array[kept] for name, array in held.items()}
        for name, array in held.items():
            array[at] = merged[name]
    return index, held


def _merge_grams(a: Arrays, b: Arrays) -> Arrays:
    """Merge the fields of two `Gram`."""
    return vars(Gram(**a) + Gram(**b))


def _moved(array: Array, source: Sequence[int], target: Sequence[int]) -> Array:
    """Move axes of a numpy array or a torch tensor."""
    move = array.movedim if hasattr(array, "movedim") else lambda a, b: np.moveaxis(array, a, b)
    return move(tuple(source), tuple(target))


def _full(like: Array, shape: Sequence[int], value: float) -> Array:
    """Return a float64 array of one value, of the kind and on the device of another."""
    if hasattr(like, "new_full"):
        return like.new_full(tuple(shape), value)
    return np.full(tuple(shape), value)
