"""What Swish, SENet and meta-ACON gain over ReLU in four networks."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from acon_analysis import paper
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import INK, AconFigure, is_narrow, new_figure, theme, thin

METHODS = {"swish": "Swish", "senet": "SENet", "meta_acon": "meta-ACON"}
METHOD_COLORS = tuple(activation_color(name) for name in ("swish", "senet", "metaacon"))
OTHERS = {(0, "swish"): 0.6, (2, "meta_acon"): 1.8}
"""Where the tables print another number than the bars, by network and method."""

CAPTION = (
    "Gain in ImageNet top-1 accuracy over the same network with ReLU, in points, as printed in "
    "the paper's bar chart. Diamonds: other printed numbers for the same bar. Table 3 gives "
    "27.4 - 26.8 = 0.6 for Swish in ShuffleNetV2 1.5x (bar: 0.8), the official README 1.8 for "
    "meta-ACON in ResNet-101 (bar: 1.7)."
)


@figure(kind="printed numbers", order=50)
def improvements(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw the printed gains in ImageNet top-1 accuracy over ReLU, three methods, four networks.

    The reading: meta-ACON gains about twice what squeeze-and-excitation gains, while Swish gains
    little in deep networks. Two bars disagree with the paper's own tables; diamonds show the other
    number.

    Returns
    -------
    AconFigure
        The bars of each method are one container of ``axes[0].containers``.
    """
    import seaborn as sns

    table = paper.table("improvements")
    long = table.melt("network", list(METHODS), var_name="method", value_name="gain")
    long["method"] = long["method"].map(METHODS)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 2.8 if narrow else 2.6, context)
        axes = figure.add_subplot()
        sns.barplot(
            long, x="network", y="gain", hue="method", errorbar=None, saturation=1.0,
            palette=list(METHOD_COLORS), legend=False, ax=axes,
        )  # fmt: skip
        for method, bars in zip(METHODS, axes.containers, strict=True):
            for network, bar in enumerate(bars):
                _label(axes, bar, OTHERS.get((network, method)))
        axes.set_ylim(0.0, 3.1)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("")
        axes.set_ylabel("accuracy gain over ReLU (points)")
        marks, words = axes.get_legend_handles_labels()
        handles: list[Any] = [*axes.containers, *marks]
        names = [*METHODS.values(), *words]
        if narrow:
            figure.legend(handles, names, loc="outside lower center", ncols=2)
        else:
            axes.legend(handles, names, loc="upper right")
    figure.name("ImageNet, top-1 accuracy as the paper prints it")
    figure.caption = CAPTION
    return figure


def _label(axes: Axes, bar: Rectangle, other: float | None) -> None:
    """Write a bar's height above it; mark another printed number by a diamond."""
    middle, height = bar.get_x() + bar.get_width() / 2, bar.get_height()
    top, lift = height, 1.5
    if other is not None:
        axes.scatter(
            middle, other, marker="D", facecolor="white", edgecolor=INK, linewidth=thin(0.7),
            zorder=3.0, label="other printed number" if other > 1.0 else None,
        )  # fmt: skip
        if other > height:  # clear of the diamond, whose half is 3.5 points
            top, lift = other, 1.5 + thin(3.0)
    text = f"{height:.1f}"
    axes.annotate(
        text, (middle, top), (0.0, lift), textcoords="offset points", ha="center", size="small"
    )
