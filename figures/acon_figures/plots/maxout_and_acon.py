"""The Maxout family next to the ACON family: the table of formulas and the curves."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from acon_analysis import family
from acon_analysis.plotdata import formula_curves as curves
from acon_figures.spec import figure
from acon_figures.style import (
    COLORS,
    RULE,
    TALK_SIZE,
    TALK_TEXT,
    AconFigure,
    cross,
    inches,
    is_narrow,
    new_figure,
    theme,
    thin,
)
from acon_figures.tabular import Cells, draw_table, fitting_size

HEADS = (r"$\eta_a(x)$", r"$\eta_b(x)$", "Maxout family", "ACON family")
GENERAL = (
    r"$\eta_a$", r"$\eta_b$", r"$\max(\eta_a,\ \eta_b)$",
    r"$(\eta_a - \eta_b)\,\sigma(\beta(\eta_a - \eta_b)) + \eta_b$",
)  # fmt: skip
MEMBERS = {
    "A": ("$x$", "$0$", r"$\max(x,\ 0)$: ReLU", "acon_a"),
    "B": ("$x$", "$px$", r"$\max(x,\ px)$: PReLU", "acon_b"),
    "C": ("$p_1x$", "$p_2x$", r"$\max(p_1x,\ p_2x)$", "acon_c"),
}
TITLES = {"A": "ReLU, ACON-A (Swish)", "B": "PReLU, ACON-B", "C": "max(p₁x, p₂x), ACON-C"}
CAPTION = (
    "The Maxout family and the ACON family, its smooth counterpart; σ is the sigmoid. Curves: the "
    "maximum (grey) and ACON for growing β, p = 0.25, p₁ = 1.2, p₂ = -0.8."
)


@figure(kind="formula", order=40)
def maxout_and_acon(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw the table of both families, and below it each hard function with its smooth partner.

    Returns
    -------
    AconFigure
        Axes: the table, then one for each member; the lines are the maximum and one a β.

    References
    ----------
    Ma, Zhang, Liu and Sun, Activate or Not: Learning Customized Activation, CVPR 2021, Table 1,
    doi:10.1109/CVPR46437.2021.00794.
    """
    cells = _cells()
    table = curves.maxout_and_acon()
    with theme(context):
        narrow = is_narrow(width)
        scale, text = (1.0, 1.0) if context == "paper" else (TALK_SIZE, TALK_TEXT)
        points = 72.0 * scale * (inches(width) - 0.1)
        size = fitting_size(cells, points, 8.0 * text)
        top = cells.height * size / 72.0 / scale + 0.1
        height = top + (5.9 if narrow else 2.15)
        figure = new_figure(width, height, context)
        share = (top - 0.1) / height
        edge = 0.05 / inches(width)
        rect = (edge, 1.0 - share - 0.05 / height, 1.0 - 2.0 * edge, share)
        draw_table(figure.add_axes(rect), cells, size, points)
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.set(rect=(0.0, 0.0, 1.0, 1.0 - top / height))  # type: ignore[call-arg]
        grid = (3, 1) if narrow else (1, 3)
        for axes, member in zip(figure.subplots(*grid), MEMBERS, strict=True):
            _draw(axes, table[table["member"] == member], member)
    figure.caption = CAPTION
    return figure


def _cells() -> Cells:
    rows = [GENERAL]
    for a, b, hard, name in MEMBERS.values():
        activation = family.ACTIVATIONS[name]
        title = "ACON-A (Swish)" if name == "acon_a" else activation.title
        rows.append((a, b, hard, f"{title}: ${activation.latex}$"))
    return Cells(HEADS, rows, left=(True,) * 4, breaks=(1,))


def _draw(axes: Axes, table: pd.DataFrame, member: str) -> None:
    axes.set_xlim(-3.0, 3.0)
    axes.set_ylim(-1.0, 3.5)
    axes.yaxis.set_major_locator(MultipleLocator(1.0))
    cross(axes)
    shades = iter((COLORS["sky"], COLORS["green"], COLORS["orange"], COLORS["red"]))
    styles = iter(("dotted", "dashdot", "dashed", "solid"))
    for name, curve in table.groupby("curve", sort=False):
        if name == "max":
            axes.plot(curve["x"], curve["y"], color=RULE, linewidth=thin(3.0), label="max")
        else:
            color, style = next(shades), next(styles)
            axes.plot(curve["x"], curve["y"], color=color, linestyle=style, label=f"β = {name}")
    axes.set_title(TITLES[member])
    axes.set_xlabel("x")
    if member == "A":
        axes.legend(loc="upper left", handlelength=1.6)
