"""Maxout, the smooth maximum of n values, FReLU and ACON-FReLU."""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from acon_analysis import family
from acon_analysis.errors import UsageError

rows = st.lists(st.floats(-30.0, 30.0), min_size=1, max_size=6)
quick = settings(max_examples=60, deadline=None)


@quick
@given(values=rows, beta=st.floats(-20.0, 20.0))
def test_smooth_maximum_against_mpmath(values: list[float], beta: float) -> None:
    result = family.smooth_maximum(values, beta)
    partials = family.smooth_maximum_derivative(values, beta)
    with mpmath.workdps(60):
        exact = [mpmath.mpf(v) for v in values]
        powers = [mpmath.exp(beta * v) for v in exact]
        weights = [p / mpmath.fsum(powers) for p in powers]
        smooth = mpmath.fdot(weights, exact)
        slopes = [w * (1 + beta * (v - smooth)) for w, v in zip(weights, exact, strict=True)]
    # The exponents beta (x_i - max) are rounded, and reach 1200.
    spread = 1.0 + abs(beta) * (max(values) - min(values))
    assert float(result) == pytest.approx(
        float(smooth), abs=1e-14 * (1 + max(map(abs, values))) * 30
    )
    np.testing.assert_allclose(
        partials, [float(s) for s in slopes], rtol=0, atol=2e-15 * max(spread, 8.0)
    )
    assert partials.sum() == pytest.approx(1.0, abs=1e-13)
    assert min(values) - 1e-12 <= result <= max(values) + 1e-12


@pytest.mark.parametrize("beta", [-3.0, 0.5, 40.0])
def test_smooth_maximum_of_two_is_the_papers_formula(beta: float) -> None:
    rng = np.random.default_rng(1)
    a, c = rng.standard_normal((2, 500)) * 3
    two = family.smooth_maximum(np.stack([a, c], axis=-1), beta)
    np.testing.assert_allclose(two, family.acon_frelu(a, c, beta), rtol=1e-12, atol=1e-13)
    formula = (a - c) / (1 + np.exp(-beta * (a - c))) + c
    np.testing.assert_allclose(two, formula, rtol=1e-12, atol=1e-13)


def test_smooth_maximum_goes_from_minimum_over_mean_to_maximum() -> None:
    values = np.array([[3.0, -1.0, 2.5], [0.0, 0.0, -7.0]])
    np.testing.assert_allclose(family.smooth_maximum(values, 0.0), values.mean(axis=1), rtol=1e-15)
    np.testing.assert_array_equal(family.smooth_maximum(values, np.inf), values.max(axis=1))
    np.testing.assert_array_equal(family.smooth_maximum(values, -np.inf), values.min(axis=1))
    np.testing.assert_allclose(family.smooth_maximum(values, 1e4), values.max(axis=1), atol=1e-12)
    steps = [family.smooth_maximum(values, b) for b in (-5.0, -1.0, 0.0, 0.3, 1.0, 5.0)]
    assert (np.diff(steps, axis=0) > 0).all()
    partials = family.smooth_maximum_derivative(values, 0.0)
    np.testing.assert_allclose(partials, 1.0 / 3.0, rtol=1e-15)


def test_smooth_maximum_over_any_axis_with_any_beta() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((2, 3, 4))
    for axis in (0, 1, 2, -1, -2, -3):
        moved = np.moveaxis(values, axis, -1)
        for shape in ((1,), moved.shape[1:2], moved.shape[:2]):
            beta = rng.standard_normal(shape)
            result = family.smooth_maximum(values, beta, axis=axis)
            weights = np.exp(beta[..., None] * moved)
            brute = (weights * moved).sum(-1) / weights.sum(-1)
            np.testing.assert_allclose(result, brute, rtol=1e-12, atol=1e-14)
            partials = family.smooth_maximum_derivative(values, beta, axis=axis)
            np.testing.assert_allclose(partials.sum(axis), 1.0, rtol=1e-12)
            tensors = family.smooth_maximum(
                torch.from_numpy(values), torch.as_tensor(beta), axis=axis
            )
            np.testing.assert_allclose(tensors.numpy(), result, rtol=1e-12, atol=1e-14)


def test_smooth_maximum_at_the_extremes() -> None:
    inf = np.inf
    assert family.smooth_maximum([1.0, 2.0, inf]) == inf
    assert family.smooth_maximum([1.0, 2.0, -inf]) == pytest.approx(
        family.smooth_maximum([1.0, 2.0])
    )
    assert family.smooth_maximum([-inf, -inf]) == -inf
    assert family.smooth_maximum([1.0, -inf], -1.0) == -inf
    assert family.smooth_maximum([1e300, -1e300], 1e300) == 1e300
    assert family.smooth_maximum([1e300, -1e300], -1e300) == -1e300
    assert family.smooth_maximum([5.0]) == 5.0
    assert family.smooth_maximum_derivative([1.0, 2.0, inf]).tolist() == [0.0, 0.0, 1.0]
    assert family.smooth_maximum_derivative([3.0, 3.0], inf).tolist() == [0.5, 0.5]
    assert np.isnan(family.smooth_maximum([1.0, np.nan]))
    half = family.smooth_maximum(torch.tensor([6e4, -6e4], dtype=torch.float16), 1e3)
    assert half.dtype == torch.float16
    assert half.item() == 6e4


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_bounds_of_the_partials_of_the_smooth_maximum(count: int) -> None:
    low, high = family.smooth_maximum_derivative_bounds(count, -2.0)
    if count == 1:
        assert (low, high) == (1.0, 1.0)
        return
    with mpmath.workdps(40):
        start = 2.0 + float(mpmath.log(count))
        y = mpmath.findroot(lambda v: (v - 2) - (count - 1) * (v + 2) * mpmath.exp(-v), start)
    assert high == pytest.approx(0.5 + float(y) / 4, rel=1e-15)
    assert low == pytest.approx(family.derivative_bounds(1.0, 0.0)[0], rel=1e-14)
    # Reached: all others equal, at distance y; all others but one out of sight, at distance -u*.
    values = np.zeros(count)
    values[0] = float(y)
    assert family.smooth_maximum_derivative(values, 1.0)[0] == pytest.approx(high, rel=1e-14)
    values = np.full(count, -1e3)
    values[:2] = [-family.U_STAR, 0.0]
    assert family.smooth_maximum_derivative(values, 1.0)[0] == pytest.approx(low, rel=1e-13)
    rng = np.random.default_rng(count)
    for scale in (0.5, 3.0, 10.0):
        random = family.smooth_maximum_derivative(scale * rng.standard_normal((200, count)), -2.0)
        assert low - 1e-14 <= random.min() <= random.max() <= high + 1e-14


def test_bounds_of_the_smooth_maximum_in_special_cases() -> None:
    assert family.smooth_maximum_derivative_bounds(4, 0.0) == (0.25, 0.25)
    assert family.smooth_maximum_derivative_bounds(4, np.inf) == (0.0, 1.0)
    assert np.isnan(family.smooth_maximum_derivative_bounds(4, np.nan)).all()
    with pytest.raises(UsageError, match="count is 0; expected >= 1"):
        family.smooth_maximum_derivative_bounds(0)


def test_maxout_against_brute_force() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 7)) * 3
    slopes, intercepts = rng.standard_normal((2, 7, 4))
    result, slope = (f(x, slopes, intercepts) for f in (family.maxout, family.maxout_derivative))
    for i in range(5):
        for j in range(7):
            lines = [a * x[i, j] + b for a, b in zip(slopes[j], intercepts[j], strict=True)]
            assert result[i, j] == max(lines)
            assert slope[i, j] == slopes[j][int(np.argmax(lines))]
    np.testing.assert_array_equal(family.maxout(x, [1.0, 0.0]), family.relu(x))
    np.testing.assert_array_equal(family.maxout(x, [1.0, 0.25]), family.prelu(x, 0.25))
    np.testing.assert_array_equal(family.maxout(x, [1.0, -1.0]), np.abs(x))


def test_maxout_at_kinks_and_infinities() -> None:
    assert family.maxout_derivative(0.0, [1.0, 0.0]) == 0.5
    assert family.maxout(np.inf, [1.0, 2.0], [5.0, 0.0]) == np.inf
    assert family.maxout_derivative(np.inf, [1.0, 2.0], [5.0, 0.0]) == 2.0
    assert family.maxout_derivative(-np.inf, [1.0, 2.0], [5.0, 0.0]) == 1.0
    assert family.maxout(np.inf, [-1.0, 0.0], [5.0, 3.0]) == 3.0
    x = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(family.maxout(x, [1.0, 0.0]).sum(), x)
    assert slope.tolist() == family.maxout_derivative(x.detach(), [1.0, 0.0]).tolist()
    left, right = family.get("maxout").limits(slopes=[1.0, -2.0, 1.0], intercepts=[0.0, 1.0, 4.0])  # type: ignore[misc]
    assert (left, right) == ((-2.0, 1.0), (1.0, 4.0))


@pytest.mark.parametrize("beta", [0.0, 1.0, -2.0, 30.0])
def test_partials_of_acon_frelu(beta: float) -> None:
    rng = np.random.default_rng(4)
    x1, x2 = torch.from_numpy(rng.standard_normal((2, 20)) * 2).unbind()
    x1[:3] = x2[:3]
    inputs = x1.clone().requires_grad_(), x2.clone().requires_grad_()
    slopes = torch.autograd.grad(family.acon_frelu(*inputs, beta).sum(), inputs)
    for slope, exact in zip(slopes, family.acon_frelu_derivative(x1, x2, beta), strict=True):
        torch.testing.assert_close(slope, exact, rtol=1e-12, atol=1e-14)
    assert gradcheck(lambda a, c: family.acon_frelu(a, c, beta), inputs)
    low, high = family.get("acon_frelu").derivative_bounds(beta=beta)
    for exact in family.acon_frelu_derivative(x1.numpy(), x2.numpy(), beta):
        assert low - 1e-15 <= exact.min() <= exact.max() <= high + 1e-15


def test_frelu_and_its_smooth_form() -> None:
    rng = np.random.default_rng(5)
    x, t = rng.standard_normal((2, 100))
    np.testing.assert_array_equal(family.frelu(x, t), np.maximum(x, t))
    np.testing.assert_array_equal(family.acon_frelu(x, t, np.inf), np.maximum(x, t))
    np.testing.assert_allclose(family.acon_frelu(x, t, 0.0), (x + t) / 2, rtol=1e-15, atol=1e-16)
    by_x, by_t = family.frelu_derivative(np.array([1.0, 2.0, 2.0]), 2.0 - np.array([0.0, 1.0, 0.0]))
    assert by_x.tolist() == [0.0, 1.0, 0.5]
    assert by_t.tolist() == [1.0, 0.0, 0.5]
    hard = family.acon_frelu_derivative(x, t, np.inf)
    for smooth, exact in zip(hard, family.frelu_derivative(x, t), strict=True):
        np.testing.assert_array_equal(smooth, exact)
    tie = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    assert [g.item() for g in torch.autograd.grad(family.frelu(*tie), tie)] == [0.5, 0.5]


def test_acon_frelu_at_infinities() -> None:
    inf = np.inf
    assert family.acon_frelu(inf, 1.0) == inf
    assert family.acon_frelu(-inf, 1.0) == 1.0
    assert family.acon_frelu(inf, inf) == inf
    assert family.acon_frelu(inf, -inf) == inf
    assert family.acon_frelu(1e308, -1e308) == 1e308
    assert family.acon_frelu_derivative(inf, 1.0) == (1.0, 0.0)
    assert family.acon_frelu_derivative(inf, inf) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: family.maxout(1.0, 2.0), r"maxout: slopes has shape \(\); expected \(\.\.\., n\)"),
        (lambda: family.maxout(1.0, []), r"maxout: slopes has shape \(0,\)"),
        (
            lambda: family.maxout(np.ones(3), np.ones((2, 4))),
            r"maxout: these shapes do not broadcast: x with an axis of pieces \(3, 1\), "
            r"slopes \(2, 4\)",
        ),
        (lambda: family.smooth_maximum(3.0), r"no axis -1 in values of shape \(\)"),
        (lambda: family.smooth_maximum(np.ones((2, 3)), axis=2), r"no axis 2 in values of shape"),
        (lambda: family.smooth_maximum(torch.ones(2, 0)), r"no values along axis -1 of shape"),
        (
            lambda: family.smooth_maximum(np.ones((4, 3)), np.ones(3)),
            r"smooth_maximum: these shapes do not broadcast: result \(4,\), beta \(3,\)",
        ),
    ],
)
def test_wrong_shapes_get_a_readable_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
