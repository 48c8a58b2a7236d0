"""Rectifiers: the identity on the right, something smaller on the left."""

from typing import Any

import numpy as np

from acon_analysis.family._activation import (
    RECTIFIER,
    Activation,
    Limits,
    Line,
    Source,
    fixed_bounds,
    fixed_limits,
)
from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import keep_nan, product

__all__ = [
    "elu", "elu_derivative", "leaky_relu", "leaky_relu_derivative", "prelu", "prelu_derivative",
    "relu", "relu_derivative", "rrelu", "rrelu_derivative", "selu", "selu_derivative", "softplus",
    "softplus_derivative",
]  # fmt: skip

# Klambauer et al. (2017), the fixed point (mean 0, variance 1) of the map of moments.
SELU_ALPHA = 1.6732632423543772848
SELU_SCALE = 1.0507009873554804934


@elementwise
def relu(ops: Ops, x: Any) -> Any:
    """Return max(x, 0)."""
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
    """Return the self-normalising ELU: 1.0507 x for x > 0, 1.7581 (e^x - 1) for x <= 0."""
    return SELU_SCALE * _elu(ops, x, SELU_ALPHA)


@elementwise
def selu_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `selu` at x; the left one, 1.7581, at the kink."""
    return SELU_SCALE * _elu_derivative(ops, x, SELU_ALPHA)


@elementwise
def softplus(ops: Ops, x: Any) -> Any:
    """Return log(1 + e^x), accurate for every x (torch's own is x above 20)."""
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


def _leaky_limits(slope: Any) -> Limits:
    """Return the asymptotes slope x and x."""
    return Limits(Line(slope, 0.0), RECTIFIER.right)


def _leaky_bounds(slope: Any) -> tuple[Any, Any]:
    """Return the two slopes in order."""
    return np.minimum(slope, 1.0), np.maximum(slope, 1.0)


RECORDS = (
    Activation(
        title="ReLU",
        function=relu,
        derivative=relu_derivative,
        formula="max(x, 0)",
        derivative_formula="1 if x > 0 else 0",
        latex=r"\max(x, 0)",
        source=Source(
            "Nair, Hinton: Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010",
            url="https://www.cs.toronto.edu/~hinton/absps/reluICML.pdf",
        ),
        limits=fixed_limits(*RECTIFIER),
        derivative_bounds=fixed_bounds(0.0, 1.0),
    ),
    Activation(
        title="Leaky ReLU",
        function=leaky_relu,
        derivative=leaky_relu_derivative,
        parameters={"slope": 0.01},
        formula="x if x > 0 else slope * x",
        derivative_formula="1 if x > 0 else slope",
        latex=r"\max(x, 0) + a\,\min(x, 0)",
        source=Source(
            "Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models, "
            "ICML 2013",
            url="https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf",
        ),
        limits=_leaky_limits,
        derivative_bounds=_leaky_bounds,
    ),
    Activation(
        title="PReLU",
        function=prelu,
        derivative=prelu_derivative,
        parameters={"slope": 0.25},
        formula="x if x > 0 else slope * x",
        derivative_formula="1 if x > 0 else slope",
        latex=r"\max(x, 0) + a\,\min(x, 0)",
        source=Source(
            "He, Zhang, Ren, Sun: Delving Deep into Rectifiers, ICCV 2015",
            doi="10.1109/ICCV.2015.123",
            arxiv="1502.01852",
        ),
        limits=_leaky_limits,
        derivative_bounds=_leaky_bounds,
    ),
    Activation(
        title="RReLU",
        function=rrelu,
        derivative=rrelu_derivative,
        parameters={"lower": 1.0 / 8.0, "upper": 1.0 / 3.0},
        formula="x if x > 0 else (lower + upper) / 2 * x",
        derivative_formula="1 if x > 0 else (lower + upper) / 2",
        latex=r"\max(x, 0) + \frac{l + u}{2}\,\min(x, 0)",
        source=Source(
            "Xu, Wang, Chen, Li: Empirical Evaluation of Rectified Activations in Convolutional "
            "Network, 2015",
            arxiv="1505.00853",
        ),
        limits=lambda lower, upper: _leaky_limits((lower + upper) / 2.0),
        derivative_bounds=lambda lower, upper: _leaky_bounds((lower + upper) / 2.0),
    ),
    Activation(
        title="ELU",
        function=elu,
        derivative=elu_derivative,
        parameters={"alpha": 1.0},
        formula="x if x > 0 else alpha * (exp(x) - 1)",
        derivative_formula="1 if x > 0 else alpha * exp(x)",
        latex=r"\max(x, 0) + \alpha\,(e^{\min(x, 0)} - 1)",
        source=Source(
            "Clevert, Unterthiner, Hochreiter: Fast and Accurate Deep Network Learning by "
            "Exponential Linear Units, ICLR 2016",
            arxiv="1511.07289",
        ),
        limits=lambda alpha: Limits(Line(0.0, -alpha), RECTIFIER.right),
        derivative_bounds=lambda alpha: (np.minimum(alpha, 0.0), np.maximum(alpha, 1.0)),
    ),
    Activation(
        title="SELU",
        function=selu,
        derivative=selu_derivative,
        formula="1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (exp(x) - 1))",
        derivative_formula="1.0507009873554805 * (1 if x > 0 else 1.6732632423543772 * exp(x))",
        latex=r"\lambda\,(\max(x, 0) + \alpha\,(e^{\min(x, 0)} - 1)),"
        r"\ \alpha \approx 1.67326324,\ \lambda \approx 1.05070098",
        source=Source(
            "Klambauer, Unterthiner, Mayr, Hochreiter: Self-Normalizing Neural Networks, NIPS 2017",
            arxiv="1706.02515",
        ),
        limits=fixed_limits(Line(0.0, -SELU_SCALE * SELU_ALPHA), Line(SELU_SCALE, 0.0)),
        derivative_bounds=fixed_bounds(0.0, SELU_SCALE * SELU_ALPHA),
    ),
    Activation(
        title="Softplus",
        function=softplus,
        derivative=softplus_derivative,
        formula="log(1 + exp(x))",
        derivative_formula="sigmoid(x)",
        latex=r"\log(1 + e^x)",
        source=Source(
            "Dugas, Bengio, Bélisle, Nadeau, Garcia: Incorporating Second-Order Functional "
            "Knowledge for Better Option Pricing, NIPS 2000",
            url="https://papers.nips.cc/paper/1920-incorporating-second-order-functional-knowledge-for-"
            "better-option-pricing",
        ),
        limits=fixed_limits(*RECTIFIER),
        derivative_bounds=fixed_bounds(0.0, 1.0),
    ),
)
