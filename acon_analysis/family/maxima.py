"""Maxima of several values, hard and smooth: Maxout and the smooth maximum.

The smooth maximum of x_1..x_n is sum(x_i e^(beta x_i)) / sum(e^(beta x_i)): the mean for beta = 0,
the maximum for beta -> inf, the minimum for beta -> -inf (Ma et al., CVPR 2021, eq. of section 3,
doi:10.1109/CVPR46437.2021.00794).
"""

import math
from typing import Any

import numpy as np

from acon_analysis.errors import UsageError
from acon_analysis.family._activation import ACON_PAPER, Activation, Limits, Line, Source
from acon_analysis.family._backend import Ops, check_shapes, over_pieces
from acon_analysis.family._pieces import difference, product

__all__ = [
    "maxout",
    "maxout_derivative",
    "smooth_maximum",
    "smooth_maximum_derivative",
    "smooth_maximum_derivative_bounds",
]


@over_pieces
def maxout(ops: Ops, x: Any, slopes: Any, intercepts: Any = 0.0) -> Any:
    """Return the greatest of n straight lines, max_k (slopes_k x + intercepts_k).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    slopes, intercepts : array_like
        (..., n): the pieces along the last axis; what is before it broadcasts with x.

    Raises
    ------
    UsageError
        If slopes has no axis of pieces, or an empty one.
    """
    _check_pieces(x, slopes, intercepts)
    lines = product(ops, slopes, ops.expand(x, -1)) + intercepts
    return ops.squeeze(ops.largest(lines, -1), -1)


@over_pieces
def maxout_derivative(ops: Ops, x: Any, slopes: Any, intercepts: Any = 0.0) -> Any:
    """Return the derivative of `maxout` with respect to x; at a kink the mean of the slopes."""
    _check_pieces(x, slopes, intercepts)
    x = ops.expand(x, -1)
    infinite = ops.isinf(x)
    # At infinity all rising lines tie, and the slopes decide which one is greatest.
    lines = ops.where(infinite, 0.0, x) * slopes + intercepts
    lines = ops.where(infinite, ops.where(x > 0.0, slopes, -slopes), lines)
    active = ops.where(lines == ops.largest(lines, -1), ops.like(lines, 1.0), 0.0)
    slope = ops.total(active * slopes, -1) / ops.total(active, -1)
    return ops.squeeze(slope, -1)


@over_pieces
def smooth_maximum(ops: Ops, values: Any, beta: Any = 1.0, *, axis: int = -1) -> Any:
    """Return the smooth maximum of n values along an axis.

    Parameters
    ----------
    values : array_like
        n >= 1 values along ``axis``.
    beta : array_like
        Switching factor, any real number or infinite; broadcast with the result.
    axis : int
        The axis of the n values; it is gone in the result.

    Returns
    -------
    numpy float64, array or tensor
        Between the least and the greatest value. NaN among the values gives NaN.

    Raises
    ------
    UsageError
        If there is no such axis or no value along it.
    """
    axis = _check_axis(values, beta, axis)
    weights, _ = _softmax(ops, values, beta, axis)
    return ops.squeeze(ops.total(product(ops, weights, values), axis), axis)


@over_pieces
def smooth_maximum_derivative(ops: Ops, values: Any, beta: Any = 1.0, *, axis: int = -1) -> Any:
    """Return the n partial derivatives of `smooth_maximum`, along the same axis.

    Parameters
    ----------
    values, beta, axis
        As for `smooth_maximum`.

    Returns
    -------
    array or tensor
        w_i (1 + beta (x_i - S)) with the weights w and the smooth maximum S; they add up to 1.
    """
    axis = _check_axis(values, beta, axis)
    weights, excess = _softmax(ops, values, beta, axis)
    mean = ops.total(product(ops, weights, excess), axis)
    return weights + product(ops, weights, excess - mean)


def smooth_maximum_derivative_bounds(count: int = 2, beta: float = 1.0) -> tuple[float, float]:
    """Return the least and the greatest partial derivative of the smooth maximum of n values.

    Parameters
    ----------
    count : int
        n >= 1, the number of values.
    beta : float
        Switching factor; only whether it is 0, finite or infinite matters.

    Returns
    -------
    (low, high)
        high = 1/2 + y/4 with (y - 2) e^y = (n - 1) (y + 2): all other values equal. low is that of
        two values, -0.0998, whatever n > 2 is: one of the others towers over the rest. For two
        values this is the paper's (y - 2) e^y = y + 2.

    Raises
    ------
    UsageError
        For a count below 1.
    """
    if count < 1:
        raise UsageError(f"smooth_maximum_derivative_bounds: count is {count}; expected >= 1")
    if math.isnan(beta):
        return math.nan, math.nan
    if count == 1:
        return 1.0, 1.0
    if beta == 0.0:
        return 1.0 / count, 1.0 / count
    if math.isinf(beta):
        return 0.0, 1.0
    return 0.5 - _extreme_gap(1) / 4.0, 0.5 + _extreme_gap(count - 1) / 4.0


def _softmax(ops: Ops, values: Any, beta: Any, axis: int) -> tuple[Any, Any]:
    """Return the weights e^(beta x) / sum and the exponents beta (x - extreme) <= 0."""
    if beta.ndim >= -axis:
        beta = ops.expand(beta, axis)
    # For beta < 0 the least value has the greatest weight.
    greatest, least = ops.largest(values, axis), -ops.largest(-values, axis)
    extreme = ops.where(beta < 0.0, least, greatest)
    exponent = product(ops, beta, difference(ops, *ops.broadcast(values, extreme)))
    powers = ops.exp(exponent)
    return powers / ops.total(powers, axis), exponent


def _check_axis(values: Any, beta: Any, axis: int) -> int:
    """Return the axis counted from the end."""
    shape = tuple(values.shape)
    if not -len(shape) <= axis < len(shape):
        raise UsageError(f"smooth_maximum: no axis {axis} in values of shape {shape}")
    if shape[axis] == 0:
        raise UsageError(f"smooth_maximum: no values along axis {axis} of shape {shape}")
    rest = list(shape)
    del rest[axis]
    check_shapes("smooth_maximum", {"result": tuple(rest), "beta": tuple(beta.shape)})
    return axis - len(shape) if axis >= 0 else axis


def _check_pieces(x: Any, slopes: Any, intercepts: Any) -> None:
    shape = tuple(slopes.shape)
    if not shape or shape[-1] == 0:
        raise UsageError(
            f"maxout: slopes has shape {shape}; expected (..., n) with n >= 1 pieces along the "
            "last axis"
        )
    given = {"slopes": shape, "intercepts": tuple(intercepts.shape)}
    check_shapes("maxout", {"x with an axis of pieces": (*x.shape, 1), **given})


def _extreme_gap(others: int) -> float:
    """Return the y > 2 with (y - 2) e^y = others (y + 2), by Newton's method on its logarithm."""
    y = 2.0 + math.log1p(others)
    for _ in range(60):
        value = math.log(y - 2.0) + y - math.log(others * (y + 2.0))
        step = value / (1.0 / (y - 2.0) + 1.0 - 1.0 / (y + 2.0))
        y = max(y - step, 0.5 * (y + 2.0))
        if abs(step) < 1e-15 * y:
            break
    return y


def _maxout_limits(slopes: Any, intercepts: Any = 0.0) -> Limits:
    """Return the steepest falling and rising line; of parallel ones the upper one."""
    slopes, intercepts = np.broadcast_arrays(np.asarray(slopes, float), intercepts)
    ends = []
    for extreme in (slopes.min(axis=-1, keepdims=True), slopes.max(axis=-1, keepdims=True)):
        top = np.where(slopes == extreme, intercepts, -np.inf).max(axis=-1)
        ends.append(Line(extreme[..., 0][()], top))
    return Limits(*ends)


def _maxout_bounds(slopes: Any, intercepts: Any = 0.0) -> tuple[Any, Any]:  # noqa: ARG001
    """Return the least and the greatest slope: both lines are the maximum somewhere."""
    return np.min(slopes, axis=-1), np.max(slopes, axis=-1)


RECORDS = (
    Activation(
        title="Maxout",
        function=maxout,
        derivative=maxout_derivative,
        parameters={"slopes": (-0.5, 0.25, 1.0), "intercepts": (-1.0, 0.0, -0.5)},
        formula="max(a * x + b for a, b in zip(slopes, intercepts))",
        derivative_formula="max((a * x + b, a) for a, b in zip(slopes, intercepts))[1]",
        latex=r"\max_k\,(a_k x + b_k)",
        source=Source(
            "Goodfellow, Warde-Farley, Mirza, Courville, Bengio: Maxout Networks, ICML 2013",
            arxiv="1302.4389",
        ),
        limits=_maxout_limits,
        derivative_bounds=_maxout_bounds,
    ),
    Activation(
        title="Smooth maximum",
        function=smooth_maximum,
        derivative=smooth_maximum_derivative,
        arguments=("values",),
        parameters={"beta": 1.0},
        formula="sum(v * exp(beta * v) for v in values) / sum(exp(beta * v) for v in values)",
        derivative_formula=(
            "[exp(beta * v) / sum(exp(beta * u) for u in values)"
            " * (1 + beta * (v - smooth_maximum(values, beta))) for v in values]"
        ),
        latex=r"S_\beta(x_1, \ldots, x_n) = \frac{\sum_i x_i\,e^{\beta x_i}}"
        r"{\sum_i e^{\beta x_i}}",
        source=ACON_PAPER,
        derivative_bounds=smooth_maximum_derivative_bounds,
    ),
)
