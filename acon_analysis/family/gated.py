"""Activations of the form x times a gate: Swish, GELU, Mish, Hardswish."""

import math
from collections.abc import Callable
from typing import Any

from acon_analysis.errors import UsageError, closest
from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import (
    gated_slope,
    keep_nan,
    normal_cdf,
    normal_density,
    product,
    sech_squared,
)

# GELU's tanh form is x sigmoid(SCALE (x + CUBIC x^3)), with twice sqrt(2 / pi) for the scale.
_GELU_SCALE = 2.0 * math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715


@elementwise
def swish(ops: Ops, x: Any, beta: Any = 1.0) -> Any:
    """Return x sigmoid(beta x): x/2 for beta = 0, towards ReLU as beta grows.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    beta : array_like
        Switching factor, any real number or infinite; broadcast with x.
    """
    return product(ops, ops.sigmoid(product(ops, beta, x)), x)


@elementwise
def swish_derivative(ops: Ops, x: Any, beta: Any = 1.0) -> Any:
    """Return the derivative of `swish` with respect to x."""
    return gated_slope(ops, product(ops, beta, x))


@elementwise
def silu(ops: Ops, x: Any) -> Any:
    """Return x sigmoid(x), the Swish of beta = 1.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return product(ops, ops.sigmoid(x), x)


@elementwise
def silu_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `silu` at x."""
    return gated_slope(ops, x)


@elementwise
def gelu(ops: Ops, x: Any, *, approximate: str = "none") -> Any:
    """Return x times the normal distribution function at x.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    approximate : {"none", "tanh"}
        ``"none"``: exact, by erf. ``"tanh"``: the approximation that `gelu_tanh` gives.

    Raises
    ------
    UsageError
        For another ``approximate``.
    """
    return _variant(approximate, _gelu, _gelu_tanh)(ops, x)


@elementwise
def gelu_derivative(ops: Ops, x: Any, *, approximate: str = "none") -> Any:
    """Return the derivative of `gelu` at x; ``approximate`` as there."""
    return _variant(approximate, _gelu_derivative, _gelu_tanh_derivative)(ops, x)


@elementwise
def gelu_tanh(ops: Ops, x: Any) -> Any:
    """Return the tanh approximation of GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return _gelu_tanh(ops, x)


@elementwise
def gelu_tanh_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `gelu_tanh` at x (of the approximation itself)."""
    return _gelu_tanh_derivative(ops, x)


@elementwise
def mish(ops: Ops, x: Any) -> Any:
    """Return x tanh(softplus(x)).

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    return product(ops, ops.tanh(ops.softplus(x)), x)


@elementwise
def mish_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `mish` at x."""
    inner = ops.softplus(x)
    bend = product(ops, sech_squared(ops, inner) * ops.sigmoid(x), x)
    return ops.tanh(inner) + bend


@elementwise
def hardswish(ops: Ops, x: Any) -> Any:
    """Return x times the hard sigmoid: 0 up to -3, x (x + 3) / 6 between, x from 3 on.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape.
    """
    middle = ops.clip(x, -3.0, 3.0)
    curve = middle * (middle + 3.0) / 6.0
    return ops.where(x <= -3.0, 0.0, ops.where(x >= 3.0, x, curve))


@elementwise
def hardswish_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `hardswish` at x; the outer one (0 and 1) at the two kinks."""
    inside = ops.where(x >= 3.0, 1.0, x / 3.0 + 0.5)
    return keep_nan(ops, x, ops.where(x <= -3.0, 0.0, inside))


def _variant(approximate: str, exact: Callable[..., Any], tanh: Callable[..., Any]) -> Any:
    variants = {"none": exact, "tanh": tanh}
    if approximate not in variants:
        hint = closest(str(approximate), variants)
        raise UsageError(f"gelu: approximate={approximate!r} is not known; {hint}")
    return variants[approximate]


def _gelu(ops: Ops, x: Any) -> Any:
    return product(ops, normal_cdf(ops, x), x)


def _gelu_derivative(ops: Ops, x: Any) -> Any:
    return normal_cdf(ops, x) + product(ops, normal_density(ops, x), x)


def _gelu_gate(ops: Ops, x: Any) -> Any:
    return ops.sigmoid(_GELU_SCALE * x * (1.0 + _GELU_CUBIC * x * x))


def _gelu_tanh(ops: Ops, x: Any) -> Any:
    return product(ops, _gelu_gate(ops, x), x)


def _gelu_tanh_derivative(ops: Ops, x: Any) -> Any:
    gate = _gelu_gate(ops, x)
    # 1 - gate, without its cancellation, is the gate of the mirrored argument.
    bend = gate * _gelu_gate(ops, -x)
    argument = _GELU_SCALE * x * (1.0 + 3.0 * _GELU_CUBIC * x * x)
    return gate + product(ops, bend, argument)
