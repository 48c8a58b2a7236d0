from typing import Any

import numpy as np
import pandas as pd
import pytest

from acon_analysis.errors import UsageError
from acon_analysis.studies import experiments


@pytest.fixture(scope="module")
def signals() -> pd.DataFrame:
    return experiments.signal_through_layers()


def test_selu_keeps_mean_and_variance_while_elu_and_relu_lose_them(signals: pd.DataFrame) -> None:
    last: Any = signals[signals["layer"] == 50].groupby("activation")[["mean", "variance"]].mean()
    assert abs(last.loc["SELU", "mean"]) < 0.05
    assert 0.8 < last.loc["SELU", "variance"] < 1.25
    assert last.loc["ELU", "variance"] < 0.01
    assert last.loc["ReLU", "variance"] < 1e-12


def test_the_first_layers_are_what_theory_says(signals: pd.DataFrame) -> None:
    start = signals[signals["layer"] == 0]
    assert start["mean"].abs().max() < 0.05
    np.testing.assert_allclose(start["variance"], 1.0, atol=0.05)
    relu = signals[(signals["layer"] == 1) & (signals["activation"] == "ReLU")]
    np.testing.assert_allclose(relu["mean"], np.sqrt(0.5 / np.pi), atol=0.03)
    np.testing.assert_allclose(relu["variance"], 0.5 - 0.5 / np.pi, atol=0.03)


def test_bands_hold_the_middle_and_the_range_of_the_seeds(signals: pd.DataFrame) -> None:
    bands = experiments.signal_bands(signals)
    assert len(bands) == 3 * 51 * 2
    assert (bands["low"] <= bands["middle"]).all()
    assert (bands["middle"] <= bands["high"]).all()
    mine = signals[(signals["layer"] == 7) & (signals["activation"] == "ELU")]["variance"]
    row = bands[(bands["layer"] == 7) & (bands["activation"] == "ELU")]
    row = row[row["quantity"] == "variance"]
    assert row[["low", "middle", "high"]].to_numpy()[0].tolist() == sorted(mine)


def test_signals_need_layers_and_seeds() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        experiments.signal_through_layers(layers=0)
    with pytest.raises(UsageError, match="one seed"):
        experiments.signal_through_layers(())


def test_two_pieces_learn_relu_and_the_absolute_value() -> None:
    slopes, intercepts, error = experiments.fit_maxout(experiments.MAXOUT_TARGETS["|x|"], 2)
    np.testing.assert_allclose(slopes, [-1.0, 1.0], atol=1e-9)
    np.testing.assert_allclose(intercepts, 0.0, atol=1e-9)
    assert error < 1e-9
    slopes, _, error = experiments.fit_maxout(experiments.MAXOUT_TARGETS["ReLU"], 2)
    np.testing.assert_allclose(slopes, [0.0, 1.0], atol=1e-9)
    assert error < 1e-9


@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_the_error_on_a_parabola_is_near_the_best_possible(pieces: int) -> None:
    # A line on an interval of length L misses x² by L²/(6 sqrt(5)) at best (root mean square).
    _, _, error = experiments.fit_maxout(np.square, pieces, reach=2.0, points=1001)
    assert error == pytest.approx((4.0 / pieces) ** 2 / (6.0 * np.sqrt(5.0)), rel=0.05)


def test_a_function_that_is_not_convex_stays_out_of_reach() -> None:
    _, _, few = experiments.fit_maxout(np.tanh, 2, reach=3.0)
    _, _, many = experiments.fit_maxout(np.tanh, 5, reach=3.0)
    assert many <= few + 1e-6
    assert many > 0.1


def test_impossible_fits_are_explained() -> None:
    with pytest.raises(UsageError, match="0 pieces, 201 points: at least"):
        experiments.fit_maxout(np.square, 0)
    with pytest.raises(UsageError, match="two points a piece"):
        experiments.fit_maxout(np.square, 5, points=9)


def test_learned_maxout_holds_targets_and_fits() -> None:
    curves, lines = experiments.learned_maxout({"x²": (2, 3)}, reach=1.0)
    assert curves["pieces"].unique().tolist() == [0, 2, 3]
    assert lines.groupby("pieces").size().to_dict() == {2: 2, 3: 3}
    fit = curves[curves["pieces"] == 3]
    pieces = lines[lines["pieces"] == 3]
    each: Any = pieces.itertuples()
    expected = np.max([p.slope * fit["x"] + p.intercept for p in each], axis=0)
    np.testing.assert_allclose(fit["y"], expected)
