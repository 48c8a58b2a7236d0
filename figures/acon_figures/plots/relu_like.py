"""ReLU and nine activations like it in one plot."""

import numpy as np
from matplotlib.patches import Rectangle

from acon_analysis.plotdata.activation_gallery import RELU_LIKE, gallery_curves
from acon_figures.labels import End, label_ends, letters
from acon_figures.palette import activation_looks
from acon_figures.spec import figure
from acon_figures.style import MUTED, AconFigure, cross, is_narrow, new_figure, theme, thin

LIMITS = (((-3.5, 2.0), (-2.0, 2.2)), ((-2.5, 0.4), (-1.05, 0.4)))
"""Ranges of x and y: of the whole and of the enlarged panel."""

CAPTION = (
    "Activations like ReLU; (b) is the frame in (a). They agree on the right, nearly, and differ "
    "on the left: the leaky ones go on falling, ELU and SELU level off, Mish, GELU and Swish come "
    "back to 0, Softplus stays above it. RReLU as it is evaluated, with the mean slope."
)


@figure(kind="formula", order=100)
def relu_like(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw ReLU and nine activations like it in one plot.

    Returns
    -------
    AconFigure
        ``axes[0].lines`` and, enlarged, ``axes[1].lines``: one a function, in the order of
        `plotdata.activation_gallery.RELU_LIKE`.
    """
    table = gallery_curves(RELU_LIKE, reach=3.5)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 5.2 if narrow else 2.9, context)
        panels = figure.subplots(*((2, 1) if narrow else (1, 2)))
        whole, near = panels
        looks = activation_looks(one.title for one in RELU_LIKE)
        for axes in panels:
            for one, look in zip(RELU_LIKE, looks, strict=True):
                curve = table[table["activation"] == one.title]
                axes.plot(curve["x"], curve["y"], label=one.title, **look | {"marker": ""})
        for axes, (x, y) in zip(panels, LIMITS, strict=True):
            axes.set_xlim(*x)
            axes.set_ylim(*y)
            cross(axes)
            axes.set_xlabel("x")
        whole.set_ylabel("f(x)")
        letters(panels, ("from -3.5 to 2", "enlarged: left of 0"))
        whole.add_patch(Rectangle(
            (LIMITS[1][0][0], LIMITS[1][1][0]), np.ptp(LIMITS[1][0]), np.ptp(LIMITS[1][1]),
            fill=False, edgecolor=MUTED, linewidth=thin(0.8), zorder=3,
        ))  # fmt: skip
        ends = [
            End(1.0, float(np.interp(LIMITS[1][0][0], *line.get_data())), str(line.get_label()),
                str(line.get_color()))
            for line in near.lines
        ]  # fmt: skip
        label_ends(near, ends, side="left")
        near.yaxis.tick_right()
    figure.caption = CAPTION
    return figure
