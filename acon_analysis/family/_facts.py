"""Asymptotes and bounds of the derivative as functions of the parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np

from acon_analysis.family._activation import Limits, Line
from acon_analysis.family.bounds import derivative_bounds
from acon_analysis.family.rectified import SELU_ALPHA, SELU_SCALE

# Extreme slopes that have no closed form: the stationary points of the derivatives of Mish and of
# GELU's tanh approximation. GELU's exact ones are Phi(s) + s phi(s) at s = +-sqrt(2).
MISH_BOUNDS = (-0.11252612238946256, 1.0884981612517279)
GELU_BOUNDS = (-0.12890414518515479, 1.1289041451851548)
GELU_TANH_BOUNDS = (-0.12899306865877177, 1.1289930686587718)

RECTIFIER = Limits(Line(0.0, 0.0), Line(1.0, 0.0))


def fixed_limits(left: Line, right: Line) -> Callable[[], Limits]:
    """Return the asymptotes of a function without parameters."""
    return lambda: Limits(left, right)


def fixed_bounds(low: float, high: float) -> Callable[[], tuple[float, float]]:
    """Return the bounds of a function without parameters."""
    return lambda: (low, high)


def rectifier_limits() -> Limits:
    """Return the asymptotes 0 and x."""
    return RECTIFIER


def leaky_limits(slope: Any) -> Limits:
    """Return the asymptotes slope x and x."""
    return Limits(Line(slope, 0.0), RECTIFIER.right)


def leaky_bounds(slope: Any) -> tuple[Any, Any]:
    """Return the two slopes in order."""
    return np.minimum(slope, 1.0), np.maximum(slope, 1.0)


def rrelu_limits(lower: Any, upper: Any) -> Limits:
    """Return the asymptotes of the evaluation form."""
    return leaky_limits((lower + upper) / 2.0)


def rrelu_bounds(lower: Any, upper: Any) -> tuple[Any, Any]:
    """Return the two slopes of the evaluation form in order."""
    return leaky_bounds((lower + upper) / 2.0)


def hardtanh_limits(low: Any, high: Any) -> Limits:
    """Return the two limits."""
    return Limits(Line(0.0, low), Line(0.0, high))


def hardtanh_bounds(low: Any, high: Any) -> tuple[Any, Any]:  # noqa: ARG001 (called by name)
    """Return 0 and 1, whatever the limits."""
    return 0.0, 1.0


def elu_limits(alpha: Any) -> Limits:
    """Return the asymptotes -alpha and x."""
    return Limits(Line(0.0, -alpha), RECTIFIER.right)


def elu_bounds(alpha: Any) -> tuple[Any, Any]:
    """Return the range of alpha e^x for x <= 0, and 1."""
    return np.minimum(alpha, 0.0), np.maximum(alpha, 1.0)


def selu_limits() -> Limits:
    """Return the asymptotes -1.7581 and 1.0507 x."""
    return Limits(Line(0.0, -SELU_SCALE * SELU_ALPHA), Line(SELU_SCALE, 0.0))


def acon_c_limits(p1: Any, p2: Any, beta: Any) -> Limits:
    """Return the asymptotes: the greater slope is on the right for beta > 0, else on the left."""
    p1, p2, beta = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (p1, p2, beta)))
    with np.errstate(invalid="ignore", over="ignore"):
        least, greatest, mean = np.minimum(p1, p2), np.maximum(p1, p2), 0.5 * p1 + 0.5 * p2
        level = np.where(beta == 0.0, mean, np.nan)
        left = np.where(beta > 0.0, least, np.where(beta < 0.0, greatest, level))[()]
        right = np.where(beta > 0.0, greatest, np.where(beta < 0.0, least, level))[()]
    return Limits(Line(left, 0.0), Line(right, 0.0))


def acon_b_limits(p: Any, beta: Any) -> Limits:
    """Return the asymptotes of the lines x and p x."""
    return acon_c_limits(1.0, p, beta)


def acon_b_bounds(p: Any, beta: Any) -> tuple[Any, Any]:
    """Return the bounds for the lines x and p x."""
    low, high = derivative_bounds(1.0, p, beta)
    return low, high


def swish_limits(beta: Any) -> Limits:
    """Return the asymptotes of the lines x and 0."""
    return acon_c_limits(1.0, 0.0, beta)


def swish_bounds(beta: Any) -> tuple[Any, Any]:
    """Return the bounds for the lines x and 0."""
    low, high = derivative_bounds(1.0, 0.0, beta)
    return low, high


def maxout_limits(slopes: Any, intercepts: Any = 0.0) -> Limits:
    """Return the steepest falling and rising line; of parallel ones the upper one."""
    slopes, intercepts = np.broadcast_arrays(np.asarray(slopes, float), intercepts)
    ends = []
    for extreme in (slopes.min(axis=-1, keepdims=True), slopes.max(axis=-1, keepdims=True)):
        top = np.where(slopes == extreme, intercepts, -np.inf).max(axis=-1)
        ends.append(Line(extreme[..., 0][()], top))
    return Limits(*ends)


def maxout_bounds(slopes: Any, intercepts: Any = 0.0) -> tuple[Any, Any]:  # noqa: ARG001
    """Return the least and the greatest slope: both lines are the maximum somewhere."""
    return np.min(slopes, axis=-1), np.max(slopes, axis=-1)
