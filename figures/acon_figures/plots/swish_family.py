"""Swish and its derivative for β = 0, 1, 5, 100: from a line to ReLU."""

from acon_analysis.plotdata import formula_curves as curves
from acon_figures.spec import figure
from acon_figures.style import DASHES, AconFigure, cross, is_narrow, new_figure, theme

LABELS = {"0": "0 (x/2)", "1": "1 (SiLU)", "5": "5", "100": "100 (≈ ReLU)"}
SHADES = ("#7fb9d9", "#0173b2", "#014a73", "#01263b")
"""The colour of Swish, the darker the greater β."""

CAPTION = (
    "Swish x σ(βx) and its derivative. β = 0 is the line x/2, β = 1 the SiLU; as β grows it "
    "approaches ReLU. The derivative overshoots to 1.0998 and -0.0998 for every β > 0, ever closer "
    "to x = 0."
)


@figure(kind="formula", order=110)
def swish_family(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw Swish and its derivative for β = 0, 1, 5, 100.

    Returns
    -------
    AconFigure
        Two axes, function and derivative, one line a β.

    Notes
    -----
    Swish was found by a search over functions built from one kind of unit, applied repeatedly:
    two inputs, each through a unary function (such as x, -x, x², σ(x), sin(x), max(x, 0)), joined
    by a binary one (such as the sum, the product, the maximum). Small spaces were searched
    exhaustively, large ones by a recurrent controller trained by reinforcement learning, each
    candidate judged by a small network's accuracy.

    References
    ----------
    Ramachandran, Zoph and Le, Searching for Activation Functions, 2017, arXiv:1710.05941.
    """
    table = curves.swish_family()
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.6 if narrow else 2.5, context)
        grid = (2, 1) if narrow else (1, 2)
        for axes, panel in zip(figure.subplots(*grid), ("function", "derivative"), strict=True):
            axes.set_xlim(-4.0, 4.0)
            axes.set_ylim((-2.2, 4.2) if panel == "function" else (-0.25, 1.25))
            cross(axes)
            styles = zip(SHADES, (DASHES[i] for i in (1, 0, 3, 2)), strict=True)
            here = table[table["panel"] == panel]
            for name, curve in here.groupby("curve", sort=False):
                color, style = next(styles)
                label = LABELS[str(name)]
                axes.plot(curve["x"], curve["y"], color=color, linestyle=style, label=label)
            axes.set_xlabel("x")
            axes.set_title("(a) function" if panel == "function" else "(b) derivative")
            axes.set_ylabel("x σ(βx)" if panel == "function" else "derivative")
            if panel == "function":
                axes.legend(loc="upper left", title="β")
    figure.caption = CAPTION
    return figure
