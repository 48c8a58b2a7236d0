"""ReLU and nine activations like it in one plot."""

from acon_analysis.plotdata.activation_gallery import RELU_LIKE, gallery_curves
from acon_figures.spec import figure
from acon_figures.style import COLORS, DASHES, INK, AconFigure, cross, is_narrow, new_figure, theme

CAPTION = (
    "Activations like ReLU. They agree on the right, nearly, and differ on the left: the leaky "
    "ones go on falling, ELU and SELU level off, Mish, GELU and Swish come back to 0, Softplus "
    "stays above it. RReLU as it is evaluated, with the mean slope."
)


@figure(kind="formula", order=100)
def relu_like(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw ReLU and nine activations like it in one plot.

    Parameters
    ----------
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        ``axes[0].lines``: one a function, in the order of `plotdata.activation_gallery.RELU_LIKE`.
    """
    table = gallery_curves(RELU_LIKE, reach=3.5)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.0 if narrow else 3.3, context)
        axes = figure.add_subplot()
        axes.set_xlim(-3.5, 2.0)
        axes.set_ylim(-2.0, 2.2)
        cross(axes)
        colors = [INK, *(COLORS[c] for c in ("blue", "orange", "green", "red", "purple"))]
        colors += [COLORS[c] for c in ("brown", "sky", "grey", "blue")]
        for index, entry in enumerate(RELU_LIKE):
            curve = table[table["activation"] == entry.title]
            style = DASHES[index % len(DASHES)]
            color = colors[index]
            axes.plot(curve["x"], curve["y"], color=color, linestyle=style, label=entry.title)
        axes.set_xlabel("x")
        axes.set_ylabel("f(x)")
        if narrow:
            figure.legend(loc="outside lower center", ncols=2)
        else:
            figure.legend(loc="outside right upper")
    figure.caption = CAPTION
    return figure
