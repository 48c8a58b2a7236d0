from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.patches import Ellipse, Rectangle, StepPatch

import acon_analysis as acon
import acon_figures
import figureframes
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.channels import (
    channel_curves,
    channel_facts,
    choose_channel,
    reached_share,
    sketch_curves,
    spread_channels,
)
from acon_analysis.plotdata.depth import linearity_by_depth as depth_of_runs
from acon_analysis.plotdata.depth import nested_layers, relative_depth, shared_layers
from acon_analysis.runs.run import Run
from acon_analysis.statistics.beta_clusters import label_purity, ordered_betas
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.statistics.gaussian import relu_own
from acon_analysis.training.logs import curve_bands, logged_data, training_logs
from acon_figures import (
    beta_against_null,
    beta_heatmap,
    channel_portrait,
    linearity_by_depth,
    network_sketch,
    slopes,
    training_curves,
)
from acon_figures.inputs import PROVIDES, Inputs
from acon_figures.palette import activation_color


def test_the_shipped_logs_are_read_in_the_papers_order(tmp_path: Path) -> None:
    logs = training_logs()
    assert list(logs["activation"].unique()) == ["ReLU", "ACON-A (Swish)", "ACON-C", "Meta-ACON"]
    assert (logs.groupby(["network", "seed"])["epoch"].count() == 30).all()
    assert sorted(logs["seed"].unique()) == [0, 1, 2]
    first = (logs["network"] == "digits_relu") & (logs["seed"] == 0)
    own = logs[first].drop(columns=["network", "activation", "seed"])
    own.assign(test_error=0.5).to_csv(tmp_path / "digits_relu.csv", index=False)
    own.assign(test_error=0.7).to_csv(tmp_path / "digits_relu_seed3.csv", index=False)
    own.assign(test_error=0.9).to_csv(tmp_path / "digits_relu-seed12.csv", index=False)
    own.to_csv(tmp_path / "digits_relux.csv", index=False)
    both = training_logs(folder=tmp_path)
    assert list(both["seed"].unique()) == [0, 3, 12]
    bands = curve_bands(both, ["test_error"])
    np.testing.assert_allclose(bands[["mean", "low", "high"]], [[0.7, 0.5, 0.9]] * 30)
    assert (bands["seeds"] == 3).all()
    assert logged_data(tmp_path) == ("digits",)
    assert {"cifar10", "digits"} <= set(logged_data())
    with pytest.raises(AconError, match=r"no log cifar_\*\.csv"):
        training_logs("cifar", tmp_path)
    own.to_csv(tmp_path / "digits_relu-seed3.csv", index=False)
    with pytest.raises(AconError, match=r"digits_relu_seed3\.csv and .*-seed3\.csv are both of"):
        training_logs(folder=tmp_path)


def test_training_curves_keep_an_activations_colour_and_say_how_many_seeds() -> None:
    logs = figureframes.training(3)
    both = training_curves(logs)
    alone = training_curves(logs[logs["activation"] == "Meta-ACON"])
    colors = {str(line.get_label()): line.get_color() for line in both.axes[0].lines}
    assert alone.axes[0].lines[0].get_color() == colors["Meta-ACON"]
    assert colors["Meta-ACON"] == activation_color("Meta-ACON")
    assert len(alone.axes) == 1  # nothing to compare with
    assert "Mean of 3 seeds" in both.caption
    fewer = logs[(logs["activation"] == "ReLU") | (logs["seed"] == 0)]
    assert "several seeds (ReLU: 3, Meta-ACON: 1)" in training_curves(fewer).caption
    shorter = logs[(logs["seed"] < 2) | (logs["iteration"] < 60)]
    assert "a seed's log is shorter" in training_curves(shorter).caption
    close = logs.assign(train_error=0.2, test_error=0.3)
    assert training_curves(close).axes[0].get_yscale() == "linear"
    assert both.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("seeds", [1, 3])
def test_training_curves_as_published_are_the_logs(seeds: int) -> None:
    logs = figureframes.training(seeds)
    axes = training_curves(logs, as_published=True).axes[0]
    table = curve_bands(logs)
    assert len(axes.lines) == 4
    assert len(axes.collections) == (4 if seeds > 1 else 0)
    for line in axes.lines:
        activation, split = str(line.get_label()).rsplit(" ", 1)
        name = f"{split}_error"
        own = table[(table["activation"] == activation) & (table["quantity"] == name)]
        np.testing.assert_array_equal(line.get_xdata(), own["iteration"])
        np.testing.assert_array_equal(line.get_ydata(), own["mean"])
        assert line.is_dashed() == (split == "train")


def test_the_test_error_is_compared_with_relus_step_by_step() -> None:
    logs = figureframes.training(3).assign(network="digits_relu")
    figure = training_curves(logs)
    error, difference = figure.axes
    means = logs.pivot_table(index="iteration", columns="activation", values="test_error")
    for line in error.lines:
        np.testing.assert_allclose(line.get_ydata(), means[str(line.get_label())])
    (line,) = [line for line in difference.lines if len(np.asarray(line.get_xdata())) > 2]
    np.testing.assert_allclose(line.get_ydata(), 100 * (means["Meta-ACON"] - means["ReLU"]))
    own = logs[logs["activation"] == "Meta-ACON"].copy()
    own["points"] = 100 * (own["test_error"] - own["iteration"].map(means["ReLU"]))
    (band,) = difference.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(own["points"].max())
    assert corners[:, 1].min() == pytest.approx(own["points"].min())
    assert figure.subject == "networks trained on digits, held-out images"


def test_depth_of_a_run_agrees_with_its_table_by_layer(digits_run: Run) -> None:
    table = depth_of_runs([digits_run])
    by_layer = digits_run.linearity(by="layer", columns="all")
    wide = table.pivot(index="place", columns="measure", values="value")
    for name in ("L", "L_own", "G"):
        np.testing.assert_allclose(wide[name], by_layer[name], rtol=1e-12)
    ends = table[table["measure"] == "L"]
    np.testing.assert_allclose(ends["low"], by_layer["L_low"], rtol=1e-9)
    np.testing.assert_allclose(ends["high"], by_layer["L_high"], rtol=1e-9)
    assert list(ends["layer"]) == list(digits_run.layers["layer"])
    assert depth_of_runs([]).empty


def test_products_have_a_line_of_their_own_by_depth() -> None:
    depth = figureframes.depth()
    one = depth[depth["network"] == depth["network"].iloc[0]]
    kinds = one["place"].map(lambda place: "product" if place % 2 else "activation")
    figure = linearity_by_depth(one.assign(kind=kinds))
    lines = [box.lines[0] for box in figure.axes[0].containers]
    own = one[one["measure"] == "L"].sort_values("place")
    assert [list(line.get_xdata()) for line in lines] == [
        list(own["place"][own["place"] % 2 == odd]) for odd in (0, 1)
    ]
    assert lines[0].get_color() != lines[1].get_color()
    assert "Squares: products" in figure.caption
    assert "products" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_linearity_by_depth_draws_the_shared_layers() -> None:
    depth = figureframes.depth()
    table = shared_layers(depth)
    assert set(table["layer"]) == set(figureframes.LAYERS)
    figure = linearity_by_depth(depth, labels={"relu": "ReLU"})
    assert [len(axes.containers) for axes in figure.axes] == [2, 2, 1]
    for axes, measure in zip(figure.axes, ("L", "L_own", "G"), strict=True):
        for line, network in zip(axes.lines[::3], ("acon", "relu"), strict=False):
            own = table[(table["measure"] == measure) & (table["network"] == network)]
            np.testing.assert_array_equal(line.get_xdata(), own["place"])
            np.testing.assert_array_equal(line.get_ydata(), own["value"])
    without_gates = linearity_by_depth(depth[depth["network"] == "relu"])
    assert [len(axes.containers) for axes in without_gates.axes] == [1, 1]
    assert "L_own: every sample has lines of its own" in without_gates.caption
    assert "gate" not in without_gates.caption
    with pytest.raises(AconError, match="share no layer"):
        shared_layers(pd.concat([depth.query("network == 'acon'"), _renamed(depth)]))


def test_networks_of_other_layers_stand_from_first_to_last() -> None:
    depth = figureframes.depth()
    other = _renamed(depth).assign(network="digits_swish")
    table = pd.concat([depth.query("network == 'acon'"), other])
    assert nested_layers(depth)
    assert not nested_layers(table)
    figure = linearity_by_depth(table)
    acon, swish = figure.axes[0].lines[::3]
    np.testing.assert_array_equal(acon.get_xdata(), [0.0, 1.0])
    np.testing.assert_array_equal(swish.get_xdata(), [0.0, 0.5, 1.0])
    assert "each runs from its first to its last" in figure.caption
    with pytest.raises(AconError, match="share no layer"):
        linearity_by_depth(table, by="layer")
    with pytest.raises(UsageError, match="no axis by 'place'"):
        linearity_by_depth(table, by="place")
    assert relative_depth(depth.query("place == 0"))["place"].eq(0.0).all()


def test_networks_of_two_data_sets_stand_in_rows_and_keep_their_activations_colour() -> None:
    depth = figureframes.depth().query("network == 'acon'")
    kinds = {"relu": "ReLU", "acon": "AconC", "swish": "SiLU"}
    table = pd.concat(
        depth.assign(network=f"{data}_{short}", data=f"9 images of {data}", activation=name)
        for data in ("digits", "cifar10")
        for short, name in kinds.items()
    )
    figure = linearity_by_depth(table)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["digits", "cifar10"]
    for axes in figure.axes:
        colors = [line.get_color() for line in axes.lines[::3]]
        assert colors == [activation_color(name) for name in kinds.values()]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    names = [text.get_text().strip() for text in figure.axes[0].texts]
    assert [name for name in names if name] == list(kinds)
    many = pd.concat([depth.assign(network=f"n{place}") for place in range(13)])
    with pytest.raises(AconError, match="13 networks are too many for one panel"):
        linearity_by_depth(many)


def test_the_line_of_relu_is_that_of_gaussian_inputs() -> None:
    x = np.random.default_rng(0).normal(size=400_000)
    y = np.maximum(x, 0.0)
    explained = np.corrcoef(x, y)[0, 1] ** 2
    figure = linearity_by_depth(figureframes.depth())
    for axes in figure.axes[:1]:
        (height,) = {
            line.get_segments()[0][0, 1]
            for line in axes.collections
            if isinstance(line, LineCollection) and len(line.get_segments()) == 1
        }
        assert height == pytest.approx(explained, abs=2e-3)
        assert axes.get_ylim()[0] < height < axes.get_ylim()[1]


def test_own_lines_are_compared_with_a_relu_of_as_many_values_a_sample() -> None:
    rng = np.random.default_rng(3)
    for count in (4, 9, 64, 400):
        x = rng.standard_normal((4000 if count < 100 else 400, count))
        own = sum(np.polyfit(one, np.maximum(one, 0.0), 1, full=True)[1][0] for one in x)
        variance = x.size * np.var(np.maximum(rng.standard_normal(10**6), 0.0))
        assert relu_own(count) == pytest.approx(1 - own / variance, abs=5e-3)
    assert np.isnan([relu_own(2), relu_own(float("nan"))]).all()
    table = figureframes.depth().query("network == 'relu'")
    last = (table["place"] == 2) & (table["measure"] == "L_own")
    table.loc[last, ["value", "low", "high", "values"]] = [np.nan, np.nan, np.nan, 1.0]
    figure = linearity_by_depth(table)
    own = figure.axes[1].collections
    lines = [c for c in own if isinstance(c, LineCollection)][-1]
    heights = [segment[0, 1] for segment in lines.get_segments()]
    assert heights == [relu_own(400), relu_own(30)]
    hollow = [c for c in own if isinstance(c, PathCollection) and c.get_zorder() == 3]
    assert [np.asarray(c.get_offsets())[:, 0].tolist() for c in hollow] == [[1.0]]
    assert "(hollow: fewer than 50 values). 1 layer has at most 1 value" in figure.caption


def _renamed(depth: pd.DataFrame) -> pd.DataFrame:
    own = depth[depth["network"] == "relu"]
    return own.assign(layer="other." + own["layer"])


def test_a_run_gives_the_frames_that_figures_name(digits_run: Run) -> None:
    inputs = Inputs([digits_run])
    betas, null, labels = (inputs.get(name) for name in ("frame", "null", "labels"))
    assert isinstance(betas, BetaMatrix)
    assert (betas.layer, betas.call) == ("layer3.0.acon", 0)
    np.testing.assert_array_equal(betas.values, digits_run.beta_matrix("layer3.0.acon"))
    assert (null.loc[null["layer"] == betas.layer, "channel"].to_numpy() == np.arange(128)).all()
    assert labels.loc[betas.sample_ids[0]] in {str(digit) for digit in range(10)}
    assert inputs.get("static") is None
    assert set(inputs.of(acon_figures.find("beta_heatmap"))) == {"frame", "labels"}
    without = Inputs([])
    assert {name for name in PROVIDES if without.get(name) is not None} == {
        "training", "damage", "epochs", "gates", "forms",
    }  # fmt: skip


def test_facts_of_channels_are_the_runs(digits_run: Run) -> None:
    facts = channel_facts([digits_run])
    table = digits_run.linearity(by="channel", columns="all")
    assert len(facts) == len(table)
    np.testing.assert_allclose(facts["L"], table["L"])
    one = choose_channel(facts, "layer2.0.acon", 3)
    beta = digits_run.beta_matrix("layer2.0.acon")[:, 3].astype(np.float64)
    expected = np.quantile(beta, [0.05, 0.5, 0.95])
    np.testing.assert_allclose(list(one[["beta_low", "beta_middle", "beta_high"]]), expected)
    own = digits_run.channels.query("layer == 'layer2.0.acon' and channel == 3")
    assert one["p1"] == own["p1"].iloc[0]
    share = reached_share(facts).dropna()
    assert ((share >= 0) & (share <= 1 + 1e-9)).all()
    assert channel_facts([]).empty


def test_a_channel_is_chosen_by_its_share_or_by_name() -> None:
    facts = figureframes.channels()
    last = facts[facts["layer"] == figureframes.LAYERS[-1]]
    assert choose_channel(facts)["s_c"] == last["s_c"].max()
    assert choose_channel(facts, figureframes.LAYERS[0], 4)["channel"] == 4
    with pytest.raises(UsageError, match="no channel 99; it has 0 to 11"):
        choose_channel(facts, channel=99)
    with pytest.raises(AconError, match="its layers are not ACON"):
        choose_channel(facts.assign(p1=np.nan))


def test_the_portrait_is_the_channels_curves() -> None:
    facts = figureframes.channels()
    one = choose_channel(facts, channel=5)
    curves = channel_curves(one)
    main, below = channel_portrait(facts, channel=5).axes
    for line, (_, curve) in zip(main.lines, curves.groupby("curve", sort=False), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), curve["x"])
        np.testing.assert_array_equal(line.get_ydata(), curve["y"])
    ends = [list(np.asarray(line.get_xdata())) for line in below.lines]
    assert not below.patches
    counted = channel_portrait(facts, inputs=figureframes.inputs())
    (steps,) = [patch for patch in counted.axes[1].patches if isinstance(patch, StepPatch)]
    values, edges, floor = steps.get_data()
    own = figureframes.inputs().query("channel == 0")
    np.testing.assert_allclose(values - floor, own["count"] / own["count"].max())
    np.testing.assert_array_equal(edges[:-1], own["left"])
    assert "the inputs of 50 samples, counted" in counted.caption
    elsewhere = figureframes.inputs().assign(network="other")
    assert not channel_portrait(facts, inputs=elsewhere).axes[1].patches
    assert ends == [[-4.0, 5.0], [-0.9, 1.1], [0.1]]


def test_slopes_are_the_tables() -> None:
    facts = figureframes.channels()
    left, right = slopes(facts).axes
    (points,) = [c for c in left.collections if isinstance(c, PathCollection)]
    np.testing.assert_array_equal(points.get_offsets(), facts[["p1", "p2"]])
    ordered = facts.assign(span=facts["slope_max"] - facts["slope_min"])
    ordered = ordered.sort_values(["layer", "span"])
    ends = (("slope_min", "slope_max"), ("slope_low", "slope_high"))
    steps = [patch.get_data() for patch in right.patches if isinstance(patch, StepPatch)]
    for (values, edges, _), (low, high) in zip(steps, ends, strict=True):
        np.testing.assert_allclose(values, ordered[high] - ordered[low])
        np.testing.assert_array_equal(edges, np.arange(len(ordered) + 1) - 0.5)
    with pytest.raises(UsageError, match="no network 'acn'; did you mean 'acon'"):
        slopes(facts, "acn")


def test_a_deep_network_names_its_first_and_last_layer_in_the_caption() -> None:
    names = [f"layer{number}.act" for number in range(49)]
    table = pd.DataFrame(
        [
            {"place": place, "layer": name, "measure": measure}
            for place, name in enumerate(names)
            for measure in ("L", "L_own", "G")
        ]
    ).assign(network="deep", data="9 samples", activation="ReLU", class_name="ReLU", call=0,
             value=0.5, low=0.4, high=0.6, dead=False)  # fmt: skip
    caption = linearity_by_depth(table).caption
    assert caption.endswith("49 layers, from layer0.act to layer48.act.")
    few = linearity_by_depth(table[table["place"] < 3]).caption
    assert few.endswith("Layers: layer0.act, layer1.act, layer2.act.")


def test_the_sketch_draws_six_trained_channels_from_linear_to_nonlinear() -> None:
    facts = figureframes.channels()
    chosen = spread_channels(facts)
    own = facts[facts["layer"] == figureframes.LAYERS[-1]]
    assert {own["L"].min(), own["L"].max()} <= set(chosen["L"])
    np.testing.assert_allclose(chosen["strength"] ** 2, 1 - chosen["L"])
    assert list(chosen["channel"]) == sorted(chosen["channel"])
    curves = sketch_curves(chosen)
    relu, acon = network_sketch(facts).axes
    assert len(relu.lines) == len(acon.lines)
    six = zip(acon.lines[-6:], curves.groupby("channel"), strict=True)
    for row, (line, (_, curve)) in enumerate(six):
        height = np.asarray(line.get_ydata())
        flat = row - height  # rows go down
        scale = np.abs(flat).max() / np.abs(curve["y"].to_numpy()).max()
        np.testing.assert_allclose(flat, scale * curve["y"], atol=1e-9)
    circles = [patch for patch in acon.patches if isinstance(patch, Ellipse)][-6:]
    tints = [float(np.asarray(circle.get_facecolor())[2]) for circle in circles]
    assert np.argsort(tints)[0] == int(chosen["strength"].argmax())
    with pytest.raises(AconError, match="has 12 channels whose output varies, not 13"):
        spread_channels(facts, count=13)


def test_runs_that_do_not_fit_together_are_not_drawn_together(
    digits_run: Run, tmp_path: Path
) -> None:
    convolution = torch.nn.Conv2d(1, 4, 3)
    plain = torch.nn.Sequential(convolution, torch.nn.ReLU()).eval()
    images = [torch.rand(4, 1, 8, 8)]
    other = acon.capture(plain, images, tmp_path / "plain", progress=False)
    alone = Inputs([other])
    found = [name for name in ("depth", "channels", "frame", "null") if alone.get(name) is not None]
    assert found == ["depth"]
    depth = Inputs([digits_run, other]).get("depth")
    assert set(depth["layer"]) == set(digits_run.layers["layer"])


def test_clustering_puts_like_next_to_like_and_keeps_every_value() -> None:
    rng = np.random.default_rng(4)
    group = rng.permutation(np.repeat([0, 1, 2], 8))
    level = np.array([0.2, 0.5, 0.8])[group]
    values = level[:, None] + rng.normal(0.0, 0.01, (24, 5))
    sample, channel = np.indices(values.shape).reshape(2, -1)
    columns = {"sample": sample, "channel": channel, "beta": values.ravel()}
    frame = pd.DataFrame({"layer": "acon", **columns})
    ordered = ordered_betas(frame)
    expected = values[np.ix_(ordered.sample_ids, ordered.channels)]
    np.testing.assert_array_equal(ordered.values, expected)
    labels = group[ordered.sample_ids]
    assert label_purity([str(label) for label in labels]) == pytest.approx(21 / 23)
    assert ordered_betas(frame, samples=10).values.shape == (10, 5)
    with pytest.raises(AconError, match="not every sample has a β"):
        ordered_betas(frame.iloc[1:])


def test_the_heat_map_and_its_strip_are_the_ordered_betas() -> None:
    frame, labels = figureframes.betas(), figureframes.labels()
    ordered = ordered_betas(frame)
    figure = beta_heatmap(frame, labels=labels)
    main, columns = (axes.images[0] for axes in figure.axes[:2])
    np.testing.assert_array_equal(np.asarray(main.get_array()), ordered.values)
    classes = [labels.loc[sample] for sample in ordered.sample_ids]
    of = np.asarray(columns.get_array())
    assert of.sum(axis=1).tolist() == [1] * len(classes)
    words = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert [words[place] for place in of.argmax(axis=1)] == classes
    without = [beta_heatmap(frame, labels=labels.iloc[1:]), beta_heatmap(frame)]
    assert [len(one.axes) for one in (figure, *without)] == [3, 2, 2]


def test_beta_against_the_null_draws_its_three_tables() -> None:
    table, means = figureframes.null_table(), figureframes.sample_means()
    splits = figureframes.splits()
    left, middle, right = beta_against_null(table, means, splits).axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), np.sort(table["mean"]))
    bars = [patch for patch in middle.patches if isinstance(patch, Rectangle)]
    areas = [bar.get_height() * bar.get_width() for bar in bars]
    assert sum(areas) == pytest.approx(1.0)
    curve = middle.lines[0]
    peak = 1 / (splits["expected_sample_std"].iloc[-1] * np.sqrt(2 * np.pi))
    assert np.max(np.asarray(curve.get_ydata())) == pytest.approx(peak, rel=1e-3)
    np.testing.assert_array_equal(right.lines[0].get_xdata(), splits["ratio"])
    assert not right.patches
    ends = {"null_p05": [0.5, 0.25], "null_p95": [2.0, 1.5]}
    banded = beta_against_null(table, means, splits.assign(**ends))
    bars = [patch for patch in banded.axes[2].patches if isinstance(patch, Rectangle)]
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars] == list(
        zip(*ends.values(), strict=True)
    )
    assert "5th to 95th percentile" in banded.caption
    with pytest.raises(AconError, match="no BatchNorm before its sigmoid"):
        beta_against_null(table.assign(null_mean=np.nan), means, splits)


def test_the_null_of_a_run_is_of_one_layer(digits_run: Run) -> None:
    inputs = Inputs([digits_run])
    assert set(inputs.get("null_table")["layer"]) == {"layer3.0.acon"}
    matrix = digits_run.beta_matrix("layer3.0.acon")
    np.testing.assert_allclose(inputs.get("sample_means")["beta"], matrix.mean(axis=1), rtol=1e-5)


def test_a_figure_takes_a_run_in_place_of_its_frames(digits_run: Run) -> None:
    drawn = acon_figures.linearity_by_depth(digits_run)
    by_frame = acon_figures.linearity_by_depth(Inputs([digits_run]).get("depth"))
    lines = [[line.get_ydata() for ax in f.axes for line in ax.lines] for f in (drawn, by_frame)]
    for own, other in zip(*lines, strict=True):
        np.testing.assert_array_equal(own, other)
    plotted = digits_run.plot("linearity_by_depth", context="talk")
    assert len(plotted.axes) == len(drawn.axes)
    assert plotted.get_size_inches().tolist() != drawn.get_size_inches().tolist()


def test_a_run_cannot_plot_what_it_does_not_hold(digits_run: Run) -> None:
    for name in ("linearity", None):
        with pytest.raises(UsageError, match=r"of this run there are: .*linearity_by_depth") as no:
            digits_run.plot(name)
        there = str(no.value).partition("are: ")[2].split(", ")
        assert {"beta_heatmap", "channel_portraits"} < set(there)
        assert not {"explanation", "training_curves", "relu_like"} & set(there)
    with pytest.raises(UsageError, match=r"'linearity_by_dept'; did you mean 'linearity_by_depth'"):
        digits_run.plot("linearity_by_dept")
    with pytest.raises(AconError, match=r"figure 'explanation': it needs .* \(runs: "):
        digits_run.plot("explanation")
