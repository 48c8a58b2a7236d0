"""Fifteen activations, each with derivative, formula, limits and slope bounds."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from acon_analysis.plotdata.activation_gallery import GALLERY, gallery_curves, gallery_facts
from acon_figures.labels import legend_below
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import INK, MUTED, AconFigure, cross, is_narrow, new_figure, theme, thin

DERIVATIVE = (0, (2.5, 1.2))
"""Line style of the derivatives."""

CAPTION = (
    "Activations (solid) and their first derivatives (dashed). Below each name: the formula, the "
    "lines that the function approaches for x to -∞ and to +∞, and the bounds of the derivative. "
    "SELU: α = 1.67326324, λ = 1.05070098; RReLU as evaluated, l = 1/8, u = 1/3; in GELU Φ is the "
    "normal distribution function, in Mish s is Softplus."
)


@figure(kind="formula", order=90)
def activation_gallery(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw fifteen activations, each with its derivative, formula, limits and slope range.

    Returns
    -------
    AconFigure
        One axes an activation, in the order of `activation_gallery.GALLERY`; its two lines are
        function and derivative.
    """
    table, facts = gallery_curves(), gallery_facts()
    with theme(context):
        columns = 2 if is_narrow(width) else 3
        rows = -(-len(GALLERY) // columns)
        figure = new_figure(width, rows * (1.45 if columns == 2 else 1.7) + 0.25, context)
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for axes, (_, fact) in zip(panels, facts.iterrows(), strict=False):
            _draw(axes, table[table["activation"] == fact["activation"]], fact, columns == 2)
        for axes in panels[len(GALLERY) :]:
            axes.set_axis_off()
        for axes in panels[-columns:]:
            axes.set_xlabel("x" if axes.axison else "")
        legend_below(figure, [
            Line2D([], [], color=INK, linewidth=thin(1.4), label="function f"),
            Line2D([], [], color=MUTED, linestyle=DERIVATIVE, label="derivative f'"),
        ])  # fmt: skip
    figure.caption = CAPTION
    return figure


def _draw(axes: Axes, curve: pd.DataFrame, fact: "pd.Series[str]", narrow: bool) -> None:
    axes.set_xlim(-4.0, 4.0)
    if float(curve["y"].max()) <= 1.0:
        axes.set_ylim(-1.25, 1.25)
        axes.set_yticks((-1, 0, 1))
    else:
        axes.set_ylim(-2.3, 4.3)
        axes.set_yticks((-2, 0, 2, 4))
    axes.set_xticks((-4, -2, 0, 2, 4))
    axes.tick_params(labelbottom=True)
    cross(axes)
    color = activation_color(fact["activation"])
    axes.plot(curve["x"], curve["y"], color=color, linewidth=thin(1.4), zorder=2.2)
    axes.plot(curve["x"], curve["slope"], color=MUTED, linestyle=DERIVATIVE, zorder=2.1)
    size = float(mpl.rcParams["xtick.labelsize"]) * 0.86
    formula = fact["latex"].split(r",\ \alpha")[0]  # SELU's constants stand in the caption
    ends = f"{fact['left']} ← f → {fact['right']}"
    low, high = _short(fact["low"]), _short(fact["high"])
    slopes = f"f' = {low}" if low == high else f"{low} ≤ f' ≤ {high}"
    lines = [f"${formula}$", ends, slopes] if narrow else [f"${formula}$", f"{ends};  {slopes}"]
    axes.annotate(
        "\n".join(lines), (0.5, 1.0), (0.0, 2.0), xycoords="axes fraction",
        textcoords="offset points", ha="center", va="bottom", size=size, linespacing=1.25,
    )  # fmt: skip
    axes.set_title(fact["activation"], pad=size * (1.3 * len(lines) + 0.4) + 2.0, weight="bold")


def _short(value: object) -> str:
    text = f"{float(str(value)):.4f}".rstrip("0").rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")
