"""Activations that end at a constant on both sides: sigmoid, tanh and the hard ones."""

from typing import Any

from acon_analysis.family._activation import (
    Activation,
    Limits,
    Line,
    Source,
    fixed_bounds,
    fixed_limits,
)
from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import keep_nan, sech_squared

__all__ = [
    "hardsigmoid", "hardsigmoid_derivative", "hardtanh", "hardtanh_derivative", "relu6",
    "relu6_derivative", "sigmoid", "sigmoid_derivative", "tanh", "tanh_derivative",
]  # fmt: skip


@elementwise
def sigmoid(ops: Ops, x: Any) -> Any:
    """Return the logistic function 1 / (1 + e^-x)."""
    return ops.sigmoid(x)


@elementwise
def sigmoid_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `sigmoid` at x: sigmoid(x) sigmoid(-x)."""
    return ops.sigmoid(x) * ops.sigmoid(-x)


@elementwise
def tanh(ops: Ops, x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return ops.tanh(x)


@elementwise
def tanh_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `tanh` at x, accurate in both tails."""
    return sech_squared(ops, x)


@elementwise
def hardsigmoid(ops: Ops, x: Any) -> Any:
    """Return x/6 + 1/2 limited to 0..1, as ``torch.nn.Hardsigmoid`` does."""
    return ops.where(x <= -3.0, 0.0, ops.where(x >= 3.0, 1.0, x / 6.0 + 0.5))


@elementwise
def hardsigmoid_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `hardsigmoid` at x: 1/6 between the kinks, 0 at and beyond them."""
    inside = ops.like(x, 1.0 / 6.0)
    return keep_nan(ops, x, ops.where(ops.absolute(x) < 3.0, inside, 0.0))


@elementwise
def hardtanh(ops: Ops, x: Any, low: Any = -1.0, high: Any = 1.0) -> Any:
    """Return x limited to low..high.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    low, high : array_like
        The limits, low <= high; broadcast with x.
    """
    return _hardtanh(ops, x, low, high)


@elementwise
def hardtanh_derivative(ops: Ops, x: Any, low: Any = -1.0, high: Any = 1.0) -> Any:
    """Return the derivative of `hardtanh` at x: 1 between the kinks, 0 at and beyond them."""
    return _hardtanh_derivative(ops, x, low, high)


@elementwise
def relu6(ops: Ops, x: Any) -> Any:
    """Return x limited to 0..6."""
    return _hardtanh(ops, x, 0.0, 6.0)


@elementwise
def relu6_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `relu6` at x: 1 between the kinks, 0 at and beyond them."""
    return _hardtanh_derivative(ops, x, 0.0, 6.0)


def _hardtanh(ops: Ops, x: Any, low: Any, high: Any) -> Any:
    return ops.where(x <= low, low, ops.where(x >= high, high, x))


def _hardtanh_derivative(ops: Ops, x: Any, low: Any, high: Any) -> Any:
    return keep_nan(ops, x, ops.where((x > low) & (x < high), 1.0, 0.0))


RECORDS = (
    Activation(
        title="Sigmoid",
        function=sigmoid,
        derivative=sigmoid_derivative,
        formula="1 / (1 + exp(-x))",
        derivative_formula="sigmoid(x) * sigmoid(-x)",
        latex=r"\sigma(x) = \frac{1}{1 + e^{-x}}",
        source=Source(
            "Rumelhart, Hinton, Williams: Learning representations by back-propagating errors, "
            "Nature 1986",
            doi="10.1038/323533a0",
        ),
        limits=fixed_limits(Line(0.0, 0.0), Line(0.0, 1.0)),
        derivative_bounds=fixed_bounds(0.0, 0.25),
    ),
    Activation(
        title="tanh",
        function=tanh,
        derivative=tanh_derivative,
        formula="tanh(x)",
        derivative_formula="1 - tanh(x)**2",
        latex=r"\tanh(x)",
        source=Source(
            "LeCun, Bottou, Orr, Müller: Efficient BackProp, Neural Networks: Tricks of the "
            "Trade 1998",
            doi="10.1007/3-540-49430-8_2",
        ),
        limits=fixed_limits(Line(0.0, -1.0), Line(0.0, 1.0)),
        derivative_bounds=fixed_bounds(0.0, 1.0),
    ),
    Activation(
        title="Hard sigmoid",
        function=hardsigmoid,
        derivative=hardsigmoid_derivative,
        formula="min(max(x + 3, 0), 6) / 6",
        derivative_formula="1/6 if -3 < x < 3 else 0",
        latex=r"\min(\max(x + 3, 0), 6) / 6",
        source=Source(
            "Howard et al.: Searching for MobileNetV3, ICCV 2019",
            doi="10.1109/ICCV.2019.00140",
            arxiv="1905.02244",
        ),
        limits=fixed_limits(Line(0.0, 0.0), Line(0.0, 1.0)),
        derivative_bounds=fixed_bounds(0.0, 1.0 / 6.0),
    ),
    Activation(
        title="Hard tanh",
        function=hardtanh,
        derivative=hardtanh_derivative,
        parameters={"low": -1.0, "high": 1.0},
        formula="min(max(x, low), high)",
        derivative_formula="1 if low < x < high else 0",
        latex=r"\min(\max(x, l), h)",
        source=Source(
            "Collobert et al.: Natural Language Processing (Almost) from Scratch, JMLR 2011",
            arxiv="1103.0398",
        ),
        limits=lambda low, high: Limits(Line(0.0, low), Line(0.0, high)),
        derivative_bounds=lambda low, high: (0.0, 1.0),  # noqa: ARG005 (called by name)
    ),
    Activation(
        title="ReLU6",
        function=relu6,
        derivative=relu6_derivative,
        formula="min(max(x, 0), 6)",
        derivative_formula="1 if 0 < x < 6 else 0",
        latex=r"\min(\max(x, 0), 6)",
        source=Source(
            "Krizhevsky: Convolutional Deep Belief Networks on CIFAR-10, 2010",
            url="https://www.cs.toronto.edu/~kriz/conv-cifar10-aug2010.pdf",
        ),
        limits=fixed_limits(Line(0.0, 0.0), Line(0.0, 6.0)),
        derivative_bounds=fixed_bounds(0.0, 1.0),
    ),
)
