import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from acon_analysis import family
from acon_analysis.plotdata import formula_curves as curves
from acon_figures import function_and_derivatives

PAIRS = [(1.0, 0.0), (1.2, -0.1), (0.8, 0.1)]
BETAS = [2.0, 1.0, 0.1]
SETTINGS = {
    "a": [(*pair, 1.0) for pair in PAIRS],
    "b": [(1.0, 0.0, beta) for beta in BETAS],
    "c": [(*pair, 1.0) for pair in PAIRS],
}


def silu_slope(u: np.ndarray) -> np.ndarray:
    s = 1.0 / (1.0 + np.exp(-u))
    return np.asarray(s + u * s * (1.0 - s))


@pytest.mark.parametrize("as_published", [False, True])
def test_each_line_is_its_formula(as_published: bool) -> None:
    figure = function_and_derivatives(as_published)
    assert [axes.get_title()[:3] for axes in figure.axes] == ["(a)", "(b)", "(c)"]
    for axes, (panel, settings) in zip(figure.axes, SETTINGS.items(), strict=True):
        assert len(axes.lines) == 3
        for line, (p1, p2, beta) in zip(axes.lines, settings, strict=True):
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            d = p1 - p2
            argument = (0.7 if as_published else d) * beta * x
            expected = p2 + d * silu_slope(argument)
            if panel == "a":
                expected = d * x / (1.0 + np.exp(-d * beta * x)) + p2 * x
            np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
            assert (x[0], x[-1]) == curves.PANEL_LIMITS[panel] == axes.get_xlim()
            assert 0.0 in x


def test_heights_and_places_of_the_extrema() -> None:
    figure = function_and_derivatives()
    for axes, panel in zip(figure.axes[1:], "bc", strict=True):
        for line, (p1, p2, beta) in zip(axes.lines, SETTINGS[panel], strict=True):
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            assert y.max() == pytest.approx(1.0998393201 * p1 - 0.0998393201 * p2, abs=1e-9)
            assert y.min() == pytest.approx(1.0998393201 * p2 - 0.0998393201 * p1, abs=1e-9)
            reach = 2.3993572805 / (beta * (p1 - p2))
            assert x[y.argmax()] == pytest.approx(reach, abs=1e-8)
            assert x[y.argmin()] == pytest.approx(-reach, abs=1e-8)


def test_published_extrema_lie_where_the_papers_picture_has_them() -> None:
    figure = function_and_derivatives(as_published=True)
    _, b, c = figure.axes
    peaks = [line.get_xdata()[np.argmax(line.get_ydata())] for line in (*b.lines, *c.lines)]
    u = family.U_STAR / 0.7
    assert peaks == pytest.approx([u / 2, u, u / 0.1, u, u, u])


def segments(axes: object) -> list[tuple[float, tuple[float, float]]]:
    found = []
    for collection in axes.collections:  # type: ignore[attr-defined]
        if isinstance(collection, LineCollection):
            for (x0, y0), (x1, y1) in collection.get_segments():
                if y0 == y1 != 0.0:
                    found.append((float(y0), (float(x0), float(x1))))
    return found


def test_bounds_are_lines_at_their_exact_heights_across_the_panel() -> None:
    a, b, c = function_and_derivatives().axes
    assert segments(a) == []
    assert [y for y, _ in segments(b)] == pytest.approx([-0.0998393201289, 1.0998393201289])
    expected = [bound for pair in PAIRS for bound in family.derivative_bounds(*pair, 1.0)]
    assert [y for y, _ in segments(c)] == pytest.approx(expected)
    assert {x for _, x in segments(c)} == {(-20.0, 20.0)}
    _, b, c = function_and_derivatives(as_published=True).axes
    assert len(segments(b)) == 2
    assert segments(c) == []


def test_marks_stand_where_the_bounds_are_reached() -> None:
    for axes, panel in zip(function_and_derivatives().axes[1:], "bc", strict=True):
        marks = [c for c in axes.collections if isinstance(c, PathCollection)]
        assert len(marks) == 3
        for mark, (p1, p2, beta) in zip(marks, SETTINGS[panel], strict=True):
            reach = 2.3993572805154677 / (beta * (p1 - p2))
            low, high = family.derivative_bounds(p1, p2, beta)
            expected = np.array([(-reach, low), (reach, high)])
            np.testing.assert_allclose(np.asarray(mark.get_offsets(), dtype=float), expected)


def test_one_columns_width_stacks_the_panels_in_order() -> None:
    figure = function_and_derivatives(width="single")
    tops = [axes.get_position().y1 for axes in figure.axes]
    assert tops == sorted(tops, reverse=True)
    assert [axes.get_title()[:3] for axes in figure.axes] == ["(a)", "(b)", "(c)"]


def test_the_table_names_each_curve() -> None:
    table, bounds = curves.function_and_derivatives()
    assert table.groupby(["panel", "curve"]).ngroups == 9
    assert len(bounds) == 6
    assert (bounds["low"] < bounds["high"]).all()
