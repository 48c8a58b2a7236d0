"""Dead channels add nothing to a layer; what is not finite is left out and counted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_analysis.moments.frames import moment_frame
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.differences import compare_layers
from acon_analysis.statistics.linearity import channel_table, layer_table, sample_table

ULP = float(np.finfo(np.float32).eps)


def blocks_of(x: FloatArray, y: FloatArray, layer: str = "l") -> pd.DataFrame:
    """Moments of (N, C, P), a block a sample."""
    frames = [
        moment_frame(x[s : s + 1], y[s : s + 1], layer).assign(block=s) for s in range(len(x))
    ]
    return pd.concat(frames, ignore_index=True)


def rounded(rng: np.random.Generator, size: float, shape: tuple[int, ...]) -> FloatArray:
    """A constant but for the last bits of float32."""
    return np.asarray(size * (1 + ULP * rng.integers(-2, 3, shape)), dtype=np.float64)


@given(
    st.floats(-30, 30).map(lambda e: 10.0**e),
    st.floats(-30, 30).map(lambda e: 10.0**e),
    st.integers(1, 5),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_dead_channels_change_nothing_in_their_layer(
    size: float, dead_size: float, dead: int, varies: bool
) -> None:
    rng = np.random.default_rng(dead)
    x = size * rng.standard_normal((6, 3 + dead, 20))
    x[:, 3:] = x[:, 3:] if varies else dead_size
    y = np.maximum(x, 0)
    y[:, 3:] = rounded(rng, dead_size, y[:, 3:].shape)
    alive = layer_table(blocks_of(x[:, :3], y[:, :3])).iloc[0]
    both, channels = layer_table(blocks_of(x, y)).iloc[0], channel_table(blocks_of(x, y))
    for name in ("L", "L_low", "L_high", "L_error", "nonlinearity", "sse", "cyy", "L_own", "gap"):
        assert both[name] == pytest.approx(alive[name], rel=1e-9, abs=1e-300), name
    assert channels["dead"].tolist() == [False] * 3 + [True] * dead
    assert channels["s_c"].tolist()[3:] == [0] * dead
    assert (channels["L"][3:] == 1).all()
    assert both["dead"] == dead
    # against numpy alone
    flat_x, flat_y = (v[:, :3].transpose(1, 0, 2).reshape(3, -1) / size for v in (x, y))
    rest = [
        np.linalg.lstsq(np.stack([a, np.ones_like(a)], 1), b, rcond=None)[1][0]
        for a, b in zip(flat_x, flat_y, strict=True)
    ]
    assert both["nonlinearity"] == pytest.approx(sum(rest) / (120 * flat_y.var(1)).sum(), rel=1e-9)


def test_a_layer_of_dead_channels_is_dead() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4, 20))
    table = blocks_of(x, rounded(rng, 0.5, x.shape))
    row = layer_table(table).iloc[0]
    assert (row["L"], row["L_low"], row["L_high"], row["sse"], row["cyy"]) == (1, 1, 1, 0, 0)
    assert row["dead"] == row["channels"] == 4
    assert row["why"] == "dead: 4 channels: all dead (the output does not vary)"
    other = blocks_of(x, np.abs(x))
    found = compare_layers(table, other, paired=True).set_index("quantity")
    assert found.loc["L", "first"] == 1
    # a deviation beyond float32's rounding is an output, however small
    alive = layer_table(blocks_of(x, 0.5 + 1e-5 * np.abs(x))).iloc[0]
    assert alive["dead"] == 0
    assert alive["L"] < 0.2


def test_the_arithmetic_of_the_network_decides_what_is_rounding() -> None:
    x = np.random.default_rng(0).standard_normal((6, 1, 20))
    moments = blocks_of(x, 1 + 1e-3 * x)
    assert channel_table(moments)["dead"].tolist() == [False]
    assert channel_table(moments, eps=2.0**-7)["dead"].tolist() == [True]  # bfloat16


def test_a_channel_without_numbers_leaves_the_others_their_layer() -> None:
    """As in runs that were captured before samples were left out."""
    x = np.random.default_rng(0).standard_normal((6, 3, 20))
    moments = blocks_of(x, np.maximum(x, 0))
    lost = (moments["channel"] == 1) & (moments["block"] == 4)
    moments.loc[lost, ["mean_x", "mean_y", "cxx", "cxy", "cyy"]] = np.nan
    channels = channel_table(moments)
    assert channels["cause"][1] == "not_finite"
    row = layer_table(moments).iloc[0]
    expected = layer_table(blocks_of(x[:, [0, 2]], np.maximum(x[:, [0, 2]], 0))).iloc[0]
    assert row["L"] == pytest.approx(expected["L"], abs=1e-14)
    assert "1 with NaN or infinity" in row["why"]


def test_samples_left_out_are_counted_and_a_layer_without_others_is_not_measurable() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2, 20))
    moments = blocks_of(x, np.maximum(x, 0)).assign(n_left_out=0)
    lost = moments["block"].isin([2, 3])
    none: dict[str, float] = dict.fromkeys(
        ("n", "mean_x", "mean_y", "cxx", "cxy", "cyy", "n_positive"), 0
    )
    none |= {"n_samples": 0, "sse_within": 0, "n_left_out": 1, "min_x": np.inf, "max_x": -np.inf}
    some = moments.copy()
    some.loc[lost, list(none)] = list(none.values())
    row, kept = layer_table(some).iloc[0], [0, 1, 4, 5]
    assert (row["left_out"], row["n_samples"]) == (2, 4)
    expected = layer_table(blocks_of(x[kept], np.maximum(x[kept], 0))).iloc[0]
    for name in ("L", "L_low", "L_high", "L_error"):
        assert row[name] == pytest.approx(expected[name], abs=1e-13)
    assert row["why"].endswith("; 2 of 6 samples left out (NaN or infinity)")
    void = layer_table(moments.assign(**none)).iloc[0]
    assert np.isnan(void[["L", "L_low", "sse", "cyy"]].to_numpy(float)).all()
    assert void["why"] == (
        "not measurable: 2 channels: all with NaN or infinity; 6 of 6 samples left out "
        "(NaN or infinity)"
    )


def test_samples_without_a_varying_output_and_without_numbers() -> None:
    totals = pd.DataFrame(
        {"sample": range(4), "layer": "l", "call": 0, "channels": 2, "n": [20, 20, 20, 2],
         "cyy": [2.0, 0.0, np.nan, 0.0], "sse": [0.5, 0.0, np.nan, 0.0]}
    )  # fmt: skip
    table = sample_table(totals)
    np.testing.assert_array_equal(table["L"], [0.75, 1, np.nan, np.nan])
    assert table["dead"].tolist() == [False, True, False, False]  # one value says nothing
    assert table["left_out"].tolist() == [False, False, True, False]
