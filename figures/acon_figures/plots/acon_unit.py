"""One ACON-C unit and its inputs: function, derivative, bounds, best line and L."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.plotdata.unit_curves import unit_curves, unit_facts
from acon_figures.style import COLORS, INK, AconFigure, cross, is_narrow, new_figure, theme, thin


def acon_unit(
    p1: float = 1.2,
    p2: float = -0.8,
    beta: float = 1.0,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw one ACON-C unit over Gaussian inputs.

    Parameters
    ----------
    p1, p2, beta : float
        Parameters of `acon_analysis.family.acon_c`.
    mean, std : float
        Of the inputs; std > 0.
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        ``axes[0].lines``: the function, then the two lines it lies between or above, then the best
        straight line over the inputs; ``axes[1].lines[0]``: the derivative. Shaded: the density
        of the inputs.
    """
    curves = unit_curves(p1, p2, beta, mean, std)
    facts = unit_facts(p1, p2, beta, mean, std)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 5.6 if narrow else 2.9, context)
        axes = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        _draw_function(axes[0], curves, p1, p2)
        _draw_derivative(axes[1], curves, facts)
        for one in axes:
            _draw_density(one, curves)
            one.set_xlabel("input x")
            one.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        figure.suptitle(
            f"p1 = {p1:g}, p2 = {p2:g}, β = {beta:g}, x ~ N({mean:g}, {std:g}²)"
            + (":\n" if narrow else ":   ")
            + f"L = {facts['L']:.3f}"
        )
    figure.caption = (
        f"ACON-C with p1 = {p1:g}, p2 = {p2:g}, β = {beta:g} and its derivative; shaded: the "
        f"density of Gaussian inputs with mean {mean:g} and standard deviation {std:g}. The best "
        f"straight line over these inputs explains L = {facts['L']:.3f} of the output's variance. "
        f"The derivative lies between {facts['low']:.3f} and {facts['high']:.3f} over all x."
    )
    return figure


def _draw_function(axes: Axes, curves: pd.DataFrame, p1: float, p2: float) -> None:
    x = curves["x"]
    axes.plot(x, curves["y"], color=COLORS["blue"], linewidth=thin(1.7), label="ACON-C", zorder=3)
    axes.plot(x, p1 * x, color=COLORS["orange"], linestyle=(0, (5, 1.5)), label="p1·x")
    axes.plot(x, p2 * x, color=COLORS["green"], linestyle=(0, (1.2, 1.2)), label="p2·x")
    axes.plot(x, curves["line"], color=INK, linestyle=(0, (5, 1.2, 1.2, 1.2)), label="best line")
    shown = np.concatenate([curves["y"], curves["line"]])
    margin = 0.08 * float(np.ptp(shown)) + 0.1
    axes.set_ylim(float(shown.min()) - margin, float(shown.max()) + margin)
    cross(axes)
    axes.set_title("function", loc="left")
    axes.set_ylabel("output")


def _draw_derivative(axes: Axes, curves: pd.DataFrame, facts: "pd.Series[float]") -> None:
    axes.plot(
        curves["x"], curves["slope"], color=COLORS["blue"], linewidth=thin(1.7), label="f'(x)"
    )
    for name, label in (("low", "bounds of f' over all x"), ("high", "_")):
        axes.axhline(facts[name], color=COLORS["red"], linestyle=(0, (5, 1.5)), label=label)
    margin = 0.12 * (facts["high"] - facts["low"]) + 0.1
    axes.set_ylim(facts["low"] - margin, facts["high"] + margin)
    cross(axes)
    axes.set_title("derivative", loc="left")
    axes.set_ylabel("slope of the output")


def _draw_density(axes: Axes, curves: pd.DataFrame) -> None:
    """Shade the density of the inputs, a third of the panel high."""
    bottom, top = axes.get_ylim()
    height = curves["density"] / curves["density"].max() * (top - bottom) / 3
    axes.fill_between(
        curves["x"], bottom, bottom + height, color=COLORS["grey"], alpha=0.3, linewidth=0.0,
        label="density of x", zorder=0.5,
    )  # fmt: skip
    axes.set_ylim(bottom, top)
    axes.set_xlim(curves["x"].min(), curves["x"].max())
