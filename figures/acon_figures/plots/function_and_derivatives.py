"""ACON-C and its first derivative for several β, p1, p2, with the exact bounds."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from acon_analysis.plotdata import formula_curves as curves
from acon_figures.spec import figure
from acon_figures.style import (
    COLORS,
    DASHES,
    INK,
    PUBLISHED_COLORS,
    RULE,
    AconFigure,
    cross,
    is_narrow,
    new_figure,
    theme,
    thin,
)

CURVE_COLORS = ("blue", "orange", "green")
TITLES = {
    "a": "(a) ACON activation function",
    "b": "(b) Property of β",
    "c": "(c) Property of p₁ and p₂",
}
Y_LIMITS = {"a": (-6.0, 6.0), "b": (-0.3, 1.4), "c": (-0.3, 1.4)}
X_STEPS = {"a": 2.0, "b": 30.0, "c": 10.0}
X_STEPS_PUBLISHED = {"a": 2.0, "b": 20.0, "c": 5.0}
LEGENDS = {"a": 0.2, "b": 0.4, "c": 0.4}


class Arrow(NamedTuple):
    """A double arrow with the name of the parameter that it shows."""

    start: tuple[float, float]
    end: tuple[float, float]
    name: str
    at: tuple[float, float]


ARROWS = {
    "a": (
        Arrow((4.9, 5.6), (4.9, 4.1), "p₁", (4.9, 3.2)),
        Arrow((-5.2, 0.5), (-5.2, -0.6), "p₂", (-5.2, 1.2)),
    ),
    "b": (
        Arrow((2.0, 1.17), (26.0, 1.17), "β", (14.0, 1.25)),
        Arrow((-26.0, -0.17), (-2.0, -0.17), "β", (-14.0, -0.24)),
    ),
    "c": (
        Arrow((14.0, 1.19), (14.0, 0.81), "p₁", (14.0, 0.73)),
        Arrow((-14.0, 0.1), (-14.0, -0.1), "p₂", (-14.0, 0.19)),
    ),
}


ARROWS_PUBLISHED = {
    "a": (
        Arrow((4.6, 5.0), (5.25, 4.3), "p₁", (5.4, 3.4)),
        Arrow((-5.4, 0.5), (-5.4, -0.45), "p₂", (-4.6, 0.12)),
    ),
    "b": (
        Arrow((10.0, 1.07), (22.0, 1.07), "β", (16.0, 1.17)),
        Arrow((-20.0, -0.07), (-8.0, -0.07), "β", (-14.0, -0.18)),
    ),
    "c": (
        Arrow((14.2, 1.08), (14.2, 0.94), "p₁", (12.0, 1.06)),
        Arrow((-13.0, 0.08), (-13.0, -0.06), "p₂", (-10.9, 0.045)),
    ),
}
"""Where the paper has them; names next to the curves instead of on them."""


@figure(kind="formula", variants={"as_published": {"as_published": True}}, order=20)
def function_and_derivatives(
    as_published: bool = False, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw ACON-C (a), its derivative for three β (b) and for three pairs p1, p2 (c).

    The reading: β sets how fast the derivative moves from one slope to the other, but not how
    far it overshoots them; p1 and p2 set the slopes and with them the bounds
    (p1 + p2)/2 ± 1.19968 |p1 - p2|/2.

    The published panels (b) and (c) do not follow the paper's own formula: the argument inside
    their sigmoid is 0.7 β x instead of (p1 - p2) β x (0.7 is p1 - p2 of the last pair drawn), so
    their extrema lie at other x, though at the right heights.

    Parameters
    ----------
    as_published : bool
        False (the default) draws the formula, with the bounds as lines at their exact heights
        and marks where they are reached, x = ±u*/(β (p1 - p2)), u* = 2.39936. True draws the
        published curves: the stale 0.7, and lines for the bounds in panel (b) only.

    Returns
    -------
    AconFigure
        ``axes`` are (a), (b), (c) in order; the ``lines`` of each are exactly its three curves
        (bounds, axes' crosses and marks are collections).

    References
    ----------
    Ma, Zhang, Liu and Sun, Activate or Not: Learning Customized Activation, CVPR 2021,
    doi:10.1109/CVPR46437.2021.00794.
    """
    table, bounds = curves.function_and_derivatives(as_published)
    colors = PUBLISHED_COLORS if as_published else COLORS
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 6.6 if narrow else 2.45, context)
        grid = (3, 1) if narrow else (1, 3)
        for axes, panel in zip(figure.subplots(*grid), "abc", strict=True):
            _set_up(axes, panel, as_published)
            if panel == "b" or (panel == "c" and not as_published):
                _draw_bounds(axes, bounds[bounds["panel"] == panel], panel, colors)
            _draw_curves(axes, table[table["panel"] == panel], panel, colors)
            if panel != "a" and not as_published:
                _draw_marks(axes, bounds[bounds["panel"] == panel], colors)
            _add_legend(axes, panel, as_published)
    figure.caption = CAPTION_PUBLISHED if as_published else CAPTION
    return figure


CAPTION = (
    "ACON-C f(x) = (p₁ - p₂) x σ(β (p₁ - p₂) x) + p₂ x and its first derivative. (a) f for three "
    "pairs p₁, p₂ and β = 1. (b) f' for p₁ = 1, p₂ = 0 and three β: the bounds 1.0998 and -0.0998 "
    "(dashed) do not depend on β. (c) f' for the pairs of (a): the bounds (p₁ + p₂)/2 ± 1.19968 "
    "|p₁ - p₂|/2 (dashed) do depend on p₁ and p₂. Dots: where a bound is reached, "
    "x = ±2.39936/(β (p₁ - p₂))."
)
CAPTION_PUBLISHED = (
    "ACON-C and its first derivative as published. The published panels (b) and (c) have "
    "0.7 β x inside the sigmoid where the paper's formula has (p₁ - p₂) β x, so their extrema "
    "lie at other x than the formula's; their heights are right."
)


def _set_up(axes: Axes, panel: str, as_published: bool) -> None:
    axes.set_xlim(*curves.PANEL_LIMITS[panel])
    axes.set_ylim(*Y_LIMITS[panel])
    steps = X_STEPS_PUBLISHED if as_published else X_STEPS
    axes.xaxis.set_major_locator(MultipleLocator(steps[panel]))
    axes.yaxis.set_major_locator(MultipleLocator(2.0 if panel == "a" else 0.2))
    if as_published:
        axes.tick_params(labelsize="x-small")
    cross(axes)
    axes.set_title(TITLES[panel], pad=thin(7.0))
    axes.set_xlabel("x", labelpad=1.0)
    slope = "First derivatives" if as_published else "first derivative f'(x)"
    axes.set_ylabel("f(x)" if panel == "a" else slope, labelpad=1.0)
    for arrow in (ARROWS_PUBLISHED if as_published else ARROWS)[panel]:
        head = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
        axes.annotate("", xy=arrow.start, xytext=arrow.end, arrowprops=head)
        axes.text(*arrow.at, arrow.name, ha="center", va="center")


def _add_legend(axes: Axes, panel: str, as_published: bool) -> None:
    if as_published and panel != "c":  # the paper's position hides the curves' minima
        axes.legend(loc="lower right", handlelength=1.8, edgecolor=RULE, fontsize="x-small")
        return
    axes.legend(
        loc="center right", bbox_to_anchor=(1.0, LEGENDS[panel]), handlelength=1.8,
        title="β" if panel == "b" else "p₁, p₂", title_fontsize="small",
    )  # fmt: skip


def _draw_curves(axes: Axes, table: pd.DataFrame, panel: str, colors: Mapping[str, str]) -> None:
    for index, curve in table.groupby("curve"):
        first = curve.iloc[0]
        published = colors is PUBLISHED_COLORS
        label = f"{'β = ' if published else ''}{first['beta']:g}"
        if panel != "b":
            words = "p₁ = {:.1f}, p₂ = {:.1f}" if published and panel == "a" else "{:.1f}, {:.1f}"
            pair = words.format(first["p1"], first["p2"])
            label = pair.replace("-", "\N{MINUS SIGN}")
        number = int(str(index))
        style = "solid" if published else DASHES[(0, 1, 3)[number]]
        axes.plot(
            curve["x"], curve["y"], color=colors[CURVE_COLORS[number]], linestyle=style,
            label=label, linewidth=thin(0.75 if published else 1.0),
        )  # fmt: skip


def _draw_bounds(axes: Axes, bounds: pd.DataFrame, panel: str, colors: Mapping[str, str]) -> None:
    low, high = curves.PANEL_LIMITS[panel]
    for _, row in bounds.iterrows():
        color = colors[CURVE_COLORS[row["curve"]]]
        heights = [row["low"], row["high"]]
        axes.hlines(heights, low, high, color=color, linestyle=(0, (4, 2)), linewidth=thin())
        if panel == "b":
            return  # the bounds of all three curves are the same


def _draw_marks(axes: Axes, bounds: pd.DataFrame, colors: Mapping[str, str]) -> None:
    for _, row in bounds.iterrows():
        color = colors[CURVE_COLORS[row["curve"]]]
        ends = [row["x_low"], row["x_high"]], [row["low"], row["high"]]
        axes.scatter(*ends, zorder=3.0, color=color)
