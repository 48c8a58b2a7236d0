"""Activations of the form x times a gate: Swish, GELU, Mish, Hardswish."""

import math
from collections.abc import Callable
from typing import Any

from acon_analysis.errors import UsageError, closest
from acon_analysis.family._activation import (
    RECTIFIER,
    Activation,
    Source,
    fixed_bounds,
    fixed_limits,
)
from acon_analysis.family._backend import Ops, elementwise
from acon_analysis.family._pieces import (
    gated_slope,
    keep_nan,
    normal_cdf,
    normal_density,
    product,
    sech_squared,
)
from acon_analysis.family.bounds import asymptotes, derivative_bounds

__all__ = [
    "gelu", "gelu_derivative", "gelu_tanh", "gelu_tanh_derivative", "hardswish",
    "hardswish_derivative", "mish", "mish_derivative", "silu", "silu_derivative", "swish",
    "swish_derivative",
]  # fmt: skip

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
    """Return x sigmoid(x), the Swish of beta = 1."""
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
    """Return the tanh approximation of GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return _gelu_tanh(ops, x)


@elementwise
def gelu_tanh_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `gelu_tanh` at x (of the approximation itself)."""
    return _gelu_tanh_derivative(ops, x)


@elementwise
def mish(ops: Ops, x: Any) -> Any:
    """Return x tanh(softplus(x))."""
    return product(ops, ops.tanh(ops.softplus(x)), x)


@elementwise
def mish_derivative(ops: Ops, x: Any) -> Any:
    """Return the derivative of `mish` at x."""
    inner = ops.softplus(x)
    bend = product(ops, sech_squared(ops, inner) * ops.sigmoid(x), x)
    return ops.tanh(inner) + bend


@elementwise
def hardswish(ops: Ops, x: Any) -> Any:
    """Return x times the hard sigmoid: 0 up to -3, x (x + 3) / 6 between, x from 3 on."""
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


_GELU = Source("Hendrycks, Gimpel: Gaussian Error Linear Units (GELUs), 2016", arxiv="1606.08415")
# The bounds of Mish and of GELU's tanh form have no closed form: they are the derivatives'
# stationary values. GELU's are Phi(s) + s phi(s) at s = +-sqrt(2).
RECORDS = (
    Activation(
        title="Swish",
        aliases=("silu",),
        function=swish,
        derivative=swish_derivative,
        parameters={"beta": 1.0},
        formula="x * sigmoid(beta * x)",
        derivative_formula="sigmoid(beta * x) * (1 + beta * x * sigmoid(-beta * x))",
        latex=r"x\,\sigma(\beta x)",
        source=Source(
            "Ramachandran, Zoph, Le: Searching for Activation Functions, 2017 (beta = 1 is the "
            "SiLU of Elfwing, Uchibe, Doya, Neural Networks 2018)",
            arxiv="1710.05941",
            url="https://doi.org/10.1016/j.neunet.2017.12.012",
        ),
        limits=lambda beta: asymptotes(1.0, 0.0, beta),
        derivative_bounds=lambda beta: derivative_bounds(1.0, 0.0, beta),
    ),
    Activation(
        title="GELU",
        function=gelu,
        derivative=gelu_derivative,
        formula="x * normal_cdf(x)",
        derivative_formula="normal_cdf(x) + x * normal_pdf(x)",
        latex=r"x\,\Phi(x) = \frac{x}{2}\,(1 + \mathrm{erf}(x / \sqrt{2}))",
        source=_GELU,
        limits=fixed_limits(*RECTIFIER),
        derivative_bounds=fixed_bounds(-0.12890414518515479, 1.1289041451851548),
    ),
    Activation(
        title="GELU (tanh)",
        function=gelu_tanh,
        derivative=gelu_tanh_derivative,
        formula="x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))",
        derivative_formula=(
            "(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2"
            " + x / 2 * (1 - tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))**2)"
            " * sqrt(2 / pi) * (1 + 0.134145 * x**2)"
        ),
        latex=r"\frac{x}{2}\,(1 + \tanh v),\ v = \sqrt{2 / \pi}\,(x + 0.044715\,x^3)",
        source=_GELU,
        limits=fixed_limits(*RECTIFIER),
        derivative_bounds=fixed_bounds(-0.12899306865877177, 1.1289930686587718),
    ),
    Activation(
        title="Mish",
        function=mish,
        derivative=mish_derivative,
        formula="x * tanh(softplus(x))",
        derivative_formula="tanh(softplus(x)) + x * sigmoid(x) * (1 - tanh(softplus(x))**2)",
        latex=r"x\,\tanh(s),\ s = \log(1 + e^x)",
        source=Source(
            "Misra: Mish: A Self Regularized Non-Monotonic Activation Function, 2019",
            arxiv="1908.08681",
        ),
        limits=fixed_limits(*RECTIFIER),
        derivative_bounds=fixed_bounds(-0.11252612238946256, 1.0884981612517279),
    ),
    Activation(
        title="Hardswish",
        function=hardswish,
        derivative=hardswish_derivative,
        formula="x * min(max(x + 3, 0), 6) / 6",
        derivative_formula="0 if x <= -3 else 1 if x >= 3 else x / 3 + 1/2",
        latex=r"x\,\min(\max(x + 3, 0), 6) / 6",
        source=Source(
            "Howard et al.: Searching for MobileNetV3, ICCV 2019",
            doi="10.1109/ICCV.2019.00140",
            arxiv="1905.02244",
        ),
        limits=fixed_limits(*RECTIFIER),
        derivative_bounds=fixed_bounds(-0.5, 1.5),
    ),
)
