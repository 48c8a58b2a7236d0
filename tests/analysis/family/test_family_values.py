"""Values and derivatives against the printed formulas in 330 digits."""

from typing import Any

import numpy as np
import pytest

from acon_analysis import family
from acon_analysis.family import Activation, rectified
from family_oracle import SAMPLE, evaluate, one_argument, tolerance

ELEMENTWISE = one_argument()


def rounded(value: float | tuple[float, ...], dtype: type) -> Any:
    return (
        tuple(float(dtype(v)) for v in value) if isinstance(value, tuple) else float(dtype(value))
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("which", ["formula", "derivative_formula"])
@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_the_code_is_the_printed_formula(activation: Activation, which: str, dtype: type) -> None:
    text = getattr(activation, which)
    function = activation.function if which == "formula" else activation.derivative
    # Plain numbers are rounded to the precision of x, so the oracle takes them rounded too.
    parameters = {name: rounded(v, dtype) for name, v in activation.parameters.items()}
    x: np.ndarray = SAMPLE.astype(dtype)
    result = function(x, **parameters)
    assert result.dtype == dtype
    assert result.shape == x.shape
    epsilon = float(np.finfo(dtype).eps)
    scale = 1.0 + sum(abs(float(v)) for p in parameters.values() for v in np.atleast_1d(p))
    for point, value in zip(x.tolist(), result.tolist(), strict=True):
        reference = evaluate(text, x=point, **parameters)
        allowed = tolerance(text, point, reference, epsilon, **parameters)
        if len(parameters) > 1:  # sums of two lines lose digits where they cancel
            allowed += 4 * epsilon * scale * (abs(point) if which == "formula" else 1.0)
        assert abs(value - float(reference)) <= allowed + float(np.finfo(dtype).tiny), point


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_left_tails_keep_their_relative_accuracy(activation: Activation) -> None:
    # 1 - sigmoid(30) by subtraction would have three digits left.
    for function, text in [
        (activation.function, activation.formula),
        (activation.derivative, activation.derivative_formula),
    ]:
        reference = float(evaluate(text, x=-30.0, **activation.parameters))
        result = float(function(-30.0, **activation.parameters))
        assert result == pytest.approx(reference, rel=2e-13, abs=1e-300)


def test_silu_is_swish_with_beta_one() -> None:
    np.testing.assert_array_equal(family.silu(SAMPLE), family.swish(SAMPLE, 1.0))
    np.testing.assert_array_equal(family.silu_derivative(SAMPLE), family.swish_derivative(SAMPLE))


def test_gelu_takes_its_approximation_by_name() -> None:
    np.testing.assert_array_equal(family.gelu(SAMPLE, approximate="tanh"), family.gelu_tanh(SAMPLE))
    np.testing.assert_array_equal(
        family.gelu_derivative(SAMPLE, approximate="tanh"), family.gelu_tanh_derivative(SAMPLE)
    )
    assert 1e-5 < np.abs(family.gelu_tanh(SAMPLE) - family.gelu(SAMPLE)).max() < 1e-3


def test_rrelu_is_evaluated_with_the_mean_slope() -> None:
    assert family.rrelu(-6.0, lower=0.1, upper=0.3) == pytest.approx(-1.2, rel=1e-15)
    assert family.rrelu_derivative(-6.0, lower=0.1, upper=0.3) == pytest.approx(0.2, rel=1e-15)


def test_selu_constants_are_those_of_the_fixed_point() -> None:
    import mpmath

    with mpmath.workdps(40):
        pi, e, sqrt, erfc = mpmath.pi, mpmath.e, mpmath.sqrt, mpmath.erfc
        near, far = erfc(1 / sqrt(2)), erfc(sqrt(2))
        alpha = -sqrt(2 / pi) / (near * sqrt(e) - 1)
        squares = 2 * far * e**2 + pi * near**2 * e - 2 * (2 + pi) * near * sqrt(e) + pi + 2
        scale = (1 - near * sqrt(e)) * sqrt(2 * pi) / sqrt(squares)
    assert float(alpha) == rectified.SELU_ALPHA
    assert float(scale) == rectified.SELU_SCALE


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0, 100.0, -2.0, np.inf, -np.inf])
def test_swish_goes_from_a_line_to_relu(beta: float) -> None:
    x = np.linspace(-4.0, 4.0, 81)
    y = family.swish(x, beta)
    if beta == 0.0:
        np.testing.assert_array_equal(y, x / 2)
    elif np.isinf(beta):
        np.testing.assert_array_equal(y, np.maximum(x, 0) if beta > 0 else np.minimum(x, 0))
    else:
        np.testing.assert_allclose(y, x / (1 + np.exp(-beta * x)), rtol=1e-13, atol=1e-300)
