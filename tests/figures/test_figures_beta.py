from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.patches import Rectangle

import figureframes
from acon_analysis.errors import AconError, UsageError
from acon_analysis.statistics.beta_densities import beta_densities
from acon_figures import beta_distributions


def test_published_curves_fills_and_bars_are_the_tables() -> None:
    frame, static = figureframes.betas(), figureframes.static()
    data = beta_densities(frame, samples=5, seed=2, static=static, as_published=True)
    figure = beta_distributions(frame, samples=5, seed=2, static=static, as_published=True)
    axes = figure.axes[0]
    drawn = [(sample, "sample") for sample in data.samples] + [(None, "static")]
    assert len(axes.lines) == len(drawn) == 6
    for line, (sample, source) in zip(axes.lines, drawn, strict=True):
        curve = data.curves[data.curves["source"] == source]
        if sample is not None:
            curve = curve[curve["sample"] == sample]
        np.testing.assert_array_equal(line.get_xdata(), curve["x"])
        np.testing.assert_array_equal(line.get_ydata(), curve["density"])
    assert len([c for c in axes.collections if isinstance(c, PolyCollection)]) == 5
    check_bars(axes, data.bars)


def check_bars(axes: Axes, table: pd.DataFrame) -> None:
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    np.testing.assert_array_equal([b.get_height() for b in bars], table["density"])
    np.testing.assert_array_equal([b.get_x() for b in bars], table["left"])
    np.testing.assert_allclose([b.get_width() for b in bars], table["right"] - table["left"])


def test_rows_are_the_tables_on_one_scale_sorted_by_mean_and_static_stands_apart() -> None:
    frame, static, null = figureframes.betas(), figureframes.static(), figureframes.null()
    data = beta_densities(frame, samples=5, seed=2, static=static, null=null)
    rows, apart = beta_distributions(frame, samples=5, seed=2, static=static, null=null).axes
    own = frame[frame["layer"] == figureframes.LAYERS[-1]]
    means = own.groupby("sample")["beta"].mean().loc[list(data.samples)].sort_values()
    names = [label.get_text() for label in rows.get_yticklabels()][::-1]
    assert names == [f"sample {sample}" for sample in means.index]
    behind = data.curves[data.curves["source"] == "null"]["density"].to_numpy()
    scales = []
    for place, sample in enumerate(means.index):
        base = 4 - place
        density = data.curves[data.curves["sample"] == sample]["density"].to_numpy()
        line, dotted = rows.lines[2 * place : 2 * place + 2]
        scales.append(np.asarray(line.get_ydata() - base).max() / density.max())
        np.testing.assert_allclose(line.get_ydata(), base + scales[0] * density, atol=1e-9)
        np.testing.assert_allclose(dotted.get_ydata(), base + scales[0] * behind, atol=1e-9)
    assert scales == pytest.approx([scales[0]] * 5)
    dots = [
        np.asarray(c.get_offsets())[0] for c in rows.collections if isinstance(c, PathCollection)
    ]
    np.testing.assert_allclose(dots, [(mean, 4 - n) for n, mean in enumerate(means)], rtol=1e-6)
    check_bars(apart, data.bars)


def test_what_the_rows_and_the_legend_say() -> None:
    frame, static = figureframes.betas(), figureframes.static()
    figure = beta_distributions(frame, samples=[103, 101], static=static, labels={103: "seven"})
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["sample 101", "sample 103: seven"]  # from below
    published = beta_distributions(frame, static=static, as_published=True)
    axes = published.axes[0]
    assert axes.get_ylabel() == "Distribution (%)"
    assert axes.get_xlim() == (0.0, 1.0)
    legend = axes.get_legend()
    assert legend is not None
    numbers = [f"Sample {number}" for number in range(1, 8)]
    assert [text.get_text() for text in legend.get_texts()] == [*numbers, "ACON"]


def test_the_axis_reaches_as_far_as_nearly_all_static_betas() -> None:
    frame, static = figureframes.betas(), figureframes.static()
    assert beta_distributions(frame).axes[0].get_xlim() == (0.0, 1.0)
    left, right = beta_distributions(frame, static=static).axes[0].get_xlim()
    assert left == 0.0
    assert right >= static.query("layer == 'layer4.2.acon'")["beta"].quantile(0.99) > 1.0
    given = beta_distributions(frame, static=static, xlim=(0.2, 0.9))
    assert given.axes[0].get_xlim() == (0.2, 0.9)
    with pytest.raises(UsageError, match="xlim must rise"):
        beta_distributions(frame, xlim=(1.0, 0.0))


def test_the_published_null_of_batchnorm_is_the_last_line() -> None:
    frame, null = figureframes.betas(), figureframes.null()
    figure = beta_distributions(frame, samples=2, null=null, as_published=True)
    line = figure.axes[0].lines[-1]
    assert line.get_label() == "BatchNorm alone"
    area = np.trapezoid(np.asarray(line.get_ydata()), np.asarray(line.get_xdata()))
    assert area == pytest.approx(1.0, abs=1e-3)
    assert "BatchNorm before the sigmoid" in figure.caption


def test_more_samples_than_rows_are_refused() -> None:
    frame = figureframes.betas(samples=45)
    assert len(beta_distributions(frame, samples=15).axes[0].get_yticks()) == 15
    with pytest.raises(UsageError, match="at most 40 rows; got 45 samples"):
        beta_distributions(frame, samples=45)


def test_the_caption_tells_layer_channels_and_what_lies_outside() -> None:
    figure = beta_distributions(figureframes.betas(), static=figureframes.static())
    assert "64 channels of layer layer4.2.acon" in figure.caption
    assert "of them outside [0, 1]" in figure.caption
    assert "7 samples" in figure.caption


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "layer4.1.acon"}, "no layer 'layer4.1.acon'; did you mean 'layer4.2.acon'"),
        ({"samples": [7]}, "sample 7 is not in the frame: .* the nearest is 100"),
        ({"frame": figureframes.betas().iloc[:0]}, "no rows"),
        ({"frame": figureframes.betas().assign(beta=np.nan)}, "NaN or infinite in 448 of 448"),
        ({"frame": figureframes.betas()[["sample"]]}, "lacks the columns layer, channel, beta"),
    ],
)
def test_wrong_frames_are_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(AconError, match=message):
        beta_distributions(**{"frame": figureframes.betas(), **arguments})


def test_a_spike_of_static_betas_does_not_hide_the_samples() -> None:
    """β of static ACON that has hardly moved from 1: the axis ends above the samples' curves."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "sample": np.repeat(np.arange(7), 128),
            "layer": "last",
            "channel": np.tile(np.arange(128), 7),
            "beta": generator.uniform(0.2, 0.8, 7 * 128),
        }
    )
    static = pd.DataFrame(
        {"layer": "last", "channel": np.arange(128), "beta": generator.normal(1, 0.003, 128)}
    )
    figure = beta_distributions(frame, static=static, as_published=True)
    axes = figure.axes[0]
    highest = max(float(np.max(line.get_ydata())) for line in axes.lines[:7])
    assert highest < axes.get_ylim()[1] < 2 * highest
    (note,) = axes.texts
    spike = max(bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle))
    assert note.get_text() == f"ACON: up to {spike:.0f}"
    assert f"Cut: the static density rises to {spike:.0f}." in figure.caption
    wide = static.assign(beta=generator.uniform(0.3, 0.9, 128))
    assert not beta_distributions(frame, static=wide, as_published=True).axes[0].texts


def test_the_words_beside_a_cut_spike_do_not_touch_it() -> None:
    frame, static = figureframes.betas(), figureframes.static()
    broad = np.random.default_rng(1).normal(1.0, 0.03, len(static))
    figure = beta_distributions(frame, static=static.assign(beta=broad), as_published=True)
    axes = figure.axes[0]
    figure.draw_without_rendering()
    box = axes.texts[0].get_window_extent().transformed(axes.transData.inverted())
    curve = axes.lines[-1]
    x, y = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    near = y[(x >= box.x0) & (x <= box.x1)]
    assert near.max() < box.y0
    for bar in axes.patches:
        if isinstance(bar, Rectangle) and bar.get_height() > box.y0:
            assert bar.get_x() >= box.x1
