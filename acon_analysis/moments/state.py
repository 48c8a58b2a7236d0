"""Mergeable float64 moments of what goes into and comes out of activation layers.

A state is a structure of arrays over any shape (samples x channels, blocks x channels, ...): the
fields of `acon_analysis.moments.fields`, each an array. Means and centred sums of products merge
as every `gram.Gram` does, so batches, units and processes may come in any order and any cut. An
empty state (n = 0) is neutral: means and moments 0, min +inf, max -inf. The moments of one value
are 0. A constant input has cxx = 0 up to rounding. NaN or infinity in the data makes the means
and moments that it touches NaN; nothing is dropped in silence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from acon_analysis.errors import AconError
from acon_analysis.moments import gram
from acon_analysis.moments.fields import FIELD, FIELDS, GROUPS
from acon_analysis.moments.gram import Gram, merge_axis, merge_groups, merge_into, shares

FloatArray = npt.NDArray[np.float64]
Part = Literal["y", "even", "reference"]

#: What a field of an empty state is, by rule; 0 otherwise.
NEUTRAL = {"min": np.inf, "max": -np.inf}

#: By weight: the means, and each centred sum of products with its two means.
_GRAMS = {
    weight: (
        [f.name for f in FIELDS if f.rule == "mean" and f.of == (weight,)],
        [(f.name, *f.of[:2]) for f in FIELDS if f.rule == "moment" and f.of[2] == weight],
    )
    for weight in ("n", "n_samples")
}

_COLUMNS = {"y": ("cxy", "cyy"), "even": ("cxe", "cee"), "reference": ("cxr", "crr")}


@dataclass(frozen=True)
class Moments:
    """A state: one float64 array per field of whole groups of `fields.FIELDS`, all of one shape."""

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


def empty(shape: int | tuple[int, ...], groups: Iterable[str] = ("base",)) -> Moments:
    """Return the neutral state of merging: n = 0, means and moments 0, min +inf, max -inf."""
    wanted = {"base", *groups}
    if not wanted <= set(GROUPS):
        raise AconError(
            f"no such group: {', '.join(sorted(wanted - set(GROUPS)))}; choose from "
            f"{', '.join(GROUPS)}"
        )
    return Moments(
        {f.name: np.full(shape, NEUTRAL.get(f.rule, 0.0)) for f in FIELDS if f.group in wanted}
    )


def merge(a: Moments, b: Moments) -> Moments:
    """Merge two states of disjoint data, elementwise (Chan's formula; exact algebra).

    Both have the same fields and shape. ``merge(a, empty)`` is a.
    """
    if a.shape != b.shape:
        raise AconError(f"states to merge need one shape, given {a.shape} and {b.shape}")
    if set(a.arrays) != set(b.arrays):
        only = sorted(set(a.arrays) ^ set(b.arrays))
        raise AconError(f"states to merge need the same fields; only one has {', '.join(only)}")
    return Moments(merge_arrays(a.arrays, b.arrays))


@np.errstate(invalid="ignore", over="ignore")
def merge_arrays(a: Mapping[str, FloatArray], b: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Merge two states of the same fields and shape, each field by its rule."""
    plain = {"sum": np.add, "min": np.minimum, "max": np.maximum}
    merged = {name: np.array(array) for name, array in a.items()}
    for name in merged:
        if FIELD[name].rule in plain:
            plain[FIELD[name].rule](a[name], b[name], out=merged[name])
    for weight, (means, pairs) in _GRAMS.items():
        own = [name for name in means if name in a]
        if not own:
            continue
        mean = np.stack([a[name] for name in own])
        index = {name: i for i, name in enumerate(own)}
        known = [(name, index[i], index[j]) for name, i, j in pairs if name in a]
        share, scale = shares(a[weight], b[weight])
        merge_into(
            mean, merged, np.stack([b[name] for name in own]), b,
            share=share, weight=scale, pairs=known,
        )  # fmt: skip
        merged |= dict(zip(own, mean, strict=True))
    return merged


def merge_all(state: Moments) -> Moments:
    """Merge a state along its first axis; of length 0 it gives the neutral state."""
    if not state.shape[0]:
        return empty(state.shape[1:], state.groups)
    return Moments(merge_axis(state.arrays, merge_arrays))


def group(state: Moments, codes: npt.ArrayLike, size: int) -> Moments:
    """Merge the states of the first axis that share a code, (K,) in [0, size), to (size, ...)."""
    present, merged = merge_groups(state.arrays, codes, size, merge_arrays)
    if len(present) == size:
        return Moments(merged)
    result = empty((size, *state.shape[1:]), state.groups)
    for name, array in result.arrays.items():
        array[present] = merged[name]
    return result


def residual(state: Moments, part: Part = "y") -> FloatArray:
    """Return the sum of squared residuals of the best affine fit on x: SSE = C_pp - C_xp²/C_xx.

    The output of a gated product is fitted on both of its factors, x and a; the residual of y is
    that of its even part. Within [0, C_pp]: 0 for n = 0, n = 1 and n = 2 up to rounding (n = 3 of
    products); C_pp where x is constant; NaN where the moments are.
    """
    cross, own = _COLUMNS[part]
    cxx, cxp, cpp = state["cxx"], state[cross], state[own]
    with np.errstate(invalid="ignore", over="ignore"):
        alone = np.asarray(gram.residual(cxx, cxp, cpp))
    if part != "y" or "caa" not in state:
        return alone
    return np.where(np.isnan(state["caa"]), alone, _product(state).residual(2, [0, 1]))


def _product(state: Moments) -> Gram:
    """Return the sums of x, a and y of gated products."""
    mean = np.stack([state[name] for name in ("mean_x", "mean_a", "mean_y")], -1)
    rows = (("cxx", "cxa", "cxy"), ("cxa", "caa", "cay"), ("cxy", "cay", "cyy"))
    C = np.stack([np.stack([state[name] for name in row], -1) for row in rows], -2)
    return Gram(state["n"], mean, C)
