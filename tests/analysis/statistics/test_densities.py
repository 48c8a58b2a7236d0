from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given as given_values
from hypothesis import settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde

from acon_analysis.errors import AconError, UsageError
from acon_analysis.statistics import beta_densities as densities
from acon_analysis.statistics.beta_densities import beta_densities, histogram_bars, kernel_density

GRID = np.linspace(0.0, 1.0, 2001)


def betas(samples: int = 12, channels: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    parts = []
    for sample in range(samples):
        for layer in ("a", "b.act"):
            value = rng.beta(2.0 + sample, 5.0, channels)
            columns = {"sample": sample * 10, "layer": layer, "call": 0, "beta": value}
            parts.append(pd.DataFrame({**columns, "channel": np.arange(channels)}))
    return pd.concat(parts, ignore_index=True)


@given_values(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_reflected_density_has_area_one(values: list[float]) -> None:
    density = kernel_density(values, GRID)
    assert np.trapezoid(density, GRID) == pytest.approx(1.0, abs=2e-3)
    assert (density >= 0.0).all()


@pytest.mark.parametrize("width", [0.02, 0.3, 5.0])
def test_reflection_folds_every_kernel_back_even_wide_ones(width: float) -> None:
    density = kernel_density([0.01, 0.4, 1.0], GRID, bandwidth=width)
    assert np.trapezoid(density, GRID) == pytest.approx(1.0, abs=1e-4)


def test_without_bounds_it_is_scotts_estimate_of_scipy() -> None:
    values = np.random.default_rng(0).beta(2, 3, 200)
    at = np.linspace(-0.5, 1.5, 101)
    ours = kernel_density(values, at, bounds=None)
    np.testing.assert_allclose(ours, gaussian_kde(values, "scott")(at), rtol=1e-10, atol=1e-14)


def test_reflected_density_is_the_plain_one_plus_its_mirror_images() -> None:
    values = np.random.default_rng(0).beta(1, 3, 100)
    width = densities.scott_bandwidth(values)
    plain = gaussian_kde(values, "scott")
    expected = plain(GRID) + plain(-GRID) + plain(2.0 - GRID)
    np.testing.assert_allclose(kernel_density(values, GRID, bandwidth=width), expected, rtol=1e-6)


def test_density_is_zero_outside_the_bounds() -> None:
    assert kernel_density([0.01], [-0.001, 1.001]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3, 0.3]])
def test_constant_input_and_one_value_give_a_bump_of_the_smallest_width(
    values: list[float],
) -> None:
    assert densities.scott_bandwidth(values) == densities.MIN_BANDWIDTH
    density = kernel_density(values, GRID)
    assert GRID[density.argmax()] == pytest.approx(0.3)
    bars = histogram_bars(values)
    assert bars["count"].tolist() == [len(values)]
    assert bars["left"].item() == pytest.approx(0.29)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_density([], GRID), "no values"),
        (lambda: kernel_density([0.1, np.nan, np.inf], GRID), "NaN or infinity in 2 of 3 values"),
        (lambda: kernel_density([0.5, 1.2], GRID), "0.5 to 1.2 leave the bounds"),
        (lambda: kernel_density([0.5], GRID, bandwidth=0.0), "bandwidth must be positive"),
        (lambda: histogram_bars([np.nan]), "NaN or infinity in 1 of 1 value"),
    ],
)
def test_bad_numbers_are_explained(call: Callable[[], object], message: str) -> None:
    with pytest.raises(AconError, match=message):
        call()


def test_bars_are_counts_and_densities_with_area_one() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, 500)
    bars = histogram_bars(values)
    breadth = bars["right"] - bars["left"]
    assert bars["count"].sum() == 500
    assert (bars["density"] * breadth).sum() == pytest.approx(1.0)
    expected, _ = np.histogram(values, np.append(bars["left"], bars["right"].iloc[-1]))
    assert bars["count"].tolist() == expected.tolist()
    fd = 2 * np.subtract(*np.percentile(values, [75, 25])) / 500 ** (1 / 3)
    assert breadth.iloc[0] <= fd < breadth.iloc[0] * 1.1


def test_half_equal_values_and_outliers_stay_within_the_number_of_bins() -> None:
    assert len(histogram_bars([1.0] * 90 + [0.0] * 10)) == 10
    assert len(histogram_bars(np.append(np.linspace(0, 1, 99), 1e6))) == densities.MAX_BINS


def test_the_last_layer_and_seeded_samples_by_default() -> None:
    data = beta_densities(betas())
    assert data.layer == "b.act"
    assert len(data.samples) == 7
    assert data.samples == tuple(sorted(data.samples))
    assert data.samples == beta_densities(betas()).samples
    assert data.samples != beta_densities(betas(), seed=5).samples
    assert data.groups["channels"].tolist() == [40] * 7
    counts = data.curves.groupby("sample")["x"].size()
    assert set(counts.index) == set(data.samples)


def test_fewer_samples_than_asked_are_all_taken() -> None:
    assert beta_densities(betas(samples=3)).samples == (0, 10, 20)


def test_given_samples_keep_their_order_and_each_curve_is_that_samples() -> None:
    frame = betas()
    data = beta_densities(frame, "a", samples=[50, 20, 50])
    assert data.samples == (50, 20)
    for sample in data.samples:
        curve = data.curves[data.curves["sample"] == sample]
        values = frame.query("layer == 'a' and sample == @sample")["beta"]
        np.testing.assert_allclose(curve["density"], kernel_density(values, curve["x"]))
        assert curve["x"].iloc[[0, -1]].tolist() == [0.0, 1.0]


def test_row_order_does_not_matter() -> None:
    frame = betas()
    shuffled = frame[frame["layer"] == "b.act"].sample(frac=1.0, random_state=1)
    one, other = beta_densities(frame).curves, beta_densities(shuffled).curves
    np.testing.assert_allclose(one["density"], other["density"], rtol=1e-12)


def test_as_published_spills_over_and_the_default_does_not() -> None:
    frame = betas()
    spilled = beta_densities(frame, as_published=True)
    assert spilled.curves["x"].min() < 0.0
    assert not spilled.groups["reflected"].any()
    for sample in spilled.samples:
        curve = spilled.curves[spilled.curves["sample"] == sample]
        inside = curve["x"].between(0.0, 1.0)
        assert np.trapezoid(curve["density"], curve["x"]) == pytest.approx(1.0, abs=5e-3)
        assert np.trapezoid(curve["density"][inside], curve["x"][inside]) < 0.99999
    kept = beta_densities(frame)
    assert kept.groups["reflected"].all()
    assert kept.curves["x"].between(0.0, 1.0).all()


def test_static_betas_beyond_one_are_not_reflected_and_their_share_is_told() -> None:
    static = pd.DataFrame({"layer": "b.act", "channel": range(4), "beta": [0.2, 0.9, 1.1, -0.3]})
    data = beta_densities(betas(), static=static)
    row = data.groups[data.groups["source"] == "static"].iloc[0]
    assert not row["reflected"]
    assert row["outside"] == 0.5
    curve = data.curves[data.curves["source"] == "static"]
    assert np.trapezoid(curve["density"], curve["x"]) == pytest.approx(1.0, abs=5e-3)
    assert data.bars["count"].sum() == 4


def test_static_betas_inside_are_reflected_and_repeated_rows_count_once() -> None:
    static = pd.DataFrame({"layer": "b.act", "channel": [0, 1, 2] * 5, "beta": [0.2, 0.9, 0.3] * 5})
    data = beta_densities(betas(), static=static)
    row = data.groups[data.groups["source"] == "static"].iloc[0]
    assert row["reflected"]
    assert row["channels"] == 3


def test_the_batchnorm_null_is_the_density_of_sigmoids_of_normal_numbers() -> None:
    rng = np.random.default_rng(0)
    weight, bias = np.array([1.0, -0.5, 2.0]), np.array([0.0, 1.0, -0.5])
    norm = {"bn_weight": weight, "bn_bias": bias}
    channels = pd.DataFrame({"layer": "b.act", "channel": range(3), **norm})
    density = densities.batchnorm_null(channels, "b.act", GRID)
    assert np.trapezoid(density, GRID) == pytest.approx(1.0, abs=1e-4)
    drawn = 1 / (1 + np.exp(-(rng.standard_normal((200_000, 3)) * weight + bias)))
    share, edges = np.histogram(drawn, bins=20, range=(0.0, 1.0), density=True)
    for left, right, height in zip(edges[:-1], edges[1:], share, strict=True):
        inside = (left <= GRID) & (right >= GRID)
        assert density[inside].mean() == pytest.approx(height, abs=0.03)
    data = beta_densities(betas(), null=channels)
    assert (data.curves["source"] == "null").sum() == 401


def test_a_layer_used_twice_shows_its_last_call() -> None:
    frame = betas()
    again = frame.assign(call=1, beta=frame["beta"] / 2.0)
    both = pd.concat([frame, again], ignore_index=True)
    last = beta_densities(both)
    first = beta_densities(both, call=0)
    assert last.groups["mean"].tolist() == pytest.approx((first.groups["mean"] / 2).tolist())
    with pytest.raises(UsageError, match=r"no call 7; its calls are \[0, 1\]"):
        beta_densities(both, call=7)


def test_inputs_are_left_alone() -> None:
    frame = betas()
    before = frame.copy()
    beta_densities(frame, static=frame[frame["sample"] == 0].drop(columns="sample"))
    pd.testing.assert_frame_equal(frame, before)


BAD_NULL = pd.DataFrame({"layer": ["b.act"], "bn_weight": np.nan, "bn_bias": 0.0})
OTHER_STATIC = pd.DataFrame({"layer": ["x", "bact"], "channel": 0, "beta": 1.0})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"frame": betas().iloc[:0]}, AconError, "no rows"),
        (
            {"frame": betas().drop(columns=["beta", "layer"])},
            AconError,
            "lacks the columns layer, beta; it has sample",
        ),
        ({"layer": "b.akt"}, UsageError, "no layer 'b.akt'; did you mean 'b.act'"),
        (
            {"samples": [10, 13]},
            UsageError,
            "sample 13 is not in the frame: it holds 12 samples from 0 to 110, the nearest is 10",
        ),
        ({"samples": 0}, UsageError, "at least 1; it is 0"),
        ({"samples": []}, UsageError, "samples is empty"),
        (
            {"frame": betas().assign(beta=np.nan)},
            AconError,
            "NaN or infinite in 280 of 280 rows of layer 'b.act', first at sample",
        ),
        ({"static": betas()[["layer", "channel", "beta"]]}, AconError, "several β for one channel"),
        ({"static": OTHER_STATIC}, UsageError, "did you mean 'bact'"),
        ({"null": BAD_NULL}, AconError, "no BatchNorm"),
    ],
)
def test_wrong_frames_and_names_are_explained(
    given: dict[str, Any], error: type[AconError], message: str
) -> None:
    with pytest.raises(error, match=message):
        beta_densities(**{"frame": betas(), **given})
