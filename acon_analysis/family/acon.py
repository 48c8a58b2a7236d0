"""The ACON family: smooth maxima of two straight lines through the origin.

With m = (p1 + p2) / 2, d = p1 - p2 and u = beta d x,

    f(x) = (p1 sigmoid(u) + p2 sigmoid(-u)) x = m x + (d x / 2) tanh(u / 2),

an odd straight line plus an even bump. The first form is the one computed: both tails keep their
relative accuracy, and at u = +-inf it is exactly p1 x or p2 x.

Source: Ma, Zhang, Liu, Sun, "Activate or Not: Learning Customized Activation", CVPR 2021,
doi:10.1109/CVPR46437.2021.00794, arXiv:2009.04759.
"""

from typing import Any

from acon_analysis.family._activation import ACON_PAPER, Activation
from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import gated_slope, product, smooth_line, smooth_line_slope
from acon_analysis.family.bounds import asymptotes, derivative_bounds

__all__ = [
    "acon_a", "acon_a_derivative", "acon_b", "acon_b_derivative", "acon_c", "acon_c_derivative",
]  # fmt: skip


@elementwise
def acon_a(ops: Ops, x: Any, beta: Any = 1.0) -> Any:
    """Return ACON-A, x sigmoid(beta x): the smooth max(x, 0), which is Swish.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    beta : array_like
        Switching factor, any real number or infinite; broadcast with x.
    """
    return product(ops, ops.sigmoid(product(ops, beta, x)), x)


@elementwise
def acon_a_derivative(ops: Ops, x: Any, beta: Any = 1.0) -> Any:
    """Return the derivative of `acon_a` with respect to x."""
    return gated_slope(ops, product(ops, beta, x))


@elementwise
def acon_b(ops: Ops, x: Any, p: Any = 0.25, beta: Any = 1.0) -> Any:
    """Return ACON-B, (1 - p) x sigmoid(beta (1 - p) x) + p x: the smooth max(x, p x).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    p : array_like
        Slope of the second line, as of PReLU; broadcast with x.
    beta : array_like
        Switching factor, any real number or infinite; broadcast with x.
    """
    return smooth_line(ops, x, ops.like(p, 1.0), p, beta)


@elementwise
def acon_b_derivative(ops: Ops, x: Any, p: Any = 0.25, beta: Any = 1.0) -> Any:
    """Return the derivative of `acon_b` with respect to x."""
    return smooth_line_slope(ops, x, ops.like(p, 1.0), p, beta)


@elementwise
def acon_c(ops: Ops, x: Any, p1: Any, p2: Any, beta: Any = 1.0) -> Any:
    """Return ACON-C, (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x: the smooth max(p1 x, p2 x).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    p1, p2 : array_like
        Slopes of the two lines, in either order (f is symmetric in them); broadcast with x,
        so give those of channels as (C, 1, 1).
    beta : array_like
        Switching factor, any real number or infinite: 0 gives the mean line (p1 + p2) x / 2,
        a negative one the smooth minimum. Broadcast with x.

    Returns
    -------
    numpy float64, array or tensor
        f(x) in the common shape. NaN in any argument gives NaN.
    """
    return smooth_line(ops, x, p1, p2, beta)


@elementwise
def acon_c_derivative(ops: Ops, x: Any, p1: Any, p2: Any, beta: Any = 1.0) -> Any:
    """Return the derivative of `acon_c` with respect to x.

    f'(x) = p2 + d (sigmoid(u) + u sigmoid(u) sigmoid(-u)) with d = p1 - p2, u = beta d x.

    Parameters
    ----------
    x, p1, p2, beta : array_like
        As for `acon_c`.

    Returns
    -------
    numpy float64, array or tensor
        f'(x) in the common shape; the limits at x = +-inf. NaN in any argument gives NaN.
    """
    return smooth_line_slope(ops, x, p1, p2, beta)


RECORDS = (
    Activation(
        title="ACON-A",
        function=acon_a,
        derivative=acon_a_derivative,
        parameters={"beta": 1.0},
        formula="x * sigmoid(beta * x)",
        derivative_formula="sigmoid(beta * x) * (1 + beta * x * sigmoid(-beta * x))",
        latex=r"x\,\sigma(\beta x)",
        source=ACON_PAPER,
        limits=lambda beta: asymptotes(1.0, 0.0, beta),
        derivative_bounds=lambda beta: derivative_bounds(1.0, 0.0, beta),
    ),
    Activation(
        title="ACON-B",
        function=acon_b,
        derivative=acon_b_derivative,
        parameters={"p": 0.25, "beta": 1.0},
        formula="(1 - p) * x * sigmoid(beta * (1 - p) * x) + p * x",
        derivative_formula=(
            "(1 - p) * sigmoid(beta * (1 - p) * x)"
            " * (1 + beta * (1 - p) * x * sigmoid(-beta * (1 - p) * x)) + p"
        ),
        latex=r"(1 - p)\,x\,\sigma(\beta (1 - p) x) + p\,x",
        source=ACON_PAPER,
        limits=lambda p, beta: asymptotes(1.0, p, beta),
        derivative_bounds=lambda p, beta: derivative_bounds(1.0, p, beta),
    ),
    Activation(
        title="ACON-C",
        function=acon_c,
        derivative=acon_c_derivative,
        parameters={"p1": 1.2, "p2": -0.8, "beta": 1.0},
        formula="(p1 - p2) * x * sigmoid(beta * (p1 - p2) * x) + p2 * x",
        derivative_formula=(
            "(p1 - p2) * sigmoid(beta * (p1 - p2) * x)"
            " * (1 + beta * (p1 - p2) * x * sigmoid(-beta * (p1 - p2) * x)) + p2"
        ),
        latex=r"(p_1 - p_2)\,x\,\sigma(\beta (p_1 - p_2) x) + p_2\,x",
        source=ACON_PAPER,
        limits=asymptotes,
        derivative_bounds=derivative_bounds,
    ),
)
