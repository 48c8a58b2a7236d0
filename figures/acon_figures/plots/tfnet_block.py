"""TFNet's blocks of stride 1 and 2 and the ACON-FReLU inside."""

from matplotlib.axes import Axes

from acon_figures.diagrams import ACTIVATION, BOX_HEIGHT, LINEAR, arrow, box, column, panel, word
from acon_figures.spec import figure
from acon_figures.style import AconFigure, is_narrow, new_figure, theme

ROWS = 9.6
BRANCH = (
    (7.4, "1×1 conv", LINEAR),
    (6.4, "BatchNorm", LINEAR),
    (5.4, "ACON-FReLU", ACTIVATION),
    (4.4, "1×1 conv", LINEAR),
    (3.4, "BatchNorm", LINEAR),
)
CAPTION = (
    "TFNet's block, from the official code. Every activation is an ACON-FReLU, which also does the "
    "spatial work: it takes the smooth maximum (β = 1) of its input and of a depthwise 3×3 "
    "convolution of it. In the blocks that halve the resolution (s = 2) the first argument is "
    "max-pooled, and input and branch are concatenated instead of added."
)


@figure(kind="formula", order=80)
def tfnet_block(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw TFNet's blocks of stride 1 and 2 and the inside of their ACON-FReLU.

    Returns
    -------
    AconFigure
        Axes: block of stride 1, block of stride 2, ACON-FReLU; the boxes are their patches.

    References
    ----------
    Official code of Ma, Zhang, Liu and Sun, Activate or Not: Learning Customized Activation, CVPR
    2021, doi:10.1109/CVPR46437.2021.00794.
    """
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 6.0 if narrow else 3.0, context)
        if narrow:
            grid = figure.add_gridspec(2, 2)
            last = grid[1, :]
        else:
            grid = figure.add_gridspec(1, 3, width_ratios=(1.0, 1.0, 1.5))
            last = grid[0, 2]
        _block(figure.add_subplot(grid[0, 0]), "block, stride 1", "+", "ACON-FReLU")
        _block(figure.add_subplot(grid[0, 1]), "block, stride 2", "concat", "ACON-FReLU, s = 2")
        _inside(figure.add_subplot(last))
    figure.caption = CAPTION
    return figure


def _block(axes: Axes, title: str, join: str, activation: str) -> None:
    panel(axes, title, ROWS)
    middle, right = 0.42, 0.93
    steps = [(9.2, "x", ""), *BRANCH, (2.2, join, LINEAR), (1.0, activation, ACTIVATION)]
    column(axes, middle, steps, width=0.76)
    arrow(axes, (middle, 8.45), (right, 8.45), (right, 2.2), (middle + 0.38, 2.2))
    arrow(axes, (middle, 1.0 - BOX_HEIGHT / 2), (middle, 0.1))


def _inside(axes: Axes) -> None:
    panel(axes, "ACON-FReLU, stride s", ROWS)
    left, right, middle = 0.25, 0.75, 0.5
    word(axes, middle, 9.2, "x")
    arrow(axes, (middle, 8.85), (middle, 8.3), head=False)
    arrow(axes, (middle, 8.3), (left, 8.3), (left, 6.4 + BOX_HEIGHT / 2))
    arrow(axes, (middle, 8.3), (right, 8.3), (right, 7.2 + BOX_HEIGHT / 2))
    box(axes, left, 6.4, "s = 1: x", width=0.44)
    box(axes, left, 6.4 - BOX_HEIGHT, "s = 2: 3×3 max-pool", width=0.44)
    column(axes, right, [(7.2, "depthwise 3×3", LINEAR), (5.8, "BatchNorm", LINEAR)], width=0.44)
    smooth, low = 3.6, 6.4 - 1.5 * BOX_HEIGHT
    for x, start, name in ((left, low, r"$\eta_a$"), (right, 5.8 - BOX_HEIGHT / 2, r"$\eta_b$")):
        arrow(axes, (x, start), (x, smooth + BOX_HEIGHT / 2))
        word(axes, x + 0.03, (start + smooth + BOX_HEIGHT / 2) / 2 + 0.1, name, align="left")
    formula = r"$(\eta_a - \eta_b)\,\sigma(\eta_a - \eta_b) + \eta_b$"
    box(axes, middle, smooth, formula, width=0.94, fill=ACTIVATION)
    arrow(axes, (middle, smooth - BOX_HEIGHT / 2), (middle, 2.0 + BOX_HEIGHT / 2))
    box(axes, middle, 2.0, "BatchNorm", width=0.44)
    arrow(axes, (middle, 2.0 - BOX_HEIGHT / 2), (middle, 0.9))
