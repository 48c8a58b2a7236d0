"""Maxima of a feature and its spatial condition, hard and smooth: FReLU and ACON-FReLU."""

from typing import Any

from acon_analysis.family._activation import ACON_PAPER, Activation, Source, fixed_bounds
from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import difference, gated_slope, keep_nan, product
from acon_analysis.family.bounds import derivative_bounds

__all__ = ["acon_frelu", "acon_frelu_derivative", "frelu", "frelu_derivative"]


@elementwise
def frelu(ops: Ops, x: Any, t: Any) -> Any:
    """Return max(x, t) of a feature and its spatial condition.

    Parameters
    ----------
    x : array_like
        Features.
    t : array_like
        The condition T(x): a 3x3 depthwise convolution of x and its batch normalisation; broadcast.
    """
    return ops.maximum(x, t)


@elementwise
def frelu_derivative(ops: Ops, x: Any, t: Any) -> Any:
    """Return the partial derivatives of `frelu`, (by x, by t); 1/2 each at a tie."""
    x, t = ops.broadcast(x, t)
    by_x = ops.where(x > t, 1.0, ops.where(x == t, ops.like(x, 0.5), 0.0))
    by_x = keep_nan(ops, x, keep_nan(ops, t, by_x))
    return by_x, 1.0 - by_x


@elementwise
def acon_frelu(ops: Ops, x1: Any, x2: Any, beta: Any = 1.0) -> Any:
    """Return (x1 - x2) sigmoid(beta (x1 - x2)) + x2, the smooth maximum of two values.

    Parameters
    ----------
    x1 : array_like
        Features (in a block of stride 2: their 3x3 maximum).
    x2 : array_like
        Their spatial condition, a normalised 3x3 depthwise convolution; broadcast with x1.
    beta : array_like
        Switching factor; the official networks fix it at 1. Broadcast with x1.
    """
    u = product(ops, beta, difference(ops, x1, x2))
    return product(ops, ops.sigmoid(u), x1) + product(ops, ops.sigmoid(-u), x2)


@elementwise
def acon_frelu_derivative(ops: Ops, x1: Any, x2: Any, beta: Any = 1.0) -> Any:
    """Return the partial derivatives of `acon_frelu`, (by x1, by x2); they add up to 1."""
    u = product(ops, beta, difference(ops, x1, x2))
    return gated_slope(ops, u), gated_slope(ops, -u)


RECORDS = (
    Activation(
        title="FReLU",
        function=frelu,
        derivative=frelu_derivative,
        arguments=("x", "t"),
        formula="max(x, t)",
        derivative_formula="(1, 0) if x > t else (0, 1) if x < t else (1/2, 1/2)",
        latex=r"\max(x, T(x))",
        source=Source(
            "Ma, Zhang, Sun: Funnel Activation for Visual Recognition, ECCV 2020",
            arxiv="2007.11824",
        ),
        derivative_bounds=fixed_bounds(0.0, 1.0),
    ),
    Activation(
        title="ACON-FReLU",
        function=acon_frelu,
        derivative=acon_frelu_derivative,
        arguments=("x1", "x2"),
        parameters={"beta": 1.0},
        formula="(x1 - x2) * sigmoid(beta * (x1 - x2)) + x2",
        derivative_formula=(
            "(sigmoid(beta * (x1 - x2)) * (1 + beta * (x1 - x2) * sigmoid(beta * (x2 - x1))),"
            " sigmoid(beta * (x2 - x1)) * (1 + beta * (x2 - x1) * sigmoid(beta * (x1 - x2))))"
        ),
        latex=r"(x_1 - x_2)\,\sigma(\beta (x_1 - x_2)) + x_2",
        source=ACON_PAPER,
        derivative_bounds=lambda beta: derivative_bounds(1.0, 0.0, beta),
    ),
)
