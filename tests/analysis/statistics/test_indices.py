"""Tables of linearity: by channel, layer and sample, with causes in words."""

import numpy as np
import pandas as pd
import pytest

from acon_analysis import family
from acon_analysis.columns import (
    LINEARITY_CHANNEL_COLUMNS,
    LINEARITY_LAYER_COLUMNS,
    LINEARITY_SAMPLE_COLUMNS,
    dtypes,
    names,
)
from acon_analysis.errors import AconError
from acon_analysis.family import derivative_bounds, derivative_range
from acon_analysis.moments.state import FloatArray
from acon_analysis.runs.run import Run
from acon_analysis.statistics import channel_sums
from acon_analysis.statistics.causes import CAUSES, layer_sentence
from acon_analysis.statistics.linearity import channel_table, layer_table, linearity, sample_table
from moment_oracle import acon_parts, from_samples, sample_totals
from synthetic_layers import Z, acon_layer, plain_layer, random_layer


def test_channel_table_against_arrays() -> None:
    rng = np.random.default_rng(0)
    layer = random_layer()
    table = channel_table(layer.moments, layer.channels)
    assert list(table.columns) == names(LINEARITY_CHANNEL_COLUMNS)
    for name, dtype in dtypes(LINEARITY_CHANNEL_COLUMNS).items():
        assert str(table[name].dtype) == dtype, name
    x = rng.standard_normal((40, 3, 25)) + rng.standard_normal((40, 3, 1))
    for c in range(3):
        flat_x, flat_y = x[:, c].ravel(), layer.y[:, c].ravel()
        direct = linearity(flat_x, flat_y)
        row = table.iloc[c]
        assert row["L"] == pytest.approx(direct.L, abs=1e-12)
        assert row["sse"] == pytest.approx(direct.sse, rel=1e-10)
        assert row["slope"] == pytest.approx(direct.slope, rel=1e-10)
        assert row["intercept"] == pytest.approx(direct.intercept, rel=1e-9, abs=1e-12)
        own = sum(linearity(x[s, c], layer.y[s, c]).sse for s in range(40))
        assert row["L_own"] == pytest.approx(1 - own / row["cyy"], abs=1e-12)
        assert row["nu"] == pytest.approx(flat_x.mean() / flat_x.std(), rel=1e-10)
        assert row["positive"] == (flat_x > 0).mean()
        d = layer.channels["p1"][c] - layer.channels["p2"][c]
        kappa = abs(row["beta_mean"] * d) * flat_x.std()
        assert row["kappa"] == pytest.approx(kappa, rel=1e-10)
        assert row["L_low"] < row["L"] < row["L_high"]
        low, high = derivative_bounds(layer.channels["p1"][c], layer.channels["p2"][c], 1.0)
        assert (row["slope_min"], row["slope_max"]) == pytest.approx((float(low), float(high)))
        assert low - 1e-12 <= row["slope_low"] <= row["slope_high"] <= high + 1e-12
    assert table["s_c"].sum() == pytest.approx(1 - layer_table(layer.moments)["L"][0])


def test_layer_table_is_the_ratio_of_sums() -> None:
    layer = random_layer()
    table = channel_table(layer.moments, layer.channels)
    row = layer_table(layer.moments, layer.channels).iloc[0]
    assert list(row.index) == names(LINEARITY_LAYER_COLUMNS)
    assert row["L"] == pytest.approx(1 - table["sse"].sum() / table["cyy"].sum())
    assert row["G"] == pytest.approx(table["G"].mean())
    assert row["kappa"] == table["kappa"].median()
    assert row["slope_max"] == table["slope_max"].max()
    weights = table["cyy"] / table["cyy"].sum()
    assert row["L_gauss"] == pytest.approx((table["L_gauss"] * weights).sum())
    assert (row["channels"], row["n"], row["n_samples"]) == (3, 3000, 40)
    assert row["L_error"] < 0.1
    assert row["L_low"] < row["L"] < row["L_high"]


def test_merging_units_and_blocks_changes_nothing() -> None:
    layer = random_layer()
    halves = [layer.moments.iloc[::2], layer.moments.iloc[1::2]]
    shuffled = pd.concat(halves[::-1], ignore_index=True)
    a = channel_table(layer.moments, layer.channels)
    b = channel_table(shuffled, layer.channels)
    numbers = a.select_dtypes("number").columns
    np.testing.assert_allclose(a[numbers], b[numbers], rtol=1e-9, atol=1e-12)
    no_blocks = channel_table(layer.moments.drop(columns=["block", "call"]), layer.channels)
    np.testing.assert_allclose(no_blocks["L"], a["L"], rtol=1e-12)
    assert no_blocks["L_error"].isna().all()
    assert no_blocks["L_low"].isna().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_summed_in_pieces_as_all_at_once(
    channels: int, digits_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = digits_run.moments.query("channel < 4 and block < 7").sample(frac=0.9, random_state=0)
    whole = [table(moments, digits_run.parameters) for table in (layer_table, channel_table)]
    monkeypatch.setattr(channel_sums, "_PIECE", channels)
    for table, expected in zip((layer_table, channel_table), whole, strict=True):
        pd.testing.assert_frame_equal(
            table(moments, digits_run.parameters), expected, check_exact=True
        )


def test_own_fits_need_the_global_denominator() -> None:
    """Samples N(0, 1) and N(20, 1) through ReLU: 0.932; summing the samples' ratios says 0.998."""
    x = np.stack([Z, Z + 20])[:, None, :]
    row = layer_table(plain_layer(x, np.maximum(x, 0), blocks=2)).iloc[0]
    state = from_samples(x, np.maximum(x, 0))
    own = 1 - (state["cyy"] - state["cxy"] ** 2 / state["cxx"]).sum() / state["cyy"].sum()
    assert own == pytest.approx(0.9321, abs=3e-4)
    assert row["L"] == pytest.approx(0.998, abs=5e-4)
    assert own < row["L"] < row["L_own"]


def test_gap_exists_at_constant_beta() -> None:
    """Two groups of samples, N(-1, 1) and N(1, 1), through ReLU: L_own 0.9345, L 0.758."""
    x = np.stack([Z - 1, Z + 1])[:, None, :]
    row = layer_table(plain_layer(x, np.maximum(x, 0), blocks=2)).iloc[0]
    assert row["L_own"] == pytest.approx(0.9345, abs=1e-3)
    assert row["L"] == pytest.approx(0.758, abs=1e-3)


def test_counterfactual_isolates_what_a_varying_beta_adds() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((60, 2, 30)) + rng.standard_normal((60, 2, 1))
    constant = acon_layer(x, [1, 1], [0, 0.25], np.full((60, 2), 0.5))
    row = layer_table(constant.moments, constant.channels).iloc[0]
    assert row["gap"] > 0.01
    assert row["beta_gain"] == pytest.approx(0, abs=1e-12)
    assert row["L_reference"] == pytest.approx(row["L"], abs=1e-12)
    varying = acon_layer(x, [1, 1], [0, 0.25], rng.choice([-1.5, 2.5], (60, 2)))
    row = layer_table(varying.moments, varying.channels).iloc[0]
    assert row["beta_gain"] > 5 * row["beta_gain_error"] > 0
    y0 = acon_parts(x, np.array([[1], [1]]), np.array([[0], [0.25]]), 0.5).output
    parts = [linearity(x[:, c].ravel(), y0[:, c].ravel()) for c in range(2)]
    bend = sum(p.sse for p in parts) / (y0.var(axis=(0, 2)) * 1800).sum()
    assert row["L_reference"] == pytest.approx(1 - bend, abs=1e-12)


def test_gap_is_never_negative() -> None:
    for seed in range(8):
        table = channel_table(random_layer(seed, samples=5).moments)
        assert (table["gap"] >= 0).all()


def test_known_values_through_the_tables() -> None:
    x = np.repeat(Z[None, None, :], 5, axis=1).repeat(2, axis=0)
    layer = acon_layer(x, [1, 1, 1, 1.2, 1], [0, 0, 0.25, -0.8, -1], 1.0)
    table = channel_table(layer.moments, layer.channels)
    np.testing.assert_allclose(table["L"], table["L_gauss"], atol=2e-3)
    assert table["L"][0] == pytest.approx(0.7985, abs=2e-3)
    assert table["L"][4] == pytest.approx(0, abs=1e-6)
    assert table["rho"][4] == np.inf
    assert table["L_gauss"][4] == pytest.approx(0, abs=1e-12)
    assert table["beta_std"].tolist() == [0] * 5


def test_offset_gates() -> None:
    for beta, expected in {0.1: 0.0024, 0.5: 0.0235, 1.0: 0.0188, 2.0: 0.0074}.items():
        layer = acon_layer((Z + 3)[None, None, :], [1], [0], beta)
        assert channel_table(layer.moments)["G"][0] == pytest.approx(expected, abs=1e-4)


def test_symmetry_and_scale() -> None:
    """Swapping p1 and p2 changes nothing; (c·p1, c·p2, β/c) gives c·f: same L, G, κ."""
    x = (Z + 0.5).reshape(64, 1, 64)
    tables = [
        channel_table(layer.moments, layer.channels).iloc[0]
        for layer in (
            acon_layer(x, [1.2], [-0.8], 0.7),
            acon_layer(x, [-0.8], [1.2], 0.7),
            acon_layer(x, [3.6], [-2.4], 0.7 / 3, reference=0.5 / 3),
        )
    ]
    for name in ("L", "G", "kappa", "s_c", "L_gauss", "L_own", "L_reference"):
        for other in tables[1:]:
            assert other[name] == pytest.approx(tables[0][name], rel=1e-10), name
    assert tables[1]["rho"] == -tables[0]["rho"]
    for beta in (-0.7, 0.7):
        layer = acon_layer(x, [1.2], [-0.8], beta)
        row = channel_table(layer.moments, layer.channels).iloc[0]
        fits = linearity(x.ravel(), layer.y.ravel())
        assert row["L"] == pytest.approx(fits.L, abs=1e-12)
        assert row["L_gauss"] == pytest.approx(row["L"], abs=2e-3)
        low, high = derivative_range(1.2, -0.8, beta, x.min(), x.max())
        assert (row["slope_low"], row["slope_high"]) == pytest.approx((float(low), float(high)))


def test_static_beta_without_stored_argument_uses_the_inputs_range() -> None:
    x = np.random.default_rng(4).standard_normal((20, 2, 30))
    layer = acon_layer(x, [1.2, 1], [-0.8, 1], 0.3)
    bare = layer.moments.drop(columns=["min_u", "max_u", "mean_beta", "cbb"])
    a = channel_table(layer.moments, layer.channels)
    b = channel_table(bare, layer.channels)
    for name in ("slope_low", "slope_high", "kappa", "beta_mean"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-10)


def test_each_cause() -> None:
    rng = np.random.default_rng(6)
    z = rng.standard_normal((50, 1, 50))

    def cause(x: FloatArray, p1: float, p2: float, beta: FloatArray | float) -> tuple[str, str]:
        layer = acon_layer(x, [p1], [p2], beta, reference=1.0)
        row = channel_table(layer.moments, layer.channels).iloc[0]
        return row["cause"], row["why"]

    assert cause(z + 2.8, 1, 0.5, 3.0) == (
        "positive",
        f"linear because its inputs are positive in {(z > -2.8).mean() * 100:.1f} %",
    )
    negative = (z <= 2.8).mean() * 100
    assert cause(z - 2.8, 1, 0.5, 3.0) == (
        "negative",
        f"linear because its inputs are negative in {negative:.1f} %",
    )
    assert cause(0.1 * z, 1, 0, 1.0)[0] == "small_gain"
    assert cause(z, 1, 0, 1.0)[0] == "switching"
    assert cause(z, 1, 0.8, 5.0)[0] == "equal_slopes"
    assert cause(z, 1.2, -0.8, 1.0)[0] == "cancelling"
    assert cause(0 * z + 0.3, 1, 0, 1.0)[0] == "constant_input"
    assert cause(z, 0, 0, 1.0)[0] == "dead"
    assert cause(z + 1.2, 1, 0.6, 2.0)[0] == "combined"
    varied = cause(z + 3, 1, 0, rng.uniform(0.1, 2, (50, 1)))
    assert varied[0] == "varying_beta"
    assert "only because its β differs between samples" in varied[1]
    assert cause(z * np.nan, 1, 0, 1.0)[0] == "not_finite"


def test_any_elementwise_activation() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((40, 3, 30)).astype(np.float32).astype(np.float64)
    x[:, 1] += 5
    x[:, 2] -= 20
    moments = plain_layer(x, np.maximum(x, 0))
    table = channel_table(moments)
    assert table["L"][0] == pytest.approx(0.7335, abs=0.03)
    assert table[["kappa", "rho", "G", "L_gauss", "slope_min", "L_reference"]].isna().all().all()
    assert table["cause"].tolist() == ["nonlinear", "linear", "dead"]
    assert table["dead"].tolist() == [False, False, True]
    assert table["L"][2] == 1
    row = layer_table(moments).iloc[0]
    assert row["why"].startswith("3 channels: 1 ")
    assert (row["dead"], row["linear"]) == (1, 2)
    assert np.isnan(row["G"])


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("ReLU", "dead", "positive"),
        ("leaky_relu_", "negative", "positive"),
        ("ELU", "linear", "positive"),
        ("Sigmoid", "linear", "linear"),
        ("SomebodysOwn", "linear", "linear"),
    ],
)
def test_inputs_on_one_side_of_0_explain_a_line_only_where_the_function_is_one(
    name: str, left: str, right: str
) -> None:
    """A sigmoid of -0.33 to -0.31 is nearly a line because of its range, not of its sign."""
    x = np.random.default_rng(7).uniform(0.31, 0.33, (20, 2, 30))
    x[:, 0] *= -1
    y = family.get("sigmoid" if name == "SomebodysOwn" else name)(x)
    layers = pd.DataFrame({"layer": ["act"], "call": 0, "class_name": name})
    table = channel_table(channel_sums.channel_sums(plain_layer(x, y, "act")).of_classes(layers))
    assert (table["L"] > 0.99).all()
    assert table["cause"].tolist() == [left, right]
    if left == "linear":
        assert table["why"][0] == "linear over the range of its inputs (-0.33 to -0.31)"


def test_a_sigmoid_far_out_is_saturated() -> None:
    # Its slope is 1/4 at 0, 0.0066 at 5, 0.105 at 2.
    spans = ((5.0, 12.0), (-12.0, -5.0), (2.0, 12.0), (-4.0, 12.0))
    rng = np.random.default_rng(7)
    x = np.stack([rng.uniform(*span, (20, 30)) for span in spans], axis=1)
    layers = pd.DataFrame({"layer": ["act"], "call": 0, "class_name": "Sigmoid"})
    sums = channel_sums.channel_sums(plain_layer(x, family.sigmoid(x), "act")).of_classes(layers)
    table = channel_table(sums)
    assert (table["L"] < 0.9).all()
    assert table["cause"].tolist() == ["saturated", "saturated", "nonlinear", "nonlinear"]
    ends = f"{x[:, 0].min():.3g} to {x[:, 0].max():.3g}"
    assert table["why"][0] == (
        f"saturated: no slope over its inputs ({ends}) is 5 % of the steepest"
    )
    assert "2 saturated (nearly flat where their inputs lie)" in layer_table(sums)["why"][0]


def test_dead_output_is_judged_by_the_parameters() -> None:
    """(1, -1) with a vanishing β: y is rounding of x·p, dead; (1, -1) with β = 0.1: L = 0."""
    x = np.random.default_rng(8).standard_normal((20, 2, 50))
    layer = acon_layer(x, [1, 1], [-1, -1], np.repeat([[1e-8, 0.1]], 20, axis=0))
    table = channel_table(layer.moments, layer.channels)
    assert table["dead"].tolist() == [True, False]
    assert table["L"].tolist() == [1, pytest.approx(0, abs=0.02)]
    assert table["L_error"][0] == 0


def test_nearly_linear_keeps_its_digits() -> None:
    x = np.random.default_rng(9).standard_normal((20, 1, 50))
    layer = acon_layer(x, [1], [0.25], 1e-9)
    row = channel_table(layer.moments, layer.channels).iloc[0]
    assert row["nonlinearity"] == pytest.approx((0.6 * 0.75e-9) ** 2 / 2, rel=0.2, abs=0)
    assert row["L"] == 1
    assert row["cause"] == "small_gain"
    assert row["gate_constant"]


def test_values_without_spread_inside_samples() -> None:
    """Fully connected layers: one value a sample; own fits are exact and say nothing."""
    rng = np.random.default_rng(10)
    x = rng.standard_normal((50, 4, 1))
    table = channel_table(plain_layer(x, np.maximum(x, 0)))
    assert table["L_own"].isna().all()
    assert table["gap"].isna().all()
    assert table["L"].between(0.4, 0.95).all()


def test_two_layers_and_calls_stay_apart() -> None:
    a = random_layer(0, name="z.first")
    relu = plain_layer(np.ones((4, 2, 3)) * np.arange(3), np.ones((4, 2, 3)), name="a.second")
    again = a.moments.assign(call=1)
    both = pd.concat([a.moments, again, relu], ignore_index=True)
    layers = layer_table(both, a.channels)
    assert layers["layer"].tolist() == ["z.first", "z.first", "a.second"]
    assert layers["call"].tolist() == [0, 1, 0]
    assert layers["channels"].tolist() == [3, 3, 2]
    assert layers["L"][0] == pytest.approx(layers["L"][1], abs=1e-14)
    assert layers["rho"].isna().tolist() == [False, False, True]


def test_sample_table() -> None:
    layer = random_layer()
    p1, p2 = layer.channels["p1"].to_numpy(), layer.channels["p2"].to_numpy()
    totals = sample_totals(
        layer.state, np.arange(40), layer="l", p1=p1, p2=p2, beta=np.full((40, 3), 0.5)
    )
    table = sample_table(totals)
    assert list(table.columns) == names(LINEARITY_SAMPLE_COLUMNS)
    state = layer.state
    sse = state["cyy"] - state["cxy"] ** 2 / state["cxx"]
    expected = 1 - sse.sum(1) / state["cyy"].sum(1)
    np.testing.assert_allclose(table["L"], expected, rtol=1e-10)
    assert table["L_reference"].between(0, 1).all()
    dead = sample_table(totals.assign(cyy=0.0, sse=0.0))
    assert dead["dead"].all()
    assert (dead["L"] == 1).all()
    assert sample_table(totals.assign(n=6))["L"].isna().all()
    with pytest.raises(AconError, match="sample totals lacks the column sse; it has sample, layer"):
        sample_table(totals.drop(columns="sse"))


def test_a_unit_without_data() -> None:
    layer = random_layer()
    neutral = {"n": 0, "cxx": 0.0, "cyy": 0.0, "cxy": 0.0, "cee": 0.0, "cxe": 0.0}
    neutral |= {"min_x": np.inf, "max_x": -np.inf, "min_u": np.inf, "max_u": -np.inf}
    neutral |= {"n_positive": 0, "n_samples": 0, "sse_within": 0.0}
    void = layer.moments[layer.moments["channel"] == 0].assign(**neutral)
    both = pd.concat([void, layer.moments[layer.moments["channel"] > 0]], ignore_index=True)
    table = channel_table(both, layer.channels)
    assert table["cause"].tolist()[0] == "empty"
    unknown = ["L", "L_low", "L_error", "slope", "std_x", "min_x", "nu", "L_own", "slope_low"]
    assert table.loc[0, unknown].isna().all()
    assert table["L"].isna().tolist() == [True, False, False]
    assert not table["dead"][0]
    assert not np.isnan(layer_table(both, layer.channels)["L"][0])


def test_errors_of_tables() -> None:
    layer = random_layer()
    with pytest.raises(AconError, match="there are no moments: the table has no rows"):
        layer_table(layer.moments.iloc[:0])
    with pytest.raises(AconError, match="lacks the column channel; it has"):
        channel_table(layer.moments.drop(columns="channel"))
    twice = pd.concat([layer.channels, layer.channels])
    with pytest.raises(AconError, match=r"several rows for layer 'layer4.2.acon', channel 0"):
        channel_table(layer.moments, twice)
    with pytest.raises(AconError, match="the table of channels lacks the column channel"):
        channel_table(layer.moments, layer.channels.drop(columns="channel"))


def test_sentence_of_a_layer() -> None:
    text = layer_sentence(["equal_slopes", "dead", "equal_slopes"], 0.999)
    assert text == "3 channels: 2 linear because p1≈p2, 1 dead (the output does not vary)"
    assert layer_sentence(["nonlinear"] * 64, 0.98) == "64 channels: all nonlinear"
    assert layer_sentence(list(CAUSES), np.nan).startswith("not measurable: ")
    assert layer_sentence(["dead"], 1.0, dead=True, left_out=2, samples=6) == (
        "dead: 1 channel: 1 dead (the output does not vary); 2 of 8 samples left out "
        "(NaN or infinity)"
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.985, 0.999])
def test_a_sentence_of_a_layer_agrees_with_those_of_its_channels(share: float) -> None:
    """Channels y = x + c·(x² - 1), whose L is 1/(1 + 2c²) for normal x: one threshold for both."""
    z = np.random.default_rng(1).standard_normal((50, 4, 60))
    bend = np.sqrt((1 / max(share, 0.01) - 1) / 2)
    table = channel_table(moments := plain_layer(z, z + bend * (z * z - 1)))
    (why,) = layer_table(moments)["why"]
    linear = share > 0.99
    assert why.split(": all ")[1].split(" ")[0] == ("linear" if linear else "nonlinear")
    assert {text.split(" ")[0] for text in table["why"]} == {"linear" if linear else "nonlinear"}
