"""One ACON-C unit and its inputs: function, derivative, bounds, best line and L."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis import family
from acon_analysis.plotdata.unit_curves import unit_curves, unit_facts
from acon_analysis.screen import counted
from acon_figures.names import folded
from acon_figures.style import COLORS, INK, AconFigure, cross, is_narrow, new_figure, theme, thin


def acon_unit(
    p1: float = 1.2,
    p2: float = -0.8,
    beta: float = 1.0,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    betas: npt.ArrayLike | None = None,
    subject: str = "",
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
    betas : array_like, optional
        β of every sample, shape (samples,): a third panel counts them and marks `beta`.
    subject : str
        Which unit it is, for the title.
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        ``axes[0].lines``: the function, then the two lines it lies between or above, then the best
        straight line over the inputs; ``axes[1].lines[0]``: the derivative. Shaded: the density
        of the inputs. With `betas`, ``axes[2].patches`` are the counts, ``axes[2].lines[0]`` is
        `beta`.
    """
    curves = unit_curves(p1, p2, beta, mean, std)
    facts = unit_facts(p1, p2, beta, mean, std)
    with theme(context):
        narrow = is_narrow(width)
        gap = "\n" if narrow else "   "
        rows, heights = ("fd", [2.8]) if not narrow else ("f;d", [2.8, 2.8])
        if betas is not None:
            rows, heights = f"{rows};{'b' if narrow else 'bb'}", [*heights, 1.2]
        figure = new_figure(width, sum(heights) + 0.1, context)
        axes = figure.subplot_mosaic(rows, height_ratios=heights)
        _draw_function(axes["f"], curves, p1, p2, upper=beta >= 0)
        _draw_derivative(axes["d"], curves, facts, p1, p2)
        if betas is not None:
            _draw_betas(axes["b"], np.asarray(betas, dtype=np.float64), beta)
        for one in (axes["f"], axes["d"]):
            _draw_density(one, curves)
            one.set_xlabel("input x")
            one.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        unit = f"p1 = {p1:.3g}, p2 = {p2:.3g}, β = {beta:.3g}, x ~ N({mean:.3g}, {std:.3g}²)"
        title = f"{unit}:{gap}L = {facts['L']:.3f}"
        figure.suptitle(f"{folded(subject, 46 if narrow else 100)}\n{title}".strip())
    figure.caption = (
        f"ACON-C with p1 = {p1:.3g}, p2 = {p2:.3g}, β = {beta:.3g} and its derivative; shaded: the "
        f"density of Gaussian inputs with mean {mean:.3g} and standard deviation {std:.3g}. The "
        f"best straight line over these inputs explains L = {facts['L']:.3f} of the output's "
        f"variance. The derivative lies between {facts['low']:.3f} and {facts['high']:.3f} over "
        "all x."
    )
    return figure


def _draw_function(axes: Axes, curves: pd.DataFrame, p1: float, p2: float, *, upper: bool) -> None:
    x = curves["x"]
    axes.plot(x, curves["y"], color=COLORS["blue"], linewidth=thin(1.7), label="ACON-C", zorder=3)
    axes.plot(x, p1 * x, color=COLORS["orange"], linestyle=(0, (5, 1.5)), label="p1·x")
    axes.plot(x, p2 * x, color=COLORS["green"], linestyle=(0, (1.2, 1.2)), label="p2·x")
    axes.plot(x, curves["line"], color=INK, linestyle=(0, (5, 1.2, 1.2, 1.2)), label="best line")
    # What any β of this sign can reach, so that the axis stands still while β moves.
    reached = np.maximum(p1 * x, p2 * x) if upper else np.minimum(p1 * x, p2 * x)
    shown = np.concatenate([reached, (p1 + p2) / 2 * x, curves["line"]])
    margin = 0.08 * float(np.ptp(shown)) + 0.1
    axes.set_ylim(float(shown.min()) - margin, float(shown.max()) + margin)
    cross(axes)
    axes.set_title("function", loc="left")
    axes.set_ylabel("output")


def _draw_derivative(
    axes: Axes, curves: pd.DataFrame, facts: "pd.Series[float]", p1: float, p2: float
) -> None:
    axes.plot(
        curves["x"], curves["slope"], color=COLORS["blue"], linewidth=thin(1.7), label="f'(x)"
    )
    for name, label in (("low", "bounds of f' over all x"), ("high", "_")):
        axes.axhline(facts[name], color=COLORS["red"], linestyle=(0, (5, 1.5)), label=label)
    low, high = (float(one) for one in family.derivative_bounds(p1, p2))
    margin = 0.12 * (high - low) + 0.1
    axes.set_ylim(low - margin, high + margin)
    cross(axes)
    axes.set_title("derivative", loc="left")
    axes.set_ylabel("slope of the output")


def _draw_betas(axes: Axes, betas: npt.NDArray[np.float64], beta: float) -> None:
    """Count β of the samples, and mark one."""
    axes.hist(betas, bins=40, color=COLORS["sky"])
    axes.axvline(beta, color=COLORS["red"], linewidth=thin(1.7))
    below = float((betas < beta).mean())
    axes.set_title(
        f"β of {counted(len(betas), 'sample')}, {100 * below:.0f} % of them below the line",
        loc="left",
    )
    axes.set(xlabel="β", ylabel="samples")


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
