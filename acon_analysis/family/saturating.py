"""Activations that end at a constant on both sides: sigmoid, tanh and the hard ones."""

from typing import Any

from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import keep_nan, sech_squared


@elementwise
def sigmoid(ops: Ops, x: Any) -> Any:
    """Return the logistic function 1 / (1 + e^-x).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return ops.sigmoid(x)


@elementwise
def sigmoid_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `sigmoid` at x: sigmoid(x) sigmoid(-x)."""
    return ops.sigmoid(x) * ops.sigmoid(-x)


@elementwise
def tanh(ops: Ops, x: Any) -> Any:
    """Return the hyperbolic tangent.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return ops.tanh(x)


@elementwise
def tanh_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `tanh` at x, accurate in both tails."""
    return sech_squared(ops, x)


@elementwise
def hardsigmoid(ops: Ops, x: Any) -> Any:
    """Return x/6 + 1/2 limited to 0..1, as ``torch.nn.Hardsigmoid`` does.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
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
    """Return x limited to 0..6.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return _hardtanh(ops, x, 0.0, 6.0)


@elementwise
def relu6_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `relu6` at x: 1 between the kinks, 0 at and beyond them."""
    return _hardtanh_derivative(ops, x, 0.0, 6.0)


def _hardtanh(ops: Ops, x: Any, low: Any, high: Any) -> Any:
    return ops.where(x <= low, low, ops.where(x >= high, high, x))


def _hardtanh_derivative(ops: Ops, x: Any, low: Any, high: Any) -> Any:
    return keep_nan(ops, x, ops.where((x > low) & (x < high), 1.0, 0.0))
