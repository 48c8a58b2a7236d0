"""Rectifiers: the identity on the right, something smaller on the left."""

from typing import Any

from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import keep_nan, product

# Klambauer et al. (2017), the fixed point (mean 0, variance 1) of the map of moments.
SELU_ALPHA = 1.6732632423543772848
SELU_SCALE = 1.0507009873554804934


@elementwise
def relu(ops: Ops, x: Any) -> Any:
    """Return max(x, 0).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return ops.where(x <= 0.0, 0.0, x)


@elementwise
def relu_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `relu` at x; 0 at the kink, as in torch."""
    return keep_nan(ops, x, ops.where(x <= 0.0, 0.0, 1.0))


@elementwise
def leaky_relu(ops: Ops, x: Any, slope: Any = 0.01) -> Any:
    """Return x for x > 0 and slope x for x <= 0, with a small fixed slope.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    slope : array_like
        Slope on the left; broadcast with x.
    """
    return _leaky(ops, x, slope)


@elementwise
def leaky_relu_derivative(ops: Ops, x: Any, slope: Any = 0.01) -> Any:
    """Return the derivative of `leaky_relu` at x; the left slope at the kink, as in torch."""
    return _leaky_derivative(ops, x, slope)


@elementwise
def prelu(ops: Ops, x: Any, slope: Any = 0.25) -> Any:
    """Return x for x > 0 and slope x for x <= 0, with a learned slope.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    slope : array_like
        Learned slope on the left; broadcast with x, so give slopes of channels as (C, 1, 1).
    """
    return _leaky(ops, x, slope)


@elementwise
def prelu_derivative(ops: Ops, x: Any, slope: Any = 0.25) -> Any:
    """Return the derivative of `prelu` with respect to x; the left slope at the kink."""
    return _leaky_derivative(ops, x, slope)


@elementwise
def rrelu(ops: Ops, x: Any, lower: Any = 1.0 / 8.0, upper: Any = 1.0 / 3.0) -> Any:
    """Return the randomised leaky ReLU as it is evaluated: with the mean of the random slope.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    lower, upper : array_like
        Limits of the uniform distribution that training draws the left slope from; evaluation
        takes (lower + upper) / 2.
    """
    return _leaky(ops, x, (lower + upper) / 2.0)


@elementwise
def rrelu_derivative(ops: Ops, x: Any, lower: Any = 1.0 / 8.0, upper: Any = 1.0 / 3.0) -> Any:
    """Return the derivative of `rrelu` (evaluation form) at x; the left slope at the kink."""
    return _leaky_derivative(ops, x, (lower + upper) / 2.0)


@elementwise
def elu(ops: Ops, x: Any, alpha: Any = 1.0) -> Any:
    """Return x for x > 0 and alpha (e^x - 1) for x <= 0.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    alpha : array_like
        Minus the limit on the left; broadcast with x.
    """
    return _elu(ops, x, alpha)


@elementwise
def elu_derivative(ops: Ops, x: Any, alpha: Any = 1.0) -> Any:
    """Return the derivative of `elu` at x; alpha at the kink."""
    return _elu_derivative(ops, x, alpha)


@elementwise
def selu(ops: Ops, x: Any) -> Any:
    """Return the self-normalising ELU: 1.0507 x for x > 0, 1.7581 (e^x - 1) for x <= 0.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return SELU_SCALE * _elu(ops, x, SELU_ALPHA)


@elementwise
def selu_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `selu` at x; the left one, 1.7581, at the kink."""
    return SELU_SCALE * _elu_derivative(ops, x, SELU_ALPHA)


@elementwise
def softplus(ops: Ops, x: Any) -> Any:
    """Return log(1 + e^x), accurate for every x (torch's own is x above 20).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return ops.softplus(x)


@elementwise
def softplus_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `softplus` at x, which is the sigmoid."""
    return ops.sigmoid(x)


def _leaky(ops: Ops, x: Any, slope: Any) -> Any:
    return ops.where(x <= 0.0, product(ops, slope, x), x)


def _leaky_derivative(ops: Ops, x: Any, slope: Any) -> Any:
    return keep_nan(ops, x, ops.where(x <= 0.0, slope, 1.0))


def _left_half(ops: Ops, x: Any) -> Any:
    """Return x where x <= 0, else 0: e^x must not overflow on the side that is not used."""
    return ops.where(x <= 0.0, x, 0.0)


def _elu(ops: Ops, x: Any, alpha: Any) -> Any:
    return ops.where(x <= 0.0, alpha * ops.expm1(_left_half(ops, x)), x)


def _elu_derivative(ops: Ops, x: Any, alpha: Any) -> Any:
    left = alpha * ops.exp(_left_half(ops, x))
    return keep_nan(ops, x, ops.where(x <= 0.0, left, 1.0))
