"""The formula and printed-number figures draw exactly their tables."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.patches import FancyBboxPatch

import acon_figures
import figureframes
from acon_analysis import family, paper
from acon_analysis.errors import UsageError
from acon_analysis.plotdata import activation_gallery as primer
from acon_analysis.plotdata import formula_curves as curves
from acon_figures.plots import meta_acon_module, tfnet_block
from figurechecks import texts


def points(axes: Axes) -> list[tuple[Any, Any]]:
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in axes.lines]


def same(axes: Axes, table: Any, by: str = "curve") -> None:
    """Assert that the lines of axes are the curves of a table, in its order."""
    groups = list(table.groupby(by, sort=False))
    drawn = points(axes)
    assert len(drawn) == len(groups)
    for (x, y), (_, curve) in zip(drawn, groups, strict=True):
        np.testing.assert_array_equal(x, curve["x"])
        np.testing.assert_array_equal(y, curve["y"])


def test_the_example_of_beta() -> None:
    axes = acon_figures.acon_c_example().axes[0]
    same(axes, curves.acon_c_example())
    assert (axes.get_xlim(), axes.get_ylim()) == ((-6.0, 6.0), (-2.0, 4.0))
    p1, p2, mean, *smooth = points(axes)
    np.testing.assert_allclose(p1[1], 1.2 * p1[0])
    np.testing.assert_allclose(p2[1], -0.8 * p2[0])
    np.testing.assert_allclose(mean[1], 0.2 * mean[0])
    for (x, y), beta in zip(smooth, (0.01, 0.1, 1.0), strict=True):
        np.testing.assert_allclose(y, 2.0 * x / (1.0 + np.exp(-beta * 2.0 * x)) - 0.8 * x)


def test_the_families() -> None:
    figure = acon_figures.maxout_and_acon()
    table = curves.maxout_and_acon()
    for axes, member in zip(figure.axes[1:], "ABC", strict=True):
        here = table[table["member"] == member]
        same(axes, here)
        hard = here[here["curve"] == "max"]
        one, other = {"A": (1.0, 0.0), "B": (1.0, 0.25), "C": (1.2, -0.8)}[member]
        np.testing.assert_allclose(hard["y"], np.maximum(one * hard["x"], other * hard["x"]))
        gaps = [
            np.abs(curve["y"].to_numpy() - hard["y"].to_numpy()).max()
            for name, curve in here.groupby("curve", sort=False)
            if name != "max"
        ]
        assert gaps == sorted(gaps, reverse=True)
    words = " ".join(text for text, _ in texts(figure))
    for name in ("acon_a", "acon_b", "acon_c"):
        assert family.ACTIVATIONS[name].latex in words


def test_swish_from_a_line_to_relu() -> None:
    table = curves.swish_family()
    for axes, panel in zip(
        acon_figures.swish_family().axes, ("function", "derivative"), strict=True
    ):
        same(axes, table[table["panel"] == panel])
    function, derivative = acon_figures.swish_family().axes
    x, line = points(function)[0]
    np.testing.assert_allclose(line, x / 2.0)
    x, hard = points(function)[3]
    np.testing.assert_allclose(hard, np.maximum(x, 0.0), atol=3e-3)
    assert points(derivative)[3][1].max() == pytest.approx(1.0998, abs=2e-3)


def test_relu_like_holds_ten_curves_that_end_near_x() -> None:
    axes, near = acon_figures.relu_like().axes
    table = primer.gallery_curves(primer.RELU_LIKE, reach=3.5)
    same(axes, table, by="activation")
    same(near, table, by="activation")
    assert len(axes.lines) == 10
    assert len({line.get_color() for line in axes.lines}) == 10
    named = {text.get_text().strip(): text.get_color() for text in near.texts}
    del named[""]  # the lines to the names
    assert named == {str(line.get_label()): line.get_color() for line in near.lines}
    labels = {str(line.get_label()) for line in axes.lines}
    assert {"ReLU", "SELU", "Mish", "GELU", "Swish / SiLU (β = 1)"} <= labels


def test_the_gallery_draws_functions_derivatives_and_facts() -> None:
    figure = acon_figures.activation_gallery()
    table, facts = primer.gallery_curves(), primer.gallery_facts()
    words = [text for text, _ in texts(figure)]
    for axes, (_, fact) in zip(figure.axes, facts.iterrows(), strict=True):
        curve = table[table["activation"] == fact["activation"]]
        (x, y), (_, slope) = points(axes)
        np.testing.assert_array_equal(x, curve["x"])
        np.testing.assert_array_equal(y, curve["y"])
        np.testing.assert_array_equal(slope, curve["slope"])
        assert axes.get_title() == fact["activation"]
        assert fact["low"] - 1e-12 <= slope.min()
        assert slope.max() <= fact["high"] + 1e-12
        assert any(f"{fact['left']} ← f → {fact['right']}" in word for word in words)
    assert len(facts) == 15


def test_gallery_facts() -> None:
    facts: Any = primer.gallery_facts().set_index("activation")
    assert facts.loc["SELU", ["left", "right"]].tolist() == ["−1.76", "1.05 x"]
    assert facts.loc["Swish, β = 0: x/2", ["low", "high"]].tolist() == [0.5, 0.5]
    assert facts.loc["Leaky ReLU, a = 0.1", "left"] == "0.1 x"
    assert "Klambauer" in str(facts.loc["SELU", "source"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ((0.0, 0.0), "0"), ((1.0, 0.0), "x"), ((-0.25, 0.0), "−0.25 x"),
        ((1.0, -2.0), "x − 2"), ((2.0, 0.5), "2 x + 0.5"), ((0.0, -0.0), "0"),
    ],
)  # fmt: skip
def test_lines_as_text(line: tuple[float, float], text: str) -> None:
    assert primer.line_text(*line) == text


def test_the_smooth_maximum_goes_from_minimum_over_mean_to_maximum() -> None:
    two, many = acon_figures.smooth_maximum().axes
    same(two, curves.smooth_maximum_of_two())
    same(many, curves.smooth_maximum_of_many())
    numbers = np.asarray(curves.NUMBERS)
    x, y = points(many)[0]
    for beta, value in zip(x[::60], y[::60], strict=True):
        weights = np.exp(beta * numbers)
        assert value == pytest.approx((weights * numbers).sum() / weights.sum())
    assert y[x == 0.0][0] == pytest.approx(numbers.mean())
    dots = next(c for c in many.collections if isinstance(c, PathCollection))
    np.testing.assert_array_equal(np.asarray(dots.get_offsets())[:, 1], numbers)
    x, half = points(two)[0]
    np.testing.assert_allclose(half, x / 2.0)


def test_the_surfaces_of_frelu() -> None:
    table = curves.frelu_surfaces()
    np.testing.assert_array_equal(table["frelu"], np.maximum(table["x"], table["t"]))
    d = table["x"] - table["t"]
    np.testing.assert_allclose(table["acon_frelu"], d / (1.0 + np.exp(-d)) + table["t"])
    gap = table["acon_frelu"] - table["frelu"]
    assert -0.2785 < gap.min() < -0.27
    assert gap.max() <= 0.0
    figure = acon_figures.frelu_surface()
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "(a) FReLU", "(b) ACON-FReLU", "(c) difference, (b) less (a)",
    ]  # fmt: skip
    one: Any = figure.axes[0]
    surface = one.collections[0]
    heights = np.concatenate([np.asarray(p)[:, 2] for p in surface._faces])
    assert heights.min() == -3.0
    assert heights.max() == 3.0


def test_bars_are_the_printed_numbers_and_diamonds_the_others() -> None:
    axes = acon_figures.improvements().axes[0]
    table = paper.table("improvements")
    for container, column in zip(axes.containers, ("swish", "senet", "meta_acon"), strict=True):
        bars: Any = container
        assert [bar.get_height() for bar in bars] == pytest.approx(table[column].tolist())
    assert [label.get_text() for label in axes.get_xticklabels()] == table["network"].tolist()
    marks = [c for c in axes.collections if isinstance(c, PathCollection)]
    heights = sorted(float(np.asarray(mark.get_offsets())[0, 1]) for mark in marks)
    assert heights == [0.6, 1.8]
    words = [text for text, _ in texts(axes.figure)]
    for value in table[["swish", "senet", "meta_acon"]].to_numpy().ravel():
        assert f"{value:.1f}" in words


def test_tables_show_every_printed_cell() -> None:
    figure = acon_figures.paper_tables()
    names = ["table3", "meta_acon", "table4", "table9", "table10", "tfnet", "improvements"]
    assert len(figure.axes) == len(names)
    for axes, name in zip(figure.axes, names, strict=True):
        shown = [text.get_text() for text in axes.texts]
        cells = paper.printed(name).to_numpy().ravel().tolist()
        assert shown[-len(cells) :] == cells
        bold = [t.get_text() for t in axes.texts[1:] if t.get_fontweight() == "bold"]
        best = paper.printed(name).to_numpy()[paper.best_mask(name)].tolist()
        assert bold == best
    one = acon_figures.paper_tables(["counts"], width="single")
    assert len(one.axes) == 1
    sizes = {float(text.get_fontsize()) for text in one.axes[0].texts}
    assert min(sizes) > 4.0
    with pytest.raises(UsageError, match="hold no 'table5'"):
        acon_figures.paper_tables(["table5"])
    with pytest.raises(UsageError, match="names is empty"):
        acon_figures.paper_tables([])


@pytest.mark.parametrize("name", ["meta_acon_module", "tfnet_block"])
@pytest.mark.parametrize("width", ["single", "double"])
@pytest.mark.parametrize("context", ["paper", "talk"])
def test_the_words_of_a_diagram_stay_in_their_boxes(name: str, width: str, context: str) -> None:
    figure = figureframes.draw(name, width=width, context=context)
    boxes_of_text = dict.fromkeys(texts(figure))
    inside = 0
    for axes in figure.axes:
        for patch in axes.patches:
            if not isinstance(patch, FancyBboxPatch):
                continue
            edge = patch.get_window_extent()
            for text, box in boxes_of_text:
                middle = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
                if edge.contains(*middle):
                    assert edge.x0 <= box.x0, text
                    assert box.x1 <= edge.x1, text
                    assert edge.y0 <= box.y0 + 2.0, text
                    assert box.y1 <= edge.y1 + 2.0, text
                    inside += 1
    boxes = {"meta_acon_module": 18, "tfnet_block": 20}[name]
    assert inside == boxes


def test_the_diagrams_say_what_the_layers_do() -> None:
    steps = {
        title: [text for _, text, _ in panel] for title, panel in meta_acon_module.PANELS.items()
    }
    assert steps["channel-wise"].count("BatchNorm") == 2
    assert "ReLU" not in steps["channel-wise"]
    assert "ReLU" in steps["squeeze-excitation"]
    assert [text for _, text, _ in tfnet_block.BRANCH] == [
        "1×1 conv", "BatchNorm", "ACON-FReLU", "1×1 conv", "BatchNorm",
    ]  # fmt: skip


def test_learned_pieces_are_drawn_as_fitted() -> None:
    from acon_analysis.studies.experiments import learned_maxout

    table, lines = learned_maxout()
    figure = acon_figures.maxout_learned()
    for axes, (target, group) in zip(figure.axes, table.groupby("target", sort=False), strict=True):
        assert axes.get_title() == target
        same(axes, group, by="pieces")
        thin = next(c for c in axes.collections if isinstance(c, LineCollection))
        mine = lines[lines["target"] == target]
        largest = mine[mine["pieces"] == mine["pieces"].max()]
        ends = [float(np.asarray(segment)[1, 1]) for segment in thin.get_segments()]
        assert ends == pytest.approx((3.0 * largest["slope"] + largest["intercept"]).tolist())


def test_signals_are_drawn_as_measured() -> None:
    from acon_analysis.studies.experiments import signal_bands, signal_through_layers

    measured = signal_through_layers((0, 1), layers=6, width=64, samples=32)
    bands = signal_bands(measured)
    figure = acon_figures.selu_self_normalisation(measured)
    assert "6 dense layers" in figure.caption
    assert "2 seeds" in figure.caption
    for axes, quantity in zip(figure.axes, ("mean", "variance"), strict=True):
        for line in axes.lines:
            rows = bands[
                (bands["quantity"] == quantity) & (bands["activation"] == line.get_label())
            ]
            np.testing.assert_array_equal(np.asarray(line.get_ydata()), rows["middle"])
        assert len(axes.lines) == len(axes.collections) == 3
    assert figure.axes[1].get_yscale() == "log"
