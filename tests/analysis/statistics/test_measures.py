"""The other measures: known values, where each misleads, and what odd inputs give."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from acon_analysis.errors import AconError, UsageError
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics import other_measures as measures

Z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)


def acon(x: FloatArray, p1: float, p2: float, beta: float) -> FloatArray:
    return np.asarray((p1 - p2) * x * expit(beta * (p1 - p2) * x) + p2 * x)


def slope(x: FloatArray, p1: float, p2: float, beta: float) -> FloatArray:
    u = beta * (p1 - p2) * x
    gate = expit(u)
    return np.asarray(p2 + (p1 - p2) * (gate + u * gate * (1 - gate)))


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.abs(Z), 0.807),
        (np.maximum(Z, 0), 0.621),
        (acon(Z, 1.2, -0.8, 1), 0.712),
        (acon(Z, 1.2, -0.8, 0.1), 0.650),
        (3 * Z - 7, 1.0),
        (-Z, 1.0),
    ],
)
def test_affinity_score(y: FloatArray, expected: float) -> None:
    assert measures.affinity_score(Z, y) == pytest.approx(expected, abs=6e-4)


def test_affinity_score_misleads_where_the_index_does_not() -> None:
    y = np.stack([np.abs(Z), np.maximum(Z, 0), acon(Z, 1.2, -0.8, 1), acon(Z, 1.2, -0.8, 0.1)], 1)
    x = np.repeat(Z[:, None], 4, axis=1)
    table = measures.measure_table(x, y)
    assert table["affinity"][0] > table["affinity"][1]
    assert table["affinity"][2] > table["affinity"][3]
    np.testing.assert_allclose(table["L"], [0, 0.7335, 0.093, 0.675], atol=1e-3)


def test_affinity_of_several_channels() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 3))
    root = rng.standard_normal((3, 3))
    symmetric = x @ (root @ root.T) + 5
    assert measures.affinity_score(x, symmetric) == pytest.approx(1, abs=1e-6)
    bent = measures.affinity_score(x, np.maximum(x, 0))
    assert 0 < bent < 0.95
    single = measures.affinity_score(x[:, :1], np.maximum(x[:, 0], 0))
    padded = measures.affinity_score(
        np.c_[x[:, 0], np.zeros(60)], np.c_[np.maximum(x[:, 0], 0), np.zeros(60)]
    )
    assert padded == pytest.approx(single, abs=1e-6)
    with pytest.raises(UsageError, match="exact only up to 2000 rows, given 2001"):
        measures.affinity_score(
            np.ones((2001, 2)) * Z[:2001, None], np.ones((2001, 2)) + Z[:2001, None]
        )


def test_full_matrix_fit_is_exact_with_few_samples() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((20, 32))
    assert measures.affine_r2(x, np.abs(x)) == pytest.approx(1)
    many = rng.standard_normal((4000, 8))
    assert measures.affine_r2(many, np.abs(many)) == pytest.approx(0, abs=0.02)
    mixed = many @ rng.standard_normal((8, 5)) + 3
    assert measures.affine_r2(many, mixed) == pytest.approx(1)
    relu = measures.affine_r2(many, np.maximum(many, 0))
    assert relu == pytest.approx(0.7335, abs=0.02)
    assert measures.affine_r2(many, np.full_like(many, 0.1)) == 1
    assert np.isnan(measures.affine_r2(np.zeros((0, 2)), np.zeros((0, 2))))


def test_gate_entropy_calls_a_line_nonlinear() -> None:
    x = Z[:, None]
    row = measures.measure_table(x, acon(x, 1, 0, 0.0), slopes=slope(x, 1, 0, 0.0)).iloc[0]
    assert row["L"] == 1
    assert row["gate_entropy"] == pytest.approx(1)
    assert row["gradient_variance"] == 0
    np.testing.assert_allclose(
        measures.gate_entropy([0, 0.11, 1, np.nan]), [0, 0.49992, 0, np.nan], atol=1e-4
    )


def test_gradient_variance_blows_up_at_mean_slope_zero() -> None:
    values = [measures.gradient_variance(slope(Z, 1, p2, 1.0)) for p2 in (0.5, -0.5, -0.99)]
    assert values[0] < values[1] < 1000 < values[2]
    np.testing.assert_array_equal(measures.gradient_variance([[1, -1], [1, 1]]), [0, np.inf])
    assert np.isnan(measures.gradient_variance(np.zeros((0, 2)))).all()
    np.testing.assert_array_equal(measures.gradient_variance([0.0, 0.0]), 0)


def test_beta_alone_measures_nothing() -> None:
    """(c·p1, c·p2, β/c) is c times the same function: |β| differs, L and κ do not."""
    pairs = [(acon(Z, 1, 0, 2.0), 2.0), (acon(Z, 4, 0, 0.5), 0.5)]
    tables = [measures.measure_table(Z, y, beta=np.array([b])) for y, b in pairs]
    assert tables[0]["L"][0] == pytest.approx(tables[1]["L"][0], abs=1e-12)
    assert tables[0]["affinity"][0] == pytest.approx(tables[1]["affinity"][0], abs=1e-9)
    assert [t["abs_beta"][0] for t in tables] == [2.0, 0.5]
    np.testing.assert_allclose(measures.abs_beta([[-1, 1], [1, 3]]), [1, 2])
    assert np.isnan(measures.abs_beta(np.zeros((0, 2)))).all()


def test_scoring_after_pooling_moves_the_index() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((500, 1, 49)) + rng.standard_normal((500, 1, 1))
    y = np.maximum(x, 0)
    full = measures.measure_table(x.reshape(-1, 1), y.reshape(-1, 1))["L"][0]
    pooled = measures.measure_table(x.mean(2), y.mean(2))["L"][0]
    assert pooled - full > 0.05


def test_measures_and_their_catalogue() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((300, 4))
    y = np.maximum(x, 0) * [1, 2, 0, 1]
    table = measures.measure_table(x, y, slopes=(x > 0).astype(float), beta=np.ones((5, 4)))
    assert table["L"][2] == 1
    dx, dy = x - x.mean(0), y - y.mean(0)
    explained = (dx * dy).sum(0) ** 2 / (dx**2).sum(0)
    assert table["s_c"].sum() == pytest.approx(1 - explained.sum() / (dy**2).sum())
    assert (table["abs_beta"] == 1).all()
    assert table["gradient_variance"].median() == pytest.approx(1, abs=0.3)


def test_odd_inputs() -> None:
    empty = measures.measure_table(np.zeros((0, 3)), np.zeros((0, 3)))
    assert empty["L"].isna().all()
    assert len(empty) == 3
    assert empty.drop(columns="channel").isna().all(axis=None)
    assert np.isnan(measures.affine_r2(np.zeros((0, 3)), np.zeros((0, 3))))
    assert np.isnan(measures.affinity_score([1.0], [2.0]))
    assert np.isnan(measures.affinity_score([1.0, 1, 1], [1.0, 2, 3]))
    assert measures.affinity_score([1.0, 2, 3], [1.0, 1, 1]) == 1
    assert measures.measure_table(np.ones((5, 1)), np.ones((5, 1)))["L"][0] == 1


def test_errors() -> None:
    with pytest.raises(AconError, match="x holds 1 NaN or infinite of 2 values"):
        measures.affinity_score([1, np.nan], [1, 2])
    with pytest.raises(AconError, match="x has 2, y has 3"):
        measures.affine_r2([1, 2], [1, 2, 3])
    with pytest.raises(AconError, match=r"given \(2, 1, 1\)"):
        measures.measure_table(np.ones((2, 1, 1)), np.ones((2, 1, 1)))
    with pytest.raises(AconError, match=r"given \(2, 1\) and \(2, 3\)"):
        measures.measure_table(np.ones((2, 1)), np.ones((2, 3)))
    with pytest.raises(AconError, match=r"equal shapes: x \(2, 1\), y \(2, 2\)"):
        measures.affinity_score(np.ones((2, 1)), np.ones((2, 2)))


def test_what_varies_by_float32_rounding_alone_is_dead_in_every_measure() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 3)).astype(np.float32)
    y = np.maximum(x, 0)
    y[:, 1:] = 1e4 * (1 + np.float32(2**-23) * rng.integers(0, 2, (200, 2)))
    table = measures.measure_table(x, y)
    assert table["L"].tolist()[1:] == table["affinity"].tolist()[1:] == [1, 1]
    assert table["s_c"].tolist() == [pytest.approx(1 - table["L"][0]), 0, 0]
    assert measures.affine_r2(x[:, 1:], y[:, 1:]) == 1
    assert (
        measures.affine_r2(x[:, 1:].astype(float), y[:, 1:].astype(float)) < 1
    )  # digits of float64
