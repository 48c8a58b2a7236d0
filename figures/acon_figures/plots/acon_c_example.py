"""ACON-C from the mean of two lines to their maximum as β grows."""

from acon_analysis.plotdata import formula_curves as curves
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, AconFigure, cross, new_figure, theme, thin

CAPTION = (
    "ACON-C for p₁ = 1.2, p₂ = -0.8. For β towards 0 it is the mean of the two lines, 0.2 x (red, "
    "dashed); as β grows it approaches their maximum (black, dashed)."
)


@figure(kind="formula", order=30)
def acon_c_example(*, width: str | float = "single", context: str = "paper") -> AconFigure:
    """Draw ACON-C for p1 = 1.2, p2 = -0.8 and β = 0.01, 0.1, 1, as the paper does.

    The reading: β switches a unit from linear (the mean of both lines) to nonlinear (their
    maximum).

    Returns
    -------
    AconFigure
        ``axes[0].lines``: p1 x, p2 x, their mean, then one line a β.
    """
    table = curves.acon_c_example()
    with theme(context):
        figure = new_figure(width, 2.5, context)
        axes = figure.add_subplot()
        axes.set_xlim(-6.0, 6.0)
        axes.set_ylim(-2.0, 4.0)
        cross(axes)
        guides = {"p1": INK, "p2": INK, "mean": COLORS["red"]}
        colors = iter(COLORS.values())
        for name, curve in table.groupby("curve", sort=False):
            if name in guides:
                color = guides[str(name)]
                axes.plot(curve["x"], curve["y"], color=color, linestyle="--", linewidth=thin(0.7))
            else:
                axes.plot(curve["x"], curve["y"], color=next(colors), label=f"β = {name}")
        axes.text(2.1, 3.4, "p₁x", ha="right", va="center")
        axes.text(-3.6, 3.4, "p₂x", ha="left", va="center")
        axes.text(-5.8, -1.55, "(p₁+p₂)x/2", color=COLORS["red"], ha="left", va="center")
        axes.set_xlabel("x")
        axes.set_ylabel("ACON(p₁x, p₂x)")
        axes.legend(loc="lower right")
    figure.caption = CAPTION
    return figure
