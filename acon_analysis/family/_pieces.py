"""Pieces of the formulas that must stay right where plain arithmetic gives NaN."""

import math
from typing import Any

from acon_analysis.family._backend import Ops

# Beyond this argument a sigmoid is 0 or 1 in every precision, and u * sigmoid(-u) is 0.
SATURATED = 1.0e4


def product(ops: Ops, a: Any, b: Any) -> Any:
    """Return a * b, where 0 * inf is 0 (the limit in every formula here); NaN stays NaN."""
    plain = a * b
    if not ops.may_hold_nan(plain):
        return plain
    # The factors are replaced before they are multiplied: no NaN comes back out of autograd.
    undefined = ops.isnan(plain) & ~(ops.isnan(a) | ops.isnan(b))
    return ops.where(undefined, 0.0, a) * ops.where(undefined, 0.0, b)


def keep_nan(ops: Ops, x: Any, value: Any) -> Any:
    """Return value, but NaN where x is NaN (a comparison with NaN is silently false)."""
    return ops.where(ops.isnan(x), x, value)


def gated_slope(ops: Ops, u: Any) -> Any:
    """Return d(u sigmoid(u))/du = sigmoid(u) + u sigmoid(u) sigmoid(-u); its limits are 0 and 1."""
    u = ops.clip(u, -SATURATED, SATURATED)
    right = ops.sigmoid(u)
    return right + u * right * ops.sigmoid(-u)


def sech_squared(ops: Ops, x: Any) -> Any:
    """Return 1 - tanh(x)^2 without the cancellation at large |x|."""
    return 4.0 * ops.sigmoid(2.0 * x) * ops.sigmoid(-2.0 * x)


def normal_cdf(ops: Ops, x: Any) -> Any:
    """Return the standard normal distribution function, accurate in its left tail."""
    return 0.5 * ops.erfc(-x * math.sqrt(0.5))


def normal_density(ops: Ops, x: Any) -> Any:
    """Return the standard normal density."""
    return ops.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


def difference(ops: Ops, x1: Any, x2: Any) -> Any:
    """Return x1 - x2, and 0 for two equal infinities."""
    same = (x1 == x2) & ops.isinf(x1)
    return ops.where(same, 0.0, x1) - ops.where(same, 0.0, x2)


def gate_argument(ops: Ops, x: Any, p1: Any, p2: Any, beta: Any) -> Any:
    """Return u = beta (p1 - p2) x, where 0 times infinity is 0."""
    return product(ops, beta, product(ops, p1 - p2, x))


def smooth_line(ops: Ops, x: Any, p1: Any, p2: Any, beta: Any) -> Any:
    """Return ACON-C for a kernel of this package."""
    u = gate_argument(ops, x, p1, p2, beta)
    return product(ops, p1 * ops.sigmoid(u) + p2 * ops.sigmoid(-u), x)


def smooth_line_slope(ops: Ops, x: Any, p1: Any, p2: Any, beta: Any) -> Any:
    """Return the derivative of ACON-C for a kernel of this package."""
    u = gate_argument(ops, x, p1, p2, beta)
    return p1 * gated_slope(ops, u) + p2 * gated_slope(ops, -u)
