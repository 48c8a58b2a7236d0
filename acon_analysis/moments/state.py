"""Mergeable float64 moments of what goes into and comes out of activation layers.

A state is a structure of arrays over any shape (samples x channels, blocks x channels, ...): the
fields of `acon_analysis.moments.fields`, each an array. Two states of disjoint data merge exactly
by the formula of Chan, Golub and LeVeque (1983, "Algorithms for computing the sample variance",
The American Statistician 37(3), doi:10.1080/00031305.1983.10483115)::

    C = Ca + Cb + δx·δy·na·nb/(na + nb)

so batches, units and processes may come in any order and any cut. An empty state (n = 0) is
neutral: means and moments 0, min +inf, max -inf. A state of one value has all moments 0. A
constant input has cxx = 0 up to rounding. NaN or infinity in the data makes the means and moments
that it touches NaN; nothing is dropped in silence.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from acon_analysis.errors import AconError
from acon_analysis.moments.fields import FIELD, FIELDS, GROUPS

FloatArray = npt.NDArray[np.float64]
Part = Literal["y", "even", "reference"]
_Reducer = Callable[[FloatArray], FloatArray]

_NEUTRAL = {"min": np.inf, "max": -np.inf}
_COLUMNS = {"y": ("cxy", "cyy"), "even": ("cxe", "cee"), "reference": ("cxr", "crr")}


@dataclass(frozen=True)
class Moments:
    """A state: one float64 array per field, all of one shape.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Fields of `fields.FIELDS`; whole groups, ``"base"`` always.
    """

    arrays: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        arrays = {k: np.asarray(v, dtype=np.float64) for k, v in self.arrays.items()}
        unknown = sorted(set(arrays) - set(FIELD))
        if unknown:
            raise AconError(f"no such moments: {', '.join(unknown)}; known are {', '.join(FIELD)}")
        groups = {FIELD[name].group for name in arrays} | {"base"}
        missing = [f.name for f in FIELDS if f.group in groups and f.name not in arrays]
        if missing:
            raise AconError(f"incomplete moments: {', '.join(missing)} missing")
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) > 1:
            given = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise AconError(f"moments of one state need one shape, given: {given}")
        ordered = {f.name: arrays[f.name] for f in FIELDS if f.name in arrays}
        object.__setattr__(self, "arrays", ordered)

    def __getitem__(self, name: str) -> FloatArray:
        """Return one field; an error names the fields there are."""
        if name not in self.arrays:
            raise AconError(f"this state has no {name!r}; it has {', '.join(self.arrays)}")
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that all fields share."""
        return self.arrays["n"].shape

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of fields that are present."""
        return tuple(dict.fromkeys(FIELD[name].group for name in self.arrays))

    def select(self, index: Any) -> "Moments":
        """Return the part of the state that a numpy index selects."""
        return Moments({k: v[index] for k, v in self.arrays.items()})

    def reshape(self, *shape: int) -> "Moments":
        """Return the same states in another shape."""
        return Moments({k: v.reshape(shape) for k, v in self.arrays.items()})

    def with_fields(self, **fields: npt.ArrayLike) -> "Moments":
        """Return the state with further fields, broadcast to its shape."""
        added = {
            k: np.broadcast_to(np.asarray(v, dtype=np.float64), self.shape)
            for k, v in fields.items()
        }
        return Moments({**self.arrays, **added})


def empty(shape: int | tuple[int, ...], groups: Iterable[str] = ("base",)) -> Moments:
    """Return the neutral state of merging: no data yet.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the state.
    groups : iterable of str
        Groups of fields to hold, beside ``"base"``.

    Returns
    -------
    Moments
        n = 0, means and moments 0, min +inf, max -inf.
    """
    wanted = {"base", *groups}
    if not wanted <= set(GROUPS):
        raise AconError(
            f"no such group: {', '.join(sorted(wanted - set(GROUPS)))}; choose from "
            f"{', '.join(GROUPS)}"
        )
    return Moments(
        {f.name: np.full(shape, _NEUTRAL.get(f.rule, 0.0)) for f in FIELDS if f.group in wanted}
    )


def merge(a: Moments, b: Moments) -> Moments:
    """Merge two states of disjoint data, elementwise (Chan's formula; exact algebra).

    Parameters
    ----------
    a, b : Moments
        Same fields, same shape.

    Returns
    -------
    Moments
        The state of both data together. ``merge(a, empty)`` is a.
    """
    _require_equal(a, b)
    merged: dict[str, FloatArray] = {}
    with np.errstate(invalid="ignore", over="ignore"):
        for field in FIELDS:
            if field.name not in a:
                continue
            left, right = a[field.name], b[field.name]
            if field.rule == "min":
                merged[field.name] = np.minimum(left, right)
            elif field.rule == "max":
                merged[field.name] = np.maximum(left, right)
            else:
                merged[field.name] = left + right
        for field in FIELDS:
            if field.name not in a or field.rule not in {"mean", "moment"}:
                continue
            weight = field.of[-1]
            total = a[weight] + b[weight]
            share = b[weight] / np.where(total > 0, total, 1.0)
            if field.rule == "mean":
                step = (b[field.name] - a[field.name]) * share
                merged[field.name] = a[field.name] + step
            else:
                first, second = (b[name] - a[name] for name in field.of[:2])
                merged[field.name] += first * second * (a[weight] * share)
    return Moments(merged)


def _require_equal(a: Moments, b: Moments) -> None:
    if a.shape != b.shape:
        raise AconError(f"states to merge need one shape, given {a.shape} and {b.shape}")
    if set(a.arrays) != set(b.arrays):
        only = sorted(set(a.arrays) ^ set(b.arrays))
        raise AconError(f"states to merge need the same fields; only one has {', '.join(only)}")


def merge_all(state: Moments, axis: int = 0) -> Moments:
    """Merge a state along one of its axes (all parts at once, the means' rounding corrected).

    Parameters
    ----------
    state : Moments
        Of any shape.
    axis : int
        The axis to merge; of length 0 it gives the neutral state.

    Returns
    -------
    Moments
        With that axis gone.
    """

    def spread(array: FloatArray) -> FloatArray:
        return np.expand_dims(array, axis)

    return _reduce(
        state,
        add=lambda a: a.sum(axis),
        low=lambda a: a.min(axis, initial=np.inf),
        high=lambda a: a.max(axis, initial=-np.inf),
        spread=spread,
    )


def group(state: Moments, codes: npt.ArrayLike, size: int) -> Moments:
    """Merge the states along the first axis that share a code.

    Parameters
    ----------
    state : Moments
        Shape (K, ...).
    codes : array_like of int
        Shape (K,), values in [0, size).
    size : int
        Number of groups.

    Returns
    -------
    Moments
        Shape (size, ...); a group without members is neutral.
    """
    index = np.asarray(codes)
    if index.shape != state.shape[:1]:
        raise AconError(f"one code a row: {state.shape[0]} rows, codes of shape {index.shape}")
    if index.size and not (index.min() >= 0 and index.max() < size):
        raise AconError(f"codes must lie in [0, {size}), given {index.min()} to {index.max()}")
    result = empty((size, *state.shape[1:]), state.groups)
    if not index.size:
        return result
    order = np.argsort(index, kind="stable")
    present, starts, counts = np.unique(index[order], return_index=True, return_counts=True)
    merged = _reduce(
        state.select(order),
        add=lambda a: np.add.reduceat(a, starts, axis=0),
        low=lambda a: np.minimum.reduceat(a, starts, axis=0),
        high=lambda a: np.maximum.reduceat(a, starts, axis=0),
        spread=lambda a: np.repeat(a, counts, axis=0),
    )
    for name, array in result.arrays.items():
        array[present] = merged[name]
    return result


def _reduce(
    state: Moments, *, add: _Reducer, low: _Reducer, high: _Reducer, spread: _Reducer
) -> Moments:
    """Chan's formula for many parts: C = ΣC_i + Σ n_i·(x̄_i - x̄)·(ȳ_i - ȳ)."""
    reduced: dict[str, FloatArray] = {}
    deviation: dict[str, FloatArray] = {}
    plain = {"sum": add, "min": low, "max": high}
    with np.errstate(invalid="ignore", over="ignore"):
        for field in FIELDS:
            if field.name in state and field.rule in plain:
                reduced[field.name] = plain[field.rule](state[field.name])
        for field in FIELDS:
            if field.name not in state or field.rule != "mean":
                continue
            weight, values = state[field.of[0]], state[field.name]
            total = reduced[field.of[0]]
            safe = np.where(total > 0, total, 1.0)
            mean = add(weight * values) / safe
            mean = mean + add(weight * (values - spread(mean))) / safe
            reduced[field.name] = mean
            deviation[field.name] = values - spread(mean)
        for field in FIELDS:
            if field.name in state and field.rule == "moment":
                first, second = (deviation[name] for name in field.of[:2])
                between = state[field.of[2]] * first * second
                reduced[field.name] = add(state[field.name] + between)
    return Moments(reduced)


def residual(state: Moments, part: Part = "y") -> FloatArray:
    """Sum of squared residuals of the best affine fit on x: SSE = C_pp - C_xp²/C_xx.

    Parameters
    ----------
    state : Moments
        Any shape.
    part : {"y", "even", "reference"}
        Which variable to fit. The residual of y is that of its even part.

    Returns
    -------
    ndarray
        float64, the state's shape, within [0, C_pp]: 0 for n = 0, n = 1 and n = 2 up to rounding;
        C_pp where x is constant; NaN where the moments are.
    """
    cross, own = _COLUMNS[part]
    cxx, cxp, cpp = state["cxx"], state[cross], state[own]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        explained = np.where(cxx > 0, cxp * (cxp / np.where(cxx > 0, cxx, 1.0)), cxx * 0)
        return np.clip(cpp - explained, 0.0, cpp)
