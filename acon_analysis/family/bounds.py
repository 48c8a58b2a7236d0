"""Between which values the slope of ACON-C lies: over the whole line, and over the data.

Let t be the positive root of t tanh t = 1. The slope as a function of u = beta (p1 - p2) x has its
extrema at u = +-2t, with heights m +- t |p1 - p2| / 2. So for every real p1, p2 and every finite
beta != 0 the range of f' is known in closed form (the 1.0998 p1 - 0.0998 p2 of the paper,
doi:10.1109/CVPR46437.2021.00794). It does not depend on beta, but a small beta reaches it only far
outside the data: that is what `derivative_range` is for.
"""

from typing import Any

import numpy as np

from acon_analysis.errors import UsageError
from acon_analysis.family._activation import Limits, Line
from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import gate_argument, smooth_line_slope

T_STAR = 1.1996786402577338339
"""The positive root of t tanh t = 1."""

U_STAR = 2.3993572805154676678
"""Argument u = beta (p1 - p2) x of the extreme slopes, 2 T_STAR."""


@elementwise
def derivative_bounds(ops: Ops, p1: Any, p2: Any, beta: Any = 1.0) -> Any:
    """Return the least and the greatest slope of ACON-C over all real x.

    Parameters
    ----------
    p1, p2, beta : array_like
        Parameters of `acon_c`; broadcast.

    Returns
    -------
    (low, high)
        m -+ t |p1 - p2| / 2 with m = (p1 + p2) / 2, whichever of p1 and p2 is greater and whatever
        the sign of beta. For beta = 0 or p1 = p2 the function is a line and both are m. For
        infinite beta (the hard maximum or minimum) they are min(p1, p2) and max(p1, p2).
        NaN in any argument gives NaN.
    """
    p1, p2, beta = ops.broadcast(p1, p2, beta)
    middle = 0.5 * p1 + 0.5 * p2
    half = _overshoot(ops, beta) * ops.absolute(0.5 * p1 - 0.5 * p2)
    return middle - half, middle + half


@elementwise
def extremum_position(ops: Ops, p1: Any, p2: Any, beta: Any = 1.0) -> Any:
    """Return where the slope of ACON-C is least and where it is greatest.

    Parameters
    ----------
    p1, p2, beta : array_like
        Parameters of `acon_c`; broadcast.

    Returns
    -------
    (x_of_low, x_of_high)
        In the order of `derivative_bounds`; x_of_high = -x_of_low = u* / (beta |p1 - p2|).
        NaN where the function is a line (beta = 0 or p1 = p2) and for NaN arguments.
    """
    p1, p2, beta = ops.broadcast(p1, p2, beta)
    distance = ops.absolute(p1 - p2)
    line = (beta == 0.0) | (distance == 0.0)
    position = (U_STAR / ops.where(line, 1.0, beta)) / ops.where(line, 1.0, distance)
    position = ops.where(line, float("nan"), position)
    return -position, position


@elementwise
def derivative_range(
    ops: Ops, p1: Any, p2: Any, beta: Any = 1.0, x_min: Any = -np.inf, x_max: Any = np.inf
) -> Any:
    """Return the least and the greatest slope of ACON-C over x_min <= x <= x_max.

    Parameters
    ----------
    p1, p2, beta : array_like
        Parameters of `acon_c`; broadcast.
    x_min, x_max : array_like
        Ends of the interval, x_min <= x_max, such as the range of the data; broadcast. They may
        be infinite: the whole line gives `derivative_bounds`.

    Returns
    -------
    (low, high)
        The extremes of f' over the closed interval: at its ends, or at x = +-u* / (beta (p1 - p2))
        where these lie inside. NaN in any argument gives NaN.

    Raises
    ------
    UsageError
        If x_min > x_max anywhere.
    """
    p1, p2, beta, x_min, x_max = ops.broadcast(p1, p2, beta, x_min, x_max)
    _check_interval(x_min, x_max)
    left = smooth_line_slope(ops, x_min, p1, p2, beta)
    right = smooth_line_slope(ops, x_max, p1, p2, beta)
    low, high = ops.minimum(left, right), ops.maximum(left, right)

    u_left = gate_argument(ops, x_min, p1, p2, beta)
    u_right = gate_argument(ops, x_max, p1, p2, beta)
    u_low, u_high = ops.minimum(u_left, u_right), ops.maximum(u_left, u_right)
    middle = 0.5 * p1 + 0.5 * p2
    swing = _overshoot(ops, beta) * (0.5 * p1 - 0.5 * p2)
    for sign in (-1.0, 1.0):
        inside = (u_low <= sign * U_STAR) & (sign * U_STAR <= u_high)
        extreme = middle + sign * swing
        low = ops.where(inside, ops.minimum(low, extreme), low)
        high = ops.where(inside, ops.maximum(high, extreme), high)
    return low, high


def asymptotes(p1: Any, p2: Any, beta: Any) -> Limits:
    """Return the asymptotes of ACON-C: the greater slope is right for beta > 0, else left."""
    p1, p2, beta = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (p1, p2, beta)))
    with np.errstate(invalid="ignore", over="ignore"):
        least, greatest, mean = np.minimum(p1, p2), np.maximum(p1, p2), 0.5 * p1 + 0.5 * p2
        level = np.where(beta == 0.0, mean, np.nan)
        left = np.where(beta > 0.0, least, np.where(beta < 0.0, greatest, level))[()]
        right = np.where(beta > 0.0, greatest, np.where(beta < 0.0, least, level))[()]
    return Limits(Line(left, 0.0), Line(right, 0.0))


def _overshoot(ops: Ops, beta: Any) -> Any:
    """Return how far the extreme slopes lie from m, in units of |p1 - p2| / 2."""
    smooth = ops.where(beta == 0.0, 0.0, ops.like(beta, T_STAR))
    return ops.where(ops.isnan(beta), beta, ops.where(ops.isinf(beta), 1.0, smooth))


def _check_interval(x_min: Any, x_max: Any) -> None:
    wrong = x_min > x_max
    if not bool(wrong.any()):
        return
    first_min, first_max = float(x_min[wrong][0]), float(x_max[wrong][0])
    count, total = int(wrong.sum()), int(np.prod(wrong.shape))
    where = "" if total == 1 else f" at {count} of {total} elements, first"
    raise UsageError(
        f"derivative_range: x_min is greater than x_max{where}: {first_min:g} > {first_max:g}; "
        "expected x_min <= x_max"
    )
