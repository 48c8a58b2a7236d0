"""A ReLU network next to an ACON one, with the curves of six trained channels."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Ellipse, Patch

from acon_analysis.plotdata.channels import sketch_curves, spread_channels
from acon_figures.labels import legend_below
from acon_figures.spec import figure
from acon_figures.style import (
    INK,
    MUTED,
    RULE,
    AconFigure,
    inches,
    is_narrow,
    new_figure,
    theme,
    thin,
)

COLUMNS = {"input": 0.08, "convolution": 0.36, "BatchNorm": 0.64, "activation": 0.92}
RADIUS = 0.33
"""Radius of a circle where rows are 1 apart."""

TINT = LinearSegmentedColormap.from_list("strength", ["#ffffff", "#f6b26b"])
"""From a straight line to a function of which no line explains anything."""

OF_RELU = float(np.sqrt(1.0 - 0.25 / (0.5 - 0.5 / np.pi)))
"""What no line explains of ReLU's output for centred Gaussian inputs, as a standard deviation."""

CAPTION = (
    "A ReLU network and an ACON network, each named above its activation. The six curves of the "
    "ACON network are trained: channels {channels} of layer {layer} of {network}, from the most "
    "linear to the most nonlinear of the layer at equal ranks of L, in the order of the channels, "
    "each at its mean β and from two standard deviations below to two above the mean of its "
    "inputs. The darker the tint, the greater the share of its output's standard deviation that no "
    "straight line explains, √(1 - L): white is a straight line. ReLU is its formula, tinted as "
    "for centred Gaussian inputs. Inputs, convolution and BatchNorm only show where the "
    "activation is."
)


@figure(kind="measured", needs=("channels",), one_layer=True, order=270)
def network_sketch(
    channels: pd.DataFrame,
    layer: str | None = None,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw six rows of a ReLU network next to the same of an ACON network with trained curves.

    The reading: ReLU bends every channel alike; ACON learns for each whether, and how, to bend
    (white circles: not at all).

    Parameters
    ----------
    channels : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`.
    layer : str, optional
        By default the last ACON layer.

    Returns
    -------
    AconFigure
        ``axes[0]`` ReLU, ``axes[1]`` ACON; the curves are the last six lines of each, the tinted
        circles its last six patches.

    Raises
    ------
    UsageError, AconError
        As `acon_analysis.plotdata.channels.spread_channels`.
    """
    chosen = spread_channels(channels, layer)
    curves = sketch_curves(chosen)
    each = [curves[curves["channel"] == channel] for channel in chosen["channel"]]
    x = np.linspace(-2.0, 2.0, 81)
    relu = [pd.DataFrame({"x": x, "y": np.maximum(x, 0.0)})] * len(each)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 5.4 if narrow else 2.9, context)
        panels = figure.subplots(2 if narrow else 1, 1 if narrow else 2, squeeze=False).ravel()
        one = inches(width) / (1 if narrow else 2)
        aspect = one / (2.6 if narrow else 2.7) * (len(each) + 0.6) / 1.0
        for axes, name, shapes, strength in (
            (panels[0], "ReLU", relu, [OF_RELU] * len(each)),
            (panels[1], "ACON", each, list(chosen["strength"])),
        ):
            _draw_network(axes, name, len(each), aspect)
            for row, tint in enumerate(strength):
                _circle(axes, COLUMNS["activation"], row, aspect, TINT(float(tint)))
            for row, curve in enumerate(shapes):
                _curve(axes, row, curve, aspect)
        for row, channel in enumerate(chosen["channel"]):
            panels[1].annotate(
                str(channel), (1.0, row), (3.0, 0.0), textcoords="offset points", va="center",
                size="small", color=MUTED,
            )  # fmt: skip
        panels[1].annotate(
            "channel", (1.0, -0.62), (-2.0, 0.0), textcoords="offset points", va="center",
            size="small", color=MUTED,
        )  # fmt: skip
        handles = [
            Patch(facecolor=TINT(share), edgecolor=INK, label=words)
            for share, words in ((0.0, "a straight line"), (0.5, "between"),
                                 (1.0, "no line explains it"))
        ]  # fmt: skip
        legend_below(figure, handles)
    figure.name(
        f"{chosen['network'].iloc[0]} on {chosen['data'].iloc[0]}: {chosen['name'].iloc[0]}"
    )
    figure.caption = CAPTION.format(
        channels=", ".join(str(channel) for channel in chosen["channel"]),
        layer=chosen["name"].iloc[0], network=chosen["network"].iloc[0],
    )  # fmt: skip
    return figure


def _draw_network(axes: Axes, name: str, rows: int, aspect: float) -> None:
    """Draw lines and empty circles; row 0 is on top."""
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(rows - 0.4, -1.0)
    columns = list(COLUMNS.values())
    for row in range(rows):
        for other in (row - 1, row, row + 1):
            if 0 <= other < rows:
                axes.plot(columns[:2], [row, other], color=INK, linewidth=thin(0.8), zorder=1.0)
        axes.plot(columns[1:], [row] * 3, color=INK, linewidth=thin(0.8), zorder=1.0)
        for x in columns[:3]:
            _circle(axes, x, row, aspect, (1.0, 1.0, 1.0, 1.0))
    for word, x in COLUMNS.items():
        text = name if word == "activation" else word
        axes.text(x, -0.62, text, ha="center", va="center", size="small")


def _circle(
    axes: Axes, x: float, row: int, aspect: float, color: tuple[float, float, float, float]
) -> None:
    axes.add_patch(
        Ellipse(
            (x, row), 2 * RADIUS / aspect, 2 * RADIUS, facecolor=color, edgecolor=INK,
            linewidth=thin(0.9), zorder=2.0,
        )
    )  # fmt: skip


def _curve(axes: Axes, row: int, curve: pd.DataFrame, aspect: float) -> None:
    """Draw a function within its circle, its axes dotted; both scales are the circle's own."""
    half = 0.68 * RADIUS
    x, y = curve["x"].to_numpy(), curve["y"].to_numpy()
    reach_x, reach_y = np.abs(x).max(), max(float(np.abs(y).max()), 1e-12)
    middle = COLUMNS["activation"]
    axes.hlines(row, middle - half / aspect, middle + half / aspect, color=RULE,
                linestyle=":", linewidth=thin(0.5), zorder=2.5)  # fmt: skip
    axes.vlines(middle, row - half, row + half, color=RULE, linestyle=":",
                linewidth=thin(0.5), zorder=2.5)  # fmt: skip
    axes.plot(
        middle + x / reach_x * half / aspect, row - y / reach_y * half, color=INK,
        linewidth=thin(0.9), zorder=3.0,
    )  # fmt: skip
