"""The float64 oracle of what a capture accumulates: moments of data by direct computation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from acon_analysis.columns import TOTAL_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.moments.fields import BLOCKS
from acon_analysis.moments.frames import line_variance
from acon_analysis.moments.state import FloatArray, Moments, group, residual

Axis = int | tuple[int, ...]


@dataclass(frozen=True)
class AconParts:
    """What an ACON layer does to x, element by element; arrays of the shape of x, float64."""

    argument: FloatArray
    gate: FloatArray
    even: FloatArray
    output: FloatArray
    reference: FloatArray | None = None


def acon_parts(
    x: npt.ArrayLike,
    p1: npt.ArrayLike,
    p2: npt.ArrayLike,
    beta: npt.ArrayLike,
    beta_reference: npt.ArrayLike | None = None,
) -> AconParts:
    """Split f(x) = m·x + e, e = (d·x/2)·tanh(β·d·x/2), in float64."""
    values = np.asarray(x, dtype=np.float64)
    first, second = np.asarray(p1, dtype=np.float64), np.asarray(p2, dtype=np.float64)
    d, m = first - second, (first + second) / 2
    half = d * values / 2
    u = 2 * np.asarray(beta, dtype=np.float64) * half
    even = half * np.tanh(u / 2)
    reference = None
    if beta_reference is not None:
        reference = half * np.tanh(np.asarray(beta_reference, dtype=np.float64) * half)
    return AconParts(u, expit(u), even, m * values + even, reference)


def from_samples(
    x: npt.ArrayLike, y: npt.ArrayLike, *, axis: Axis = -1, parts: AconParts | None = None
) -> Moments:
    """Compute a state over axes of x and y: two passes in float64, an ACON layer's parts, too."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape:
        raise AconError(f"x and y need one shape: x is {xs.shape}, y is {ys.shape}")
    axes = axis if isinstance(axis, tuple) else (axis,)
    xs, ys = _reduced_last(xs, axes), _reduced_last(ys, axes)
    count = xs.shape[-1]
    with np.errstate(invalid="ignore", over="ignore"):
        mean_x, dx = _centre(xs)
        mean_y, dy = _centre(ys)
        arrays = {
            "n": np.full(xs.shape[:-1], float(count)),
            "mean_x": mean_x,
            "mean_y": mean_y,
            "cxx": (dx * dx).sum(-1),
            "cxy": (dx * dy).sum(-1),
            "cyy": (dy * dy).sum(-1),
            "min_x": xs.min(-1, initial=np.inf),
            "max_x": xs.max(-1, initial=-np.inf),
            "n_positive": (xs > 0).sum(-1).astype(np.float64),
        }
        if parts is not None:
            arrays |= _part_moments(parts, axes, dx)
    return Moments(arrays)


def _reduced_last(values: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """Move the axes to reduce to the end and flatten them into one."""
    moved = np.moveaxis(values, axes, range(-len(axes), 0))
    size = int(np.prod(moved.shape[-len(axes) :]))
    return moved.reshape(*moved.shape[: -len(axes)], size)


def _centre(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and deviations; the mean of the deviations corrects the mean's rounding."""
    if values.shape[-1] == 0:
        return np.zeros(values.shape[:-1]), values
    mean = values.mean(-1)
    deviation = values - mean[..., None]
    rest = deviation.mean(-1)
    return mean + rest, deviation - rest[..., None]


def _part_moments(parts: AconParts, axes: tuple[int, ...], dx: FloatArray) -> dict[str, FloatArray]:
    gate, dg = _centre(_reduced_last(parts.gate, axes))
    even, de = _centre(_reduced_last(parts.even, axes))
    u = _reduced_last(parts.argument, axes)
    arrays = {
        "mean_g": gate,
        "cgg": (dg * dg).sum(-1),
        "mean_e": even,
        "cxe": (dx * de).sum(-1),
        "cee": (de * de).sum(-1),
        "min_u": u.min(-1, initial=np.inf),
        "max_u": u.max(-1, initial=-np.inf),
    }
    if parts.reference is not None:
        mean, dr = _centre(_reduced_last(parts.reference, axes))
        arrays |= {"mean_r": mean, "cxr": (dx * dr).sum(-1), "crr": (dr * dr).sum(-1)}
    return arrays


def as_samples(state: Moments, beta: npt.ArrayLike | None = None) -> Moments:
    """Add the sums within samples to states of single samples, ready to be merged over samples."""
    fields: dict[str, npt.ArrayLike] = {
        "n_samples": state["n"] > 0,
        "sse_within": residual(state, "even" if "cee" in state else "y"),
    }
    if "crr" in state:
        fields["sse_within_reference"] = residual(state, "reference")
    if beta is not None:
        fields |= {"mean_beta": beta, "cbb": 0.0}
    added = {name: np.broadcast_to(value, state.shape) for name, value in fields.items()}
    return Moments({**state.arrays, **added})


def by_block(state: Moments, samples: npt.ArrayLike, blocks: int = BLOCKS) -> Moments:
    """Merge states (samples, ...) into (blocks, ...), block = sample_id mod blocks."""
    return group(state, np.asarray(samples) % blocks, blocks)


def sample_totals(
    state: Moments,
    samples: npt.ArrayLike,
    *,
    layer: str,
    call: int = 0,
    p1: npt.ArrayLike | None = None,
    p2: npt.ArrayLike | None = None,
    beta: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Sum states (samples, channels) over the channels: a row a sample, NaN where there is none."""
    count, channels = state.shape
    blank = np.full(count, np.nan)
    columns: dict[str, object] = {
        "sample": np.asarray(samples, dtype=np.int64),
        "layer": np.repeat(layer, count),
        "call": np.full(count, call, dtype=np.int64),
        "channels": np.full(count, channels, dtype=np.int64),
        "n": state["n"].sum(1).astype(np.int64),
        "cyy": state["cyy"].sum(1),
        "sse": residual(state, "even" if "cee" in state else "y").sum(1),
        "cgg": state["cgg"].sum(1) if "cgg" in state else blank,
        "gain": blank,
        "cyy_reference": blank,
        "sse_reference": blank,
    }
    if p1 is not None and p2 is not None:
        first, second = np.asarray(p1, dtype=np.float64), np.asarray(p2, dtype=np.float64)
        if beta is not None:
            steepness = np.abs(np.asarray(beta, dtype=np.float64) * (first - second))
            std = np.sqrt(state["cxx"] / np.maximum(state["n"], 1))
            columns["gain"] = (steepness * std).sum(1)
        if "crr" in state:
            columns["cyy_reference"] = line_variance(state, (first + second) / 2).sum(1)
            columns["sse_reference"] = residual(state, "reference").sum(1)
    return pd.DataFrame({name: columns[name] for name in names(TOTAL_COLUMNS)})
