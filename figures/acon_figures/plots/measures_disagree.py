"""Which measures of nonlinearity agree on a layer's channels, and which contradict."""

from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.plotdata.channels import channel_curves
from acon_analysis.plotdata.measure_ranks import MeasureRanks, measure_ranks
from acon_analysis.screen import counted
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, RULE, AconFigure, is_narrow, new_figure, theme, thin

NAMES = {
    "nonlinearity": "$1 - L$",
    "s_c": "share $s_c$",
    "G": "gate $G$",
    "kappa": "gain $κ$",
    "affinity": "1 - affinity",
    "gradient_variance": "slope var.",
    "gate_entropy": "sign entropy",
    "abs_beta": "mean |β|",
}
COLORMAP = "RdBu"

CAPTION = (
    "Measures of nonlinearity over the {channels} of layer {layer} of {network}, all "
    "turned so that more means more nonlinear. (a) Spearman's correlation of each pair. Then "
    "the channels on which {against} contradict 1 - L most. Above: the channel's function (blue, "
    "at its median β, over the range of its inputs) and its best straight line (dotted). Below: "
    "its rank among the channels by each measure, from the most linear (0) to the most nonlinear "
    "(1); red: the two that contradict. {reasons}"
)


@figure(
    kind="measured",
    heading="What the measures of linearity do not agree on",
    needs=("channels",),
    options=("measures",),
    one_layer=True,
    order=250,
)
def measures_disagree(
    channels: pd.DataFrame,
    layer: str | None = None,
    *,
    measures: pd.DataFrame | None = None,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw how measures of nonlinearity correlate, and the channels they contradict about.

    The reading: measures of one dark block agree about a layer's channels; a pale row is a
    measure that contradicts them, and the examples say what misleads it.

    Parameters
    ----------
    channels : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`.
    layer : str, optional
        By default the last ACON layer.
    measures : pandas.DataFrame, optional
        Columns network, layer, call, channel, affinity, gradient_variance.

    Returns
    -------
    AconFigure
        ``axes[0]``: the correlations as an image; then for each example its curve (two lines) and
        its ranks (one collection of points).

    Raises
    ------
    UsageError, AconError
        As `acon_analysis.plotdata.measure_ranks.measure_ranks`.
    """
    found = measure_ranks(channels, measures, layer)
    count = len(found.examples)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 5.6 if narrow else 3.6, context)
        if narrow:
            grid = figure.add_gridspec(3, max(count, 1), height_ratios=[2.6, 1.0, 2.0])
            matrix = figure.add_subplot(grid[0, :])
            cells = [(grid[1, position], grid[2, position]) for position in range(count)]
        else:
            grid = figure.add_gridspec(
                2, 1 + count, width_ratios=[2.2, *[1.0] * count], height_ratios=[1.0, 1.7]
            )
            matrix = figure.add_subplot(grid[:, 0])
            cells = [(grid[0, 1 + position], grid[1, 1 + position]) for position in range(count)]
        _draw_matrix(matrix, found)
        below: list[Axes] = []
        for (above, under), example in zip(cells, found.examples.to_dict("records"), strict=True):
            one = figure.add_subplot(above)
            _draw_function(one, found, example)
            headline = f"({'bcdefg'[len(below)]}) {example['headline']}"
            one.set_title(fill(headline, 14 if narrow else 16), size="small")
            ranks = figure.add_subplot(under)
            _draw_ranks(ranks, found, example, named=not below)
            below.append(ranks)
        if below:
            below[len(below) // 2].set_xlabel("rank, linear to nonlinear")
    first = found.ranks.iloc[0]
    figure.name(f"{first['network']} on {first['data']}: {first['name']}")
    figure.caption = _caption(found)
    return figure


def _draw_matrix(axes: Axes, found: MeasureRanks) -> None:
    values = found.correlations.to_numpy(dtype=np.float64)
    axes.imshow(values, cmap=COLORMAP, vmin=-1.0, vmax=1.0, interpolation="nearest")
    positions = range(len(found.measures))
    for row in positions:
        for column in positions:
            strong = abs(values[row, column]) > 0.6
            axes.text(
                column, row, f"{values[row, column]:.1f}".replace("-0.0", "0.0"), ha="center",
                va="center", size="x-small", color="white" if strong else INK,
            )  # fmt: skip
    names = [NAMES[name] for name in found.measures]
    axes.set_xticks(positions, names, rotation=90)
    axes.set_yticks(positions, names)
    axes.tick_params(length=0.0)
    axes.grid(visible=False)
    axes.set_title("(a) rank correlation of measures")


def _draw_function(axes: Axes, found: MeasureRanks, example: dict[Any, Any]) -> None:
    facts = found.ranks.set_index("channel", drop=False).loc[example["channel"]]
    curves = channel_curves(facts)
    for name, color, style in (("beta_middle", "blue", "solid"), ("fit", None, ":")):
        own = curves[curves["curve"] == name]
        axes.plot(own["x"], own["y"], color=COLORS[color] if color else INK, linestyle=style)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(
        0.5, 0.95, f"channel {example['channel']}", transform=axes.transAxes, ha="center",
        va="top", size="x-small",
    )  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.25 * (high - low))


def _draw_ranks(axes: Axes, found: MeasureRanks, example: dict[Any, Any], *, named: bool) -> None:
    row = found.ranks.set_index("channel").loc[example["channel"]]
    ranks = np.array([row[f"rank_{name}"] for name in found.measures], dtype=np.float64)
    positions = np.arange(len(ranks))
    pair = [found.measures.index(name) for name in ("nonlinearity", example["against"])]
    axes.plot(ranks[pair], positions[pair], color=COLORS["red"], linewidth=thin(0.8), zorder=2.0)
    axes.hlines(positions, 0.0, 1.0, color=RULE, linewidth=thin(0.7), zorder=1.0)
    colors = [COLORS["red"] if position in pair else COLORS["grey"] for position in positions]
    axes.scatter(ranks, positions, color=colors, s=thin(3.1) ** 2, zorder=3.0)
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    axes.set_xticks([0.0, 1.0], ["0", "1"])
    axes.set_yticks(positions, [NAMES[name] for name in found.measures] if named else [])
    axes.grid(visible=False)


def _caption(found: MeasureRanks) -> str:
    words = {"abs_beta": "|β|", "gate_entropy": "the entropy of the gate's sign", "s_c": "s_c"}
    reasons = " ".join(
        f"Channel {row['channel']}: {row['reason']}." for row in found.examples.to_dict("records")
    )
    first = found.ranks.iloc[0]
    return CAPTION.format(
        channels=counted(len(found.ranks), "channel"), layer=first["name"],
        network=first["network"],
        against=", ".join(words[name] for name in found.examples["against"]), reasons=reasons,
    )  # fmt: skip
