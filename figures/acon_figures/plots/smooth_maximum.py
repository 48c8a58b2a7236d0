"""The smooth maximum of two and of five numbers, from mean to maximum."""

from matplotlib.axes import Axes

from acon_analysis.plotdata import formula_curves as curves
from acon_figures.spec import figure
from acon_figures.style import (
    COLORS,
    DASHES,
    INK,
    AconFigure,
    cross,
    is_narrow,
    new_figure,
    theme,
    thin,
)

CAPTION = (
    "The smooth maximum S(x₁, ..., xₙ) = Σ xᵢ exp(β xᵢ) / Σ exp(β xᵢ). (a) Of two arguments, x and "
    "0: the mean x/2 for β = 0, towards max(x, 0) as β grows. (b) Of the five numbers on the right "
    "edge, over β: from their minimum over their mean (β = 0) to their maximum."
)


@figure(kind="formula", order=120)
def smooth_maximum(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw the smooth maximum of (x, 0) over x for several β, and of five numbers over β.

    Returns
    -------
    AconFigure
        Axes (a): one line a β, last the maximum; (b): the smooth maximum over β, then minimum,
        mean and maximum of the numbers.

    References
    ----------
    Ma, Zhang, Liu and Sun, Activate or Not: Learning Customized Activation, CVPR 2021,
    doi:10.1109/CVPR46437.2021.00794.
    """
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.8 if narrow else 2.6, context)
        left, right = figure.subplots(*((2, 1) if narrow else (1, 2)))
        _two(left)
        _many(right)
    figure.caption = CAPTION
    return figure


def _two(axes: Axes) -> None:
    axes.set_xlim(-4.0, 4.0)
    axes.set_ylim(-2.2, 4.2)
    cross(axes)
    colors = iter(COLORS.values())
    table = curves.smooth_maximum_of_two()
    for index, (name, curve) in enumerate(table.groupby("curve", sort=False)):
        hard = name == "max"
        color = INK if hard else next(colors)
        style = (0, (1, 1)) if hard else DASHES[index]
        label = "max(x, 0)" if hard else str(name)
        axes.plot(curve["x"], curve["y"], color=color, linestyle=style, label=label)
    axes.set_title("(a) two arguments")
    axes.set_xlabel("x")
    axes.set_ylabel("smooth maximum of x and 0")
    axes.legend(loc="upper left", title="β")


def _many(axes: Axes) -> None:
    table = curves.smooth_maximum_of_many()
    for name, curve in table.groupby("curve", sort=False):
        if name == "smooth":
            axes.plot(curve["x"], curve["y"], color=COLORS["blue"])
        else:
            height = float(curve["y"].iloc[0])
            axes.plot(curve["x"], curve["y"], color=INK, linestyle="--", linewidth=thin())
            word = {"min": "minimum", "mean": "mean", "max": "maximum"}[str(name)]
            side = 11.0 if name == "min" else -11.5
            align = "right" if name == "min" else "left"
            axes.annotate(
                word, (side, height), (0.0, 2.0), textcoords="offset points", ha=align, va="bottom"
            )
    edge = [12.0] * len(curves.NUMBERS)
    axes.scatter(edge, curves.NUMBERS, color=COLORS["red"], clip_on=False, zorder=3.0)
    axes.set_xlim(-12.0, 12.0)
    axes.set_ylim(-1.25, 1.9)
    axes.set_title("(b) five arguments")
    axes.set_xlabel("β")
    axes.set_ylabel("smooth maximum of the dots")
