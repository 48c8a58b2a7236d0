"""The mean derivative of every channel over its data, and which reach little of its range."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from acon_analysis.errors import AconError
from acon_analysis.plotdata.channels import reached_share
from acon_analysis.plotdata.portraits import reached_slopes as slopes_of
from acon_analysis.screen import counted
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import activation_handles, legend_below, mark, name_layers
from acon_figures.palette import activation_color
from acon_figures.plots.channel_spread import MANY
from acon_figures.spec import figure
from acon_figures.style import INK, AconFigure, is_narrow, new_figure, theme, thin

LITTLE = 0.5
"""Share of the range of its derivative below which a channel's dot is a ring."""

CAPTION = (
    "How steep the {channels} of {network} are on their data, layer by layer in order of "
    "execution. Dots: the slope of the straight line that fits a channel best. It is a mean of the "
    "derivatives that the data meet, in which inputs near their mean count most: at 0 a channel "
    "passes nothing on, at 1 everything; a ReLU at 0.5 is on for about half of its inputs. Bars: "
    "the layer's median.{rings}{unknown}{without}"
)
RINGS = (
    " Rings: {count} whose data reach less than half of the range of the derivative: they bend "
    "little, or are flat there, as a saturated gate is."
)
UNKNOWN = " For {count} that range is unknown: no formula with known parameters."
WITHOUT = " Left out: {count} without one line, such as those of gated products, with two inputs."


@figure(
    kind="measured", heading="The derivative over the data", needs=("every_channel",), order=174
)
def reached_slopes(
    every_channel: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw the mean derivative of each channel over its data, layer by layer.

    The reading: dots at 0 are channels that pass nothing on; rings are channels whose data see
    less than half of the function's bend, dead ones included.

    Parameters
    ----------
    every_channel : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`; of several networks the first.

    Returns
    -------
    AconFigure
        One axes: two collections a layer, dots and rings, then one of bars, the medians.

    Raises
    ------
    AconError
        If a column is missing or there is no channel, or none but those of gated products.
    """
    whole = slopes_of(every_channel)
    facts = whole.dropna(subset="slope")
    if facts.empty:
        raise AconError("no channel has one input: gated products have two")
    facts = facts.assign(little=reached_share(facts) < LITTLE)
    groups = [own for _, own in facts.groupby(["layer", "call"], sort=False)]
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 2.8, context)
        axes = figure.add_subplot()
        for index, own in enumerate(groups):
            _draw_layer(axes, index, own, len(facts) > MANY)
        at = np.arange(len(groups))
        medians = [own["slope"].median() for own in groups]
        axes.hlines(medians, at - 0.36, at + 0.36, color=INK, linewidth=thin(1.4), zorder=3)
        axes.axhline(0.0, color=INK, linewidth=thin(0.6), zorder=1.5)
        name_layers(axes, list(dict.fromkeys(row_names(facts))), narrow=narrow)
        axes.set_ylabel("mean derivative")
        names = list(dict.fromkeys(str(own["activation"].iloc[0]) for own in groups))[:6]
        legend_below(figure, _handles(names, bool(facts["little"].any())))
    figure.name(f"{facts['network'].iloc[0]} on {facts['data'].iloc[0]}")
    rings, lacking = int(facts["little"].sum()), int(facts["slope_low"].isna().sum())
    without = len(whole) - len(facts)
    figure.caption = CAPTION.format(
        channels=counted(len(facts), "channel"), network=facts["network"].iloc[0],
        rings=RINGS.format(count=counted(rings, "channel")) if rings else "",
        unknown=UNKNOWN.format(count=counted(lacking, "channel")) if lacking else "",
        without=WITHOUT.format(count=counted(without, "channel")) if without else "",
    )  # fmt: skip
    return figure


def _draw_layer(axes: Axes, index: int, own: pd.DataFrame, many: bool) -> None:
    """Draw the slopes of one layer, its channels side by side in their own order."""
    at = index + (np.arange(len(own)) + 0.5) / len(own) * 0.6 - 0.3
    size, color = thin(1.1) if many else thin(2.0), activation_color(str(own["activation"].iloc[0]))
    little, slope = own["little"].to_numpy(), own["slope"].to_numpy()
    axes.scatter(
        at[~little], slope[~little], s=size**2, color=color, alpha=0.45, linewidths=0.0,
        rasterized=many,
    )  # fmt: skip
    axes.scatter(
        at[little], slope[little], s=(1.8 * size) ** 2, facecolor="none", edgecolor=color,
        linewidths=thin(0.6), rasterized=many,
    )  # fmt: skip


def _handles(activations: list[str], rings: bool) -> list[Line2D]:
    """Return what the legend explains."""
    handles = activation_handles(activations)
    handles.append(Line2D([], [], color=INK, linewidth=thin(1.4), label="median"))
    ring = mark("data reach little of its range", fill="none")
    return [*handles, ring] if rings else handles
