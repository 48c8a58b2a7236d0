"""Figures of measured runs: what is drawn are the frames of a run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection
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
from acon_analysis.runs.run import Run
from acon_analysis.statistics.beta_clusters import label_purity, ordered_betas
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_figures import beta_against_null, beta_heatmap, channel_portrait, network_sketch, slopes
from acon_figures.inputs import PROVIDES, Inputs


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
        with pytest.raises(
            UsageError, match=r"[oO]f this run there are: .*linearity_by_depth"
        ) as no:
            digits_run.plot(name)
        there = str(no.value).partition("are: ")[2].split(", ")
        assert {"beta_heatmap", "channel_portraits"} < set(there)
        assert not {"explanation", "training_curves", "relu_like"} & set(there)
    with pytest.raises(UsageError, match=r"'linearity_by_dept'; did you mean 'linearity_by_depth'"):
        digits_run.plot("linearity_by_dept")
    with pytest.raises(AconError, match=r"figure 'explanation': it needs .* \(runs: "):
        digits_run.plot("explanation")
