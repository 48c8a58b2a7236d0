"""How β is made layer-, channel- and pixel-wise, next to squeeze-excitation."""

from matplotlib.axes import Axes

from acon_figures.diagrams import ACTIVATION, BOX_HEIGHT, GATE, LINEAR, arrow, column, panel
from acon_figures.spec import figure
from acon_figures.style import AconFigure, is_narrow, new_figure, theme

ROWS = 10.0
X, OUT = 9.6, 0.5
Step = tuple[float, str, str]
PANELS: dict[str, tuple[Step, ...]] = {
    "layer-wise": (
        (X, "x: C×H×W", ""),
        (7.0, "sum over C, H, W", LINEAR),
        (3.5, "σ", GATE),
        (1.9, "β: one a sample", ""),
        (OUT, "ACON-C", ACTIVATION),
    ),
    "channel-wise": (
        (X, "x: C×H×W", ""),
        (8.5, "mean over H, W", LINEAR),
        (7.5, "1×1, C → C'", LINEAR),
        (6.5, "BatchNorm", LINEAR),
        (5.5, "1×1, C' → C", LINEAR),
        (4.5, "BatchNorm", LINEAR),
        (3.5, "σ", GATE),
        (1.9, "β: one a channel", ""),
        (OUT, "ACON-C", ACTIVATION),
    ),
    "pixel-wise": (
        (X, "x: C×H×W", ""),
        (3.5, "σ", GATE),
        (1.9, "β: one a value", ""),
        (OUT, "ACON-C", ACTIVATION),
    ),
    "squeeze-excitation": (
        (X, "x: C×H×W", ""),
        (8.5, "mean over H, W", LINEAR),
        (7.5, "1×1, C → C/r", LINEAR),
        (6.0, "ReLU", GATE),
        (5.0, "1×1, C/r → C", LINEAR),
        (3.5, "σ", GATE),
        (1.9, "s: one a channel", ""),
        (OUT, "s · x", LINEAR),
    ),
}
CAPTION = (
    "How Meta-ACON makes its switching factor β from the input x, layer-, channel- and pixel-wise, "
    "next to squeeze-and-excitation. There the gate scales x; here it sets how nonlinear ACON-C "
    "(p₁, p₂ learned) is. Channel-wise as in the official code, inner width C' = max(r, C // r), "
    "without a nonlinearity between the two 1×1 convolutions; layer- and pixel-wise by the paper's "
    "formulas."
)


@figure(kind="formula", order=70)
def meta_acon_module(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw the three forms of Meta-ACON's module next to squeeze-and-excitation.

    Returns
    -------
    AconFigure
        One axes a form; the boxes are its patches.

    References
    ----------
    Ma, Zhang, Liu and Sun, Activate or Not: Learning Customized Activation, CVPR 2021,
    doi:10.1109/CVPR46437.2021.00794. Hu, Shen and Sun, Squeeze-and-Excitation Networks, CVPR 2018,
    arXiv:1709.01507.
    """
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 5.6 if narrow else 2.9, context)
        panels = figure.subplots(*((2, 2) if narrow else (1, 4)), squeeze=False).ravel()
        for axes, (title, steps) in zip(panels, PANELS.items(), strict=True):
            panel(axes, title, ROWS)
            column(axes, 0.4, steps, width=0.72)
            _bypass(axes)
    figure.caption = CAPTION
    return figure


def _bypass(axes: Axes) -> None:
    """Lead x past the gate to the last box."""
    right = 0.93
    arrow(axes, (0.66, X), (right, X), (right, OUT), (0.76, OUT))
    arrow(axes, (0.4, OUT - BOX_HEIGHT / 2), (0.4, OUT - BOX_HEIGHT / 2 - 0.45))
