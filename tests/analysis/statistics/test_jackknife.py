"""Jackknife over blocks: exact merging, the classical formula, coverage of its intervals."""

import numpy as np
import pytest

from acon_analysis.errors import UsageError
from acon_analysis.moments.state import Moments, merge_all, residual
from acon_analysis.statistics.jackknife import (
    jackknife_error,
    leave_one_out,
    share_interval,
    symmetric_interval,
)
from moment_oracle import as_samples, by_block, from_samples


def test_leaving_one_out_equals_merging_the_others() -> None:
    rng = np.random.default_rng(0)
    x = 100 + rng.standard_normal((6, 3, 20))
    blocks = from_samples(x, np.maximum(x, 100.5))
    for i, state in enumerate(leave_one_out(blocks)):
        others = merge_all(blocks.select([j for j in range(6) if j != i]))
        for name in state.arrays:
            np.testing.assert_allclose(state[name], others[name], rtol=1e-11)
    (only,) = leave_one_out(blocks.select(slice(0, 1)))
    np.testing.assert_array_equal(only["n"], 0)


def test_equal_blocks_give_the_classical_jackknife() -> None:
    values = np.random.default_rng(1).standard_normal((12, 4))
    mean = values.mean(0)
    without = (values.sum(0) - values) / 11
    error, freedom = jackknife_error(mean, without, np.full((12, 4), 5.0))
    np.testing.assert_allclose(error, values.std(0, ddof=1) / np.sqrt(12), rtol=1e-12)
    np.testing.assert_array_equal(freedom, 11)


def test_empty_blocks_do_not_count() -> None:
    values = np.random.default_rng(2).standard_normal((12, 1))
    without = (values.sum(0) - values) / 11
    size = np.full((12, 1), 5.0)
    padded = np.vstack([without, np.full((3, 1), np.nan)])
    sizes = np.vstack([size, np.zeros((3, 1))])
    expected = jackknife_error(values.mean(0), without, size)
    got = jackknife_error(values.mean(0), padded, sizes)
    np.testing.assert_allclose(got, expected)


def test_fewer_than_two_blocks_give_nan() -> None:
    for size in ([[3.0]], [[3.0], [0.0]], [[0.0], [0.0]]):
        error, _ = jackknife_error(np.zeros(1), np.zeros((len(size), 1)), np.array(size))
        assert np.isnan(error).all()
        low, high = share_interval(np.full(1, 0.5), np.full((len(size), 1), 0.5), np.array(size))
        assert np.isnan([low, high]).all()


def test_unequal_blocks_have_the_right_error() -> None:
    """Blocks of very different sizes: the error of a mean, against its true value."""
    rng = np.random.default_rng(3)
    size = np.array([2, 4, 8, 16, 32, 3, 5, 10, 20, 40] * 3)
    replicates = 400
    sums = rng.standard_normal((len(size), replicates)) * np.sqrt(size)[:, None]
    mean = sums.sum(0) / size.sum()
    without = (sums.sum(0) - sums) / (size.sum() - size)[:, None]
    error, _ = jackknife_error(mean, without, np.repeat(size[:, None].astype(float), 400, 1))
    assert np.sqrt((error**2).mean()) == pytest.approx(1 / np.sqrt(size.sum()), rel=0.05)


def test_intervals_cover_despite_correlated_pixels() -> None:
    """ReLU; each image has its own mean, so pixels are correlated; 300 networks at once."""
    rng = np.random.default_rng(4)

    def states(images: int, copies: int) -> Moments:
        x = rng.standard_normal((images, copies, 9)) + rng.standard_normal((images, copies, 1))
        return as_samples(from_samples(x, np.maximum(x, 0)))

    truth = merge_all(states(20_000, 4))
    true_bend = (residual(truth) / truth["cyy"]).mean()
    blocks = by_block(states(150, 300), np.arange(150), 30)
    total = merge_all(blocks)
    bend = residual(total) / total["cyy"]
    without = np.stack([residual(s) / s["cyy"] for s in leave_one_out(blocks)])
    low, high = share_interval(bend, without, blocks["n_samples"])
    coverage = ((low <= true_bend) & (true_bend <= high)).mean()
    assert 0.91 <= coverage <= 0.985


@pytest.mark.parametrize("share", [0.0, 1.0, 1e-9])
def test_intervals_at_the_ends_stay_inside(share: float) -> None:
    rng = np.random.default_rng(5)
    without = np.clip(share + 1e-8 * rng.standard_normal((10, 1)), 0, 1)
    low, high = share_interval(np.array([share]), without, np.ones((10, 1)))
    assert 0 <= low <= high <= 1
    assert high - low < 1e-6


def test_confidence_is_checked() -> None:
    one = np.ones(1)
    with pytest.raises(UsageError, match="between 0 and 1, given 95"):
        symmetric_interval(one, one, one, 95)
