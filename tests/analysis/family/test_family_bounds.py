"""The closed bounds of ACON-C's slope, its range over data, and the identities of the family."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_analysis import family
from acon_analysis.errors import UsageError

slopes = st.floats(-10.0, 10.0).map(lambda v: round(v, 6))
betas = st.builds(
    lambda sign, size: sign * size, st.sampled_from([-1.0, 1.0]), st.floats(1e-3, 1e3)
)
points = st.one_of(st.floats(-50.0, 50.0), st.sampled_from([-np.inf, 0.0, np.inf]))
U_GRID = np.concatenate([np.linspace(-12.0, 12.0, 4801), [-np.inf, np.inf, -40.0, 40.0]])
quick = settings(max_examples=60, deadline=None)


def rounding(p1: float, p2: float) -> float:
    return 2e-15 * (abs(p1) + abs(p2))


def test_constants_to_the_last_digit() -> None:
    with mpmath.workdps(40):
        t = mpmath.findroot(lambda v: v * mpmath.tanh(v) - 1, 1.2)
        y = mpmath.findroot(lambda v: (v - 2) * mpmath.exp(v) - (v + 2), 2.4)
        stationary = mpmath.findroot(lambda u: 1 + u / (1 + mpmath.exp(u)), -1.28)
        assert abs(2 * t - y) < mpmath.mpf(10) ** -38
    assert float(t) == family.T_STAR
    assert float(2 * t) == family.U_STAR
    low, high = family.derivative_bounds(1.0, 0.0, 1.0)
    assert f"{high:.12f}" == "1.099839320129"
    assert f"{low:.12f}" == "-0.099839320129"
    assert f"{family.U_STAR:.12f}" == "2.399357280515"
    assert f"{float(stationary):.12f}" == "-1.278464542761"
    assert family.acon_a_derivative(float(stationary)) == pytest.approx(0.0, abs=1e-16)
    assert f"{family.acon_a(float(stationary)):.12f}" == "-0.278464542761"
    assert family.acon_a(float(stationary) / 2.0, beta=2.0) == pytest.approx(-0.278464542761 / 2)


@quick
@given(p1=slopes, p2=slopes, beta=betas)
def test_the_bounds_hold_and_are_reached(p1: float, p2: float, beta: float) -> None:
    low, high = family.derivative_bounds(p1, p2, beta)
    swap = family.derivative_bounds(p2, p1, -beta)
    assert (low, high) == pytest.approx(swap, abs=rounding(p1, p2))
    if p1 == p2:
        assert low == high == p1
        assert np.isnan(family.extremum_position(p1, p2, beta)).all()
        return
    grid = family.derivative(U_GRID / (beta * (p1 - p2)), p1, p2, beta)
    assert grid.max() <= high + rounding(p1, p2)
    assert grid.min() >= low - rounding(p1, p2)
    assert grid.max() >= high - 1e-5 * abs(p1 - p2)
    assert grid.min() <= low + 1e-5 * abs(p1 - p2)
    x_low, x_high = family.extremum_position(p1, p2, beta)
    assert x_low == -x_high
    assert abs(x_high) == pytest.approx(family.U_STAR / abs(beta * (p1 - p2)), rel=1e-14)
    assert family.derivative(x_low, p1, p2, beta) == pytest.approx(low, abs=rounding(p1, p2))
    assert family.derivative(x_high, p1, p2, beta) == pytest.approx(high, abs=rounding(p1, p2))


@pytest.mark.parametrize(
    ("p1", "p2", "beta", "expected"),
    [
        (1.2, -0.8, 0.0, (0.2, 0.2)),
        (1.2, -0.8, -0.0, (0.2, 0.2)),
        (0.7, 0.7, 3.0, (0.7, 0.7)),
        (0.7, 0.7, 0.0, (0.7, 0.7)),
        (1.2, -0.8, np.inf, (-0.8, 1.2)),
        (-0.8, 1.2, -np.inf, (-0.8, 1.2)),
        (1.0, 0.0, 1e-300, (-0.09983932012886692, 1.0998393201288669)),
    ],
)
def test_bounds_in_special_cases(
    p1: float, p2: float, beta: float, expected: tuple[float, float]
) -> None:
    assert family.derivative_bounds(p1, p2, beta) == pytest.approx(expected, abs=1e-15)


def test_bounds_broadcast_over_channels() -> None:
    p1 = np.array([1.0, 1.2, 0.8])
    low, high = family.derivative_bounds(p1, np.array([0.0, -0.1, 0.1]), np.ones((4, 1)))
    assert low.shape == high.shape == (4, 3)
    np.testing.assert_allclose(high[0], [1.09983932, 1.32979112, 0.86988752], atol=1e-8)
    tensor_low, tensor_high = family.derivative_bounds(torch.tensor(p1), 0.0, 1.0)
    np.testing.assert_allclose(tensor_low.numpy(), -0.09983932012886692 * p1, rtol=1e-13)
    assert tensor_high.dtype == torch.float64
    single = family.derivative_bounds(np.float32(1.0), np.zeros(3, np.float32), 1.0)
    assert single[0].dtype == np.float32


def brute_range(
    p1: float, p2: float, beta: float, x_min: float, x_max: float
) -> tuple[float, float]:
    inner = np.empty(0)
    if np.isfinite([x_min, x_max]).all():
        inner = np.linspace(x_min, x_max, 2001)
    if beta * (p1 - p2) != 0:
        turning = U_GRID / (beta * (p1 - p2))
        inner = np.concatenate([inner, turning[(turning >= x_min) & (turning <= x_max)]])
    grid = family.derivative(np.concatenate([[x_min, x_max], inner]), p1, p2, beta)
    return float(grid.min()), float(grid.max())


@quick
@given(p1=slopes, p2=slopes, beta=st.one_of(betas, st.just(0.0)), ends=st.tuples(points, points))
def test_the_range_over_data_is_the_brute_one(
    p1: float, p2: float, beta: float, ends: tuple[float, float]
) -> None:
    x_min, x_max = sorted(ends)
    low, high = family.derivative_range(p1, p2, beta, x_min, x_max)
    brute_low, brute_high = brute_range(p1, p2, beta, x_min, x_max)
    assert low <= brute_low + rounding(p1, p2)
    assert high >= brute_high - rounding(p1, p2)
    assert low == pytest.approx(brute_low, abs=1e-5 * abs(p1 - p2) + rounding(p1, p2))
    assert high == pytest.approx(brute_high, abs=1e-5 * abs(p1 - p2) + rounding(p1, p2))


def test_small_beta_reaches_its_bounds_only_far_outside_the_data() -> None:
    assert family.derivative_bounds(1.2, -0.8, 1e-3) == family.derivative_bounds(1.2, -0.8, 1.0)
    low, high = family.derivative_range(1.2, -0.8, 1e-3, -3.0, 3.0)
    assert high - low < 0.013
    whole = family.derivative_range(1.2, -0.8, 1e-3, -2000.0, 2000.0)
    assert whole == family.derivative_bounds(1.2, -0.8, 1e-3)


def test_the_range_over_the_whole_line_is_the_bounds() -> None:
    for case in [(1.2, -0.8, 1.0), (-0.8, 1.2, -2.0), (1.0, 0.0, 0.0), (2.0, 2.0, 1.0)]:
        assert family.derivative_range(*case, -np.inf, np.inf) == family.derivative_bounds(*case)
        assert family.derivative_range(*case) == family.derivative_bounds(*case)
    assert family.derivative_range(1.0, 0.0, np.inf, -1.0, 1.0) == (0.0, 1.0)
    assert family.derivative_range(1.0, 0.0, np.inf, 0.5, 1.0) == (1.0, 1.0)
    assert family.derivative_range(1.0, 0.0, 1.0, np.inf, np.inf) == (1.0, 1.0)


def test_the_range_broadcasts_and_takes_tensors() -> None:
    x_min, x_max = np.array([-1.0, -5.0, 0.0]), np.array([1.0, 5.0, 0.0])
    low, high = family.derivative_range(np.array([[1.2], [1.0]]), -0.8, 1.0, x_min, x_max)
    assert low.shape == high.shape == (2, 3)
    for i, p1 in enumerate([1.2, 1.0]):
        for j in range(3):
            alone = family.derivative_range(p1, -0.8, 1.0, x_min[j], x_max[j])
            assert (low[i, j], high[i, j]) == alone
    tensors = family.derivative_range(
        torch.tensor([[1.2], [1.0]], dtype=torch.float64), -0.8, 1.0, x_min, x_max
    )
    np.testing.assert_allclose(tensors[0].numpy(), low, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(tensors[1].numpy(), high, rtol=1e-13, atol=1e-15)


def test_an_interval_the_wrong_way_round_is_refused() -> None:
    message = r"derivative_range: x_min is greater than x_max: 2 > 1; expected x_min <= x_max"
    with pytest.raises(UsageError, match=message):
        family.derivative_range(1.0, 0.0, 1.0, 2.0, 1.0)
    message = r"x_max at 2 of 3 elements, first: 1 > 0; expected"
    for make in (np.array, torch.tensor):
        with pytest.raises(UsageError, match=message):
            family.derivative_range(1.0, 0.0, 1.0, make([0.0, 1.0, 2.0]), 0.0)


@quick
@given(p1=slopes, p2=slopes, beta=betas, c=st.floats(0.1, 10.0))
def test_identities_of_acon_c(p1: float, p2: float, beta: float, c: float) -> None:
    x = np.linspace(-8.0, 8.0, 161)
    f = family.acon_c(x, p1, p2, beta)
    # u = beta d x is rounded to 2e-16 of itself, and f turns by up to |d x| / 4 per unit of u.
    bend = np.abs(beta * (p1 - p2) * x) * np.abs((p1 - p2) * x)
    fade = np.exp(-np.abs(beta * (p1 - p2) * x))
    near = 2e-15 * (1 + 8.0 * (abs(p1) + abs(p2)) + np.max(bend * fade))
    m, d = (p1 + p2) / 2, p1 - p2
    np.testing.assert_allclose(f, m * x + d * x / 2 * np.tanh(beta * d * x / 2), rtol=0, atol=near)
    np.testing.assert_array_equal(f, family.acon_c(x, p2, p1, beta))
    minimum = family.acon_c(x, p1, p2, -beta)
    np.testing.assert_array_equal(minimum, -family.acon_c(x, -p1, -p2, beta))
    np.testing.assert_array_equal(minimum, -family.acon_c(-x, p1, p2, beta))
    np.testing.assert_allclose(f + minimum, (p1 + p2) * x, rtol=0, atol=near)
    scaled = family.acon_c(x, c * p1, c * p2, beta / c)
    np.testing.assert_allclose(scaled / c, f, rtol=0, atol=near)


def test_special_cases_of_acon_c() -> None:
    x = np.linspace(-6.0, 6.0, 241)
    np.testing.assert_allclose(family.acon_c(x, 1.2, -0.8, 0.0), 0.2 * x, rtol=1e-14)
    np.testing.assert_allclose(family.derivative(x, 1.2, -0.8, 0.0), 0.2, rtol=1e-14)
    np.testing.assert_array_equal(family.acon_c(x, 0.3, 0.3, 7.0), 0.3 * x)
    for beta in (1e6, np.inf):
        hard = np.maximum(1.2 * x, -0.8 * x)
        np.testing.assert_allclose(family.acon_c(x, 1.2, -0.8, beta), hard, atol=1e-6)
        soft = np.minimum(1.2 * x, -0.8 * x)
        np.testing.assert_allclose(family.acon_c(x, 1.2, -0.8, -beta), soft, atol=1e-6)
        np.testing.assert_allclose(family.acon_b(x, 0.25, beta), family.prelu(x, 0.25), atol=1e-6)
    for beta in (-2.0, 0.0, 0.1, 1.0, 5.0):
        np.testing.assert_array_equal(family.acon_c(x, 1.0, 0.0, beta), family.swish(x, beta))
        np.testing.assert_array_equal(family.acon_a(x, beta), family.swish(x, beta))
        np.testing.assert_array_equal(family.acon_b(x, 0.3, beta), family.acon_c(x, 1.0, 0.3, beta))
        np.testing.assert_array_equal(
            family.acon_b_derivative(x, 0.3, beta), family.derivative(x, 1.0, 0.3, beta)
        )


@quick
@given(p1=slopes, p2=slopes, beta=betas, x=st.floats(-50.0, 50.0), single=st.booleans())
def test_acon_c_against_mpmath(p1: float, p2: float, beta: float, x: float, single: bool) -> None:
    dtype = np.float32 if single else np.float64
    x, p1, p2, beta = (float(dtype(v)) for v in (x, p1, p2, beta))
    value, slope = family.acon_c(dtype(x), p1, p2, beta), family.derivative(dtype(x), p1, p2, beta)
    assert value.dtype == slope.dtype == dtype
    with mpmath.workdps(400):  # the formula below cancels down to e^-u
        u = mpmath.mpf(beta) * (mpmath.mpf(p1) - p2) * x
        right, left = 1 / (1 + mpmath.exp(-u)), 1 / (1 + mpmath.exp(u))
        f = x * (p1 * right + p2 * left)
        g = p2 + (mpmath.mpf(p1) - p2) * (right + u * right * left)
        spread = 1 + abs(u) + abs(u) ** 2 * right * left
        # Each line weighs in with its own rounding, times how far the rounding of u moves it.
        scale = abs(p1) * right * (1 + abs(u) * left) + abs(p2) * left * (1 + abs(u) * right)
        near = 8 * np.finfo(dtype).eps * float(scale)
        bent = 8 * np.finfo(dtype).eps * float(spread * scale)
    tiny = float(np.finfo(dtype).tiny)
    assert abs(float(value) - float(f)) <= near * abs(x) + tiny
    assert abs(float(slope) - float(g)) <= bent + tiny
