"""Learned p1 and p2 of every channel, and the derivatives that the data reach."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.columns import FACT_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.plotdata.channels import reached_share
from acon_analysis.screen import counted
from acon_analysis.selection import choose_network, require_columns
from acon_analysis.statistics.sentences import row_names
from acon_figures.names import layer_labels, layers_word
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, RULE, AconFigure, is_narrow, new_figure, theme, thin

MANY = 1000
"""More points than this are drawn as pixels in PDF and SVG."""

MOST_LETTERS = 36
"""Of the names of layers in one line, with two more for each gap."""

CAPTION = (
    "Learned slopes and the derivatives they allow, {network}, {channels} in {layers}. "
    "(a) p1 and p2 of each channel; on the solid line, p1 = p2, a channel is linear "
    "whatever its β; on the dashed one, p1 = -p2, least remains of the straight line. (b) How "
    "far the derivative of each channel varies, greatest minus least: over its inputs (blue) and "
    "over all real numbers (with the orange end); channels of a layer from the straightest to the "
    "most bent. The inputs of the median channel reach {reached:.0f} % of what it can vary."
)


@figure(
    kind="measured",
    heading="Slopes: learned, and reached by the data",
    needs=("channels",),
    order=210,
)
def slopes(
    channels: pd.DataFrame,
    network: str | None = None,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw p1 against p2 of every channel, and how far each channel's derivative varies, by layer.

    The reading: channels near p1 = p2 are straight lines, the short bars of (b); orange
    ends are derivatives that the channel's inputs never reach.

    Parameters
    ----------
    channels : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`.
    network : str, optional
        By default the first in the table.

    Returns
    -------
    AconFigure
        ``axes[0]``: one scatter of (p1, p2); ``axes[1]``: two filled staircases from 0, over all
        real inputs and over the data, one step a channel.

    Raises
    ------
    UsageError
        For an unknown network.
    AconError
        If a column is missing, or no channel has p1 and p2.
    """
    require_columns(channels, names(FACT_COLUMNS), "the table of channels")
    own = choose_network(channels, network).dropna(subset=["p1", "p2"])
    if own.empty:
        raise AconError("no channel of the table has p1 and p2: its layers are not ACON")
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 5.6 if narrow else 2.9, context)
        grid: dict[str, Any] = {"height_ratios": [3, 2]} if narrow else {"width_ratios": [2, 3]}
        left, right = figure.subplots(2 if narrow else 1, 1 if narrow else 2, **grid)
        _draw_pairs(left, own)
        _draw_ranges(right, own)
        figure.legend(loc="outside lower center", ncols=2 if narrow else 4)
    figure.name(f"{own['network'].iloc[0]} on {own['data'].iloc[0]}")
    reached = 100 * float(reached_share(own).median())
    figure.caption = CAPTION.format(
        reached=reached,
        network=own["network"].iloc[0], channels=counted(len(own), "channel"),
        layers=counted(len(own[["layer", "call"]].drop_duplicates()), "layer"),
    )  # fmt: skip
    return figure


def _draw_pairs(axes: Axes, own: pd.DataFrame) -> None:
    reach = 1.08 * float(np.abs(own[["p1", "p2"]].to_numpy()).max())
    ends = np.array([-reach, reach])
    axes.plot(ends, ends, color=INK, linewidth=thin(0.7), label="$p_1 = p_2$")
    axes.plot(
        ends, -ends, color=INK, linewidth=thin(0.7), linestyle=(0, (5, 2)), label="$p_1 = -p_2$"
    )
    axes.scatter(
        own["p1"],
        own["p2"],
        s=thin(1.9 if len(own) < MANY else 1.1) ** 2,
        color=COLORS["blue"],
        alpha=0.55,
        linewidths=0.0,
        zorder=3.0,
        rasterized=len(own) > MANY,
    )
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_box_aspect(1.0)
    axes.set_title("(a) learned slopes")
    axes.set_xlabel("$p_1$")
    axes.set_ylabel("$p_2$")


def _draw_ranges(axes: Axes, own: pd.DataFrame) -> None:
    parts = [
        part.iloc[(part["slope_max"] - part["slope_min"]).argsort(kind="stable")]
        for _, part in own.groupby(["layer", "call"], sort=False)
    ]
    table = pd.concat(parts, ignore_index=True)
    edges = np.arange(len(table) + 1) - 0.5
    looks = {
        "beyond the data": (table["slope_max"] - table["slope_min"], COLORS["orange"]),
        "over the data": (table["slope_high"] - table["slope_low"], COLORS["blue"]),
    }
    for label, (span, color) in looks.items():
        axes.stairs(span, edges, fill=True, color=color, linewidth=0.0, label=label)
    axes.set_ylim(bottom=0.0)
    counts = [len(part) for part in parts]
    starts = np.concatenate([[0], np.cumsum(counts)])
    for start in starts[1:-1]:
        axes.axvline(start - 0.5, color=RULE, linewidth=thin(0.6), zorder=0.5)
    layers = list(dict.fromkeys(row_names(table)))
    names = layer_labels(layers)
    middles = (starts[:-1] + starts[1:] - 1) / 2
    kept = _apart(middles, len(table))
    axes.set_xticks(middles[kept], [names[index] for index in kept])
    if sum(len(names[index]) + 2 for index in kept) > MOST_LETTERS:
        axes.tick_params(axis="x", labelrotation=90.0)
    axes.set_xlim(-1.0, len(table))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(layers_word(layers))
    axes.set_title("(b) how far derivatives vary")
    axes.set_ylabel("range of the derivative")


def _apart(middles: npt.NDArray[np.float64], whole: int) -> list[int]:
    """Return the indices of layers whose names have room: a twenty-fifth of the width."""
    kept: list[int] = []
    for index, middle in enumerate(middles):
        if not kept or middle - middles[kept[-1]] >= 0.042 * whole:
            kept.append(index)
    return kept
