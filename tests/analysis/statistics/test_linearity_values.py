"""L of arrays, the closed forms for Gaussian inputs, and what odd inputs give."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import erf, expit

from acon_analysis.errors import AconError
from acon_analysis.statistics.affine_fit import linearity
from acon_analysis.statistics.gaussian import (
    FloatArray,
    bump_variance,
    gaussian_fit,
    gaussian_gate,
    logit_normal_moments,
)

# Mid-quantiles of the standard normal: an integral over them is good to about 1e-4.
Z = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)


def acon(x: FloatArray, p1: float, p2: float, beta: float) -> FloatArray:
    if np.isinf(beta):
        return np.maximum(p1 * x, p2 * x)
    return (p1 - p2) * x * expit(beta * (p1 - p2) * x) + p2 * x


@pytest.mark.parametrize(
    ("p1", "p2", "beta", "expected"),
    [
        (1, 0, np.inf, np.pi / (2 * (np.pi - 1))), (1, 0.25, np.inf, 0.8843),
        (1.2, -0.8, np.inf, 0.0992), (1, -1, 0.7, 0.0), (1, 0, 1, 0.7985), (1, 0, 3.145, 0.70718),
        (1.2, -0.8, 1, 0.0928), (1.2, -0.8, 0.1, 0.6753), (0, 1, 3.145, 0.70718),
        (1, 0, -3.145, 0.70718),
    ],
)  # fmt: skip
def test_closed_form_values(p1: float, p2: float, beta: float, expected: float) -> None:
    measured = linearity(Z, acon(Z, p1, p2, beta))
    assert pytest.approx(expected, abs=1e-4) == measured.L
    rho = np.inf if p1 + p2 == 0 else (p1 - p2) / (p1 + p2)
    assert pytest.approx(expected, abs=6e-5) == gaussian_fit(abs(beta * (p1 - p2)), rho).L


def test_relu_is_exact() -> None:
    assert pytest.approx(np.pi / (2 * (np.pi - 1)), abs=1e-14) == gaussian_fit(np.inf, 1).L
    assert float(bump_variance(np.inf)) == pytest.approx(0.363380, abs=5e-7)


def test_the_index_is_not_monotone_in_beta() -> None:
    gains = np.arange(2.5, 4, 0.005)
    L = gaussian_fit(gains, 1.0).L
    assert gains[L.argmin()] == pytest.approx(3.145, abs=0.006)
    assert L.min() == pytest.approx(0.70718, abs=5e-6)
    assert L.min() < gaussian_fit(np.inf, 1.0).L < gaussian_fit(0.5, 1.0).L


@pytest.mark.parametrize("kappa", [1e-4, 0.1, 1.0, 3.145, 30.0, 1e3])
def test_bump_variance_against_mpmath(kappa: float) -> None:
    points = [0, *(c / kappa for c in (1, 3, 10, 30) if c / kappa < 12), 12]
    with mpmath.workdps(25):
        square = mpmath.quad(
            lambda z: (z * mpmath.tanh(kappa * z / 2)) ** 2 * mpmath.npdf(z), points
        )
        first = mpmath.quad(lambda z: z * mpmath.tanh(kappa * z / 2) * mpmath.npdf(z), points)
        exact = float(2 * square - (2 * first) ** 2)
    assert float(bump_variance(kappa)) == pytest.approx(exact, rel=1e-12, abs=0)
    if kappa < 1e-3:
        assert exact == pytest.approx(kappa**2 / 2, rel=1e-6, abs=0)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 20), st.floats(-3, 3), st.floats(-2, 2), st.floats(-2, 2))
def test_prediction_for_any_offset(kappa: float, nu: float, p1: float, p2: float) -> None:
    if abs(p1 + p2) < 0.05 or abs(p1 - p2) < 0.05:
        return
    beta = kappa / abs(p1 - p2)
    swapped = abs(p1 - p2) / (p1 + p2)
    # Far from the mean a function may bend where equally weighted points are too few: integrate.
    z = np.linspace(-10, 10, 100_001)
    weight = np.exp(-z * z / 2)
    weight /= weight.sum()
    y, gate = acon(z + nu, p1, p2, beta), expit(beta * (p1 - p2) * (z + nu))
    slope = weight @ (z * y)
    spread = weight @ (y - weight @ y) ** 2
    fit = gaussian_fit(kappa, swapped, nu)
    assert float(fit.nonlinearity) == pytest.approx(1 - slope**2 / spread, abs=1e-8)
    predicted = (p1 + p2) / 2 * (1 + swapped * float(fit.slope))
    assert predicted == pytest.approx(slope, abs=1e-8)
    variance = 4 * (weight @ (gate - weight @ gate) ** 2)
    assert float(gaussian_gate(kappa, nu)) == pytest.approx(variance, abs=1e-8)


def test_slope_of_the_hard_maximum() -> None:
    nu = np.array([-2, 0.3, 1, 4])
    np.testing.assert_allclose(gaussian_fit(np.inf, 0.5, nu).slope, erf(nu / 2**0.5), atol=1e-14)


def test_gate_grows_and_falls_off_centre() -> None:
    beta = np.array([0.1, 0.5, 1, 2])
    np.testing.assert_allclose(gaussian_gate(beta, 3), [0.0024, 0.0235, 0.0188, 0.0074], atol=5e-5)
    assert np.all(np.diff(gaussian_gate(np.linspace(0, 9, 20), 0)) > 0)
    assert float(gaussian_gate(np.inf, 0)) == pytest.approx(1)
    assert float(gaussian_gate(0, 2)) == 0


def test_one_signed_inputs_are_linear_only_for_the_hard_maximum() -> None:
    half = np.abs(Z)
    assert pytest.approx(0.9887, abs=5e-5) == linearity(half, acon(half, 1, 0, 1)).L
    hard = linearity(half, acon(half, 1, 0, np.inf))
    assert hard.L == 1
    assert hard.flags == ("one_signed",)


def test_prediction_of_edge_cases() -> None:
    fit = gaussian_fit([0, 0, 2, np.nan, 1], [1, np.inf, 0, 1, np.nan])
    np.testing.assert_array_equal(fit.L, [1, 1, 1, np.nan, np.nan])
    assert gaussian_fit(np.zeros((0, 2)), 1.0).L.shape == (0, 2)
    far = gaussian_fit(2.0, 1.0, [50, -50])
    np.testing.assert_allclose(far.L, 1, atol=1e-12)
    tiny = gaussian_fit(1e-8, 0.5)
    assert float(tiny.nonlinearity) == pytest.approx(0.25 * 1e-16 / 2, rel=1e-6, abs=0)


def test_logit_normal_moments() -> None:
    mean, std = logit_normal_moments(0, 1)
    assert float(mean) == pytest.approx(0.5, abs=1e-15)
    assert float(std) == pytest.approx(0.2083, abs=3e-5)
    bias, weight = np.array([0.5, -3, 1, 2]), np.array([2, 0.1, 0, -25.0])
    mean, std = logit_normal_moments(bias, weight)
    for i in (0, 1, 3):
        beta = expit(bias[i] + weight[i] * Z)
        assert mean[i] == pytest.approx(beta.mean(), abs=1e-5)
        assert std[i] == pytest.approx(beta.std(), abs=1e-4)
    assert mean[2] == pytest.approx(float(expit(1.0)))
    assert std[2] == 0
    assert np.isnan(logit_normal_moments(np.nan, 1)[0])
    assert np.isnan(logit_normal_moments(0, np.nan)[0])


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(3, 200),
    st.sampled_from([1e-200, 1e-3, 1.0, 1e150]),
    st.sampled_from([1e-100, 1.0, 1e3]),
    st.floats(-5, 5),
)
def test_invariance_and_agreement_with_correlation(
    seed: int, size: int, scale_x: float, scale_y: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(size)
    y = np.abs(x) + rng.standard_normal() * x
    plain = linearity(x, y)
    assert pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=1e-12) == plain.L
    moved = linearity((x + shift) * scale_x, -y * scale_y)
    assert pytest.approx(plain.L, abs=1e-9) == moved.L
    assert 0 <= moved.L <= 1
    fit = np.polynomial.polynomial.polyfit(x, y, 1)
    np.testing.assert_allclose([plain.intercept, plain.slope], fit, rtol=1e-6, atol=1e-9)
    assert plain.sse == pytest.approx(float(((y - fit[0] - fit[1] * x) ** 2).sum()), rel=1e-9)


def test_tiny_nonlinearity_keeps_its_digits() -> None:
    x = Z[::100]
    measured = linearity(x, 0.5 * x + 1e-9 * np.abs(x))
    bend = linearity(x, 0.5 * x + np.abs(x)).sse
    assert measured.sse == pytest.approx(bend * 1e-18, rel=1e-5, abs=0)
    assert 0 < measured.nonlinearity < 1e-17


def test_odd_inputs_have_stated_results() -> None:
    nothing = linearity([], [])
    assert nothing.flags == ("empty",)
    assert np.isnan(nothing.L)
    one = linearity([2.0], [3.0])
    assert one.L == 1
    assert one.flags == ("exact_fit", "constant_input", "dead", "one_signed")
    assert (one.slope, one.intercept) == (0, 3)
    assert linearity([1, 2], [1, 5]).flags == ("exact_fit", "one_signed")
    constant = linearity(np.full(9, 0.1), np.arange(9.0))
    assert (constant.L, constant.slope) == (0, 0)
    assert constant.sse == pytest.approx(60)
    assert constant.flags == ("constant_input", "one_signed")
    dead = linearity(Z[:50], np.full(50, 0.1))
    assert (dead.L, dead.flags) == (1, ("dead", "one_signed"))
    noise = (3.3 + 1e-8 * np.sin(np.arange(50))).astype(np.float32)
    assert "dead" in linearity(np.arange(50), noise).flags
    assert "dead" not in linearity(np.arange(50), noise, eps=1e-12).flags or np.ptp(noise) == 0
    assert linearity(np.arange(4), [True, False, True, True]).n == 4


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1.0, 2.0], [1.0], "x has 2 values, y has 1"),
        ([[1.0]], [[1.0]], r"x has shape \(1, 1\); flatten it with x.ravel"),
        ([1.0, np.nan], [1.0, 2.0], "x holds 1 NaN or infinite of 2 values, the first at index 1"),
        ([1.0, 2.0], [np.inf, 2.0], "y holds 1 NaN or infinite"),
        ([1.0, 2.0], ["a", "b"], "y has dtype"),
        ([1.0, 2.0], [1j, 2], "y has dtype complex128"),
        (1.0, 2.0, r"x has shape \(\)"),
    ],
)
def test_errors_are_readable(x: object, y: object, words: str) -> None:
    with pytest.raises(AconError, match=words):
        linearity(x, y)  # type: ignore[arg-type]
