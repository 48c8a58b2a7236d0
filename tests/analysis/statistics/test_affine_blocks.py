"""The nonlinearity coefficient and the held-out R², against dense computations and closed forms."""

import numpy as np
import numpy.typing as npt
import pytest

from acon_analysis.errors import AconError
from acon_analysis.moments.gram import Gram
from acon_analysis.statistics.affine_blocks import (
    coefficient_change,
    held_out_r2,
    nonlinearity_coefficient,
    ratio,
)
from affine_oracle import nested_r2

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def sums_of(x: Array, y: Array, folds: Ints, count: int = 5) -> Gram:
    """Sum the rows of every fold by themselves."""
    rows = np.concatenate([x, y], 1)
    grams = [Gram.of(rows[folds == fold]) for fold in range(count)]
    return Gram(*(np.stack([getattr(one, name) for one in grams]) for name in ("n", "mean", "C")))


def case(n: int, p: int, q: int, noise: float = 1.0) -> tuple[Array, Array, Ints]:
    generator = np.random.default_rng(n + p)
    x = generator.standard_normal((n, p)) @ generator.standard_normal((p, p)) + 3.0
    y = np.maximum(x @ generator.standard_normal((p, q)), 0) + generator.standard_normal((n, q))
    return x, y * noise, generator.permutation(n) % 5


@pytest.mark.parametrize(("n", "p", "q"), [(200, 6, 6), (60, 12, 3), (500, 4, 9)])
def test_r2_is_that_of_a_dense_nested_cross_validation(n: int, p: int, q: int) -> None:
    x, y, folds = case(n, p, q)
    found = held_out_r2(sums_of(x, y, folds), p)
    r2, without = nested_r2(x, y, folds)
    assert found.r2 == pytest.approx(r2, abs=1e-6)
    y, shortcut = y + 9 * x[:, :q] if p == q else y, p == q
    found = held_out_r2(sums_of(x, y, folds), p)
    r2, without = nested_r2(x, y, folds)
    assert found.r2 == pytest.approx(r2, abs=1e-6)
    assert np.isnan(without) != shortcut
    assert found.without_input == pytest.approx(without, abs=1e-6, nan_ok=True)
    assert found.low < found.r2 < found.high


def test_the_interval_is_that_of_a_ratio_over_folds() -> None:
    x, y, folds = case(300, 5, 5)
    found = held_out_r2(sums_of(x, y, folds), 5)
    assert (found.low + found.high) / 2 == pytest.approx(found.r2)
    many = [held_out_r2(sums_of(*_redrawn(seed)), 4) for seed in range(60)]
    spread = np.std([one.r2 for one in many], ddof=1)
    width = np.mean([(one.high - one.low) / 2 for one in many])
    assert 1.5 < width / spread < 4.5  # Student's t with 4 degrees of freedom: 2.8
    assert np.mean([one.low < 0.7335 < one.high for one in many]) >= 0.85


def _redrawn(seed: int) -> tuple[Array, Array, Ints]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((400, 4))
    return x, np.maximum(x, 0), generator.permutation(400) % 5


def test_affine_maps_have_r2_of_one_also_of_inputs_that_depend_on_each_other() -> None:
    x, _, folds = case(300, 4, 4)
    x = np.concatenate([x, x[:, :1] - x[:, 1:2], np.full((300, 1), 7.0)], 1)
    y = x @ np.random.default_rng(0).standard_normal((6, 3)) - 5
    assert held_out_r2(sums_of(x, y, folds), 6).r2 == pytest.approx(1, abs=1e-12)


def test_planted_values() -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((60_000, 8))
    folds = generator.permutation(len(x)) % 5
    turn = np.linalg.qr(generator.standard_normal((8, 8)))[0]
    relu = held_out_r2(sums_of(x, np.maximum(x @ turn, 0), folds), 8)
    assert relu.r2 == pytest.approx(0.7335, abs=0.004)
    product = held_out_r2(sums_of(x, x[:, :4] * x[:, 4:], folds), 8)
    assert product.r2 == pytest.approx(0, abs=1e-3)
    assert product.r2 < 0.001  # not clipped: an affine map can only do worse than the mean
    residual = held_out_r2(sums_of(x, 5 * x + x[:, ::-1] ** 2, folds), 8)
    assert residual.r2 == pytest.approx(25 / 27, abs=0.005)
    assert residual.without_input == pytest.approx(16 / 18, abs=0.005)
    assert np.isnan(relu.without_input)  # there is no shortcut


@pytest.mark.parametrize(("size", "known"), [(1e-5, True), (1e-7, False)])
def test_a_branch_is_measured_unless_it_is_lost_in_rounding(size: float, known: bool) -> None:
    generator = np.random.default_rng(2)
    x = generator.standard_normal((5000, 6)) @ np.diag([1e3, 1e2, 10, 1, 0.1, 0.01])
    branch = size * np.maximum(x, 0)
    folds = generator.permutation(5000) % 5
    found = held_out_r2(sums_of(x, x + branch, folds), 6)
    alone = held_out_r2(sums_of(x, branch, folds), 6)
    assert found.r2 == pytest.approx(1, abs=1e-10)
    assert np.isnan(found.without_input) != known
    assert not known or found.without_input == pytest.approx(alone.r2, abs=1e-4)


def test_a_ridge_is_chosen_where_vectors_are_few() -> None:
    x, y, folds = case(100, 20, 3)
    noisy = np.random.default_rng(0).standard_normal(y.shape)
    assert min(held_out_r2(sums_of(x, noisy, folds), 20).ridges) > 0
    exact = x @ np.ones((20, 2))
    assert max(held_out_r2(sums_of(x, exact, folds), 20).ridges) == 0


def test_nothing_is_said_where_there_is_nothing_to_say() -> None:
    x, y, folds = case(200, 6, 6)
    assert np.isnan(held_out_r2(sums_of(x, np.ones_like(y), folds), 6).r2)
    few = case(29, 6, 6)
    assert np.isnan(held_out_r2(sums_of(*few), 6).r2)
    y[3, 1] = np.nan
    assert np.isnan(held_out_r2(sums_of(x, y, folds), 6).r2)
    assert np.isnan(held_out_r2(sums_of(x, x, np.minimum(folds, 3)), 6).r2)  # a fold without rows
    with pytest.raises(AconError, match="three folds"):
        held_out_r2(sums_of(x, x, folds % 2, 2), 6)
    with pytest.raises(AconError, match="12 inputs of 12 variables"):
        held_out_r2(sums_of(x, x, folds), 12)


def test_a_ratio_of_sums_knows_its_error() -> None:
    generator = np.random.default_rng(0)

    def drawn() -> tuple[float, float]:
        below = generator.gamma(20, size=40)
        return ratio(2 * below + generator.standard_normal(40), below)

    found = np.array([drawn() for _ in range(400)])
    assert found[:, 0].mean() == pytest.approx(2, abs=0.002)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.1)
    assert ratio([3.0, 6.0], [1.0, 2.0]) == (3.0, 0.0)
    assert np.isnan(ratio([1.0], [1.0])[1])
    assert np.isnan(ratio([0.0, 0.0], [0.0, 0.0])[0])


@pytest.mark.parametrize(
    ("f", "slope", "expected"),
    [
        (lambda x: np.maximum(x, 0), lambda x: x > 0, 1.2112),
        (np.abs, np.sign, 1.6589),
        (lambda x: x / (1 + np.exp(-x)), None, 1.1009),
        (np.tanh, lambda x: 1 - np.tanh(x) ** 2, 1.0853),
    ],
)
def test_the_coefficient_of_gaussian_inputs(f: object, slope: object, expected: float) -> None:
    assert callable(f)
    x = np.random.default_rng(0).standard_normal((40, 3, 5000))  # 40 batches of 5,000 triples
    step = 1e-6
    at = slope(x[:, 0]) if callable(slope) else (f(x[:, 0] + step) - f(x[:, 0] - step)) / (2 * step)
    above = np.square(at * (x[:, 1] - x[:, 2]))
    below = np.square(f(x[:, 1]) - f(x[:, 2]))
    value, error = nonlinearity_coefficient(above, below)
    assert value == pytest.approx(expected, abs=4 * error)
    assert 0.0005 < error < 0.005


@pytest.mark.parametrize("alike", [False, True])
def test_the_error_is_that_of_repetitions_also_where_samples_of_a_batch_are_alike(
    alike: bool,
) -> None:
    generator = np.random.default_rng(0)

    def drawn() -> tuple[float, float]:
        x = generator.standard_normal((30, 3, 20))
        x += 2 * generator.standard_normal((30, 3, 1)) if alike else 0
        y = np.maximum(x, 0)
        above = np.square((x[:, 0] > 0) * (x[:, 1] - x[:, 2]))
        return nonlinearity_coefficient(above, np.square(y[:, 1] - y[:, 2]))

    found = np.array([drawn() for _ in range(300)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.25)


@pytest.mark.parametrize("alike", [False, True])
def test_the_error_of_a_change_is_that_of_repetitions(alike: bool) -> None:
    """A bend made half as strong; samples take turns as x, x' and x'', as blocks are measured."""
    generator = np.random.default_rng(0)

    def terms(x: Array, bend: float) -> Array:
        y, slope = x + bend * np.abs(x), 1 + bend * np.sign(x)
        first, second = (np.roll(x, step, 0) for step in (1, 2))
        ends = [np.roll(y, step, 0) for step in (1, 2)]
        return np.square([slope * (first - second), ends[0] - ends[1]])

    def drawn() -> tuple[float, ...]:
        x = generator.standard_normal((30, 20))
        x += generator.standard_normal((30, 1)) if alike else 0
        old, new = terms(x, 0.5), terms(x, 0.25)
        return *coefficient_change(old, new), nonlinearity_coefficient(*old)[1]

    found = np.array([drawn() for _ in range(300)])
    repeated = found[:, 0].std(ddof=1)
    assert found[:, 1].mean() == pytest.approx(repeated, rel=0.25)
    assert repeated < 0.8 * found[:, 2].mean()  # pairs have much in common
    exact = coefficient_change(terms(np.ones((3, 2)), 0.0), terms(np.ones((3, 2)), 0.0))
    assert np.isnan(exact).all()  # outputs that do not vary


def test_the_coefficient_may_lie_below_one() -> None:
    """Inputs in two clusters far from the bend: hardly a slope, though L is 0.998."""
    generator = np.random.default_rng(0)
    x = np.sign(generator.standard_normal((20, 3, 500))) * 3
    x += 0.1 * generator.standard_normal(x.shape)
    y = np.tanh(3 * x)
    above = np.square(3 * (1 - y[:, 0] ** 2) * (x[:, 1] - x[:, 2]))
    value, _ = nonlinearity_coefficient(above, np.square(y[:, 1] - y[:, 2]))
    assert value < 0.001
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] ** 2 > 0.99
