"""How L differs between the channels of every layer: one dot a channel."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from acon_analysis.plotdata.portraits import reached_slopes
from acon_analysis.screen import counted
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import (
    activation_handles,
    legend_below,
    mark,
    name_layers,
    yardstick_handles,
)
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import INK, AconFigure, is_narrow, new_figure, theme, thin

MANY = 1000
"""More dots than this are drawn as pixels in PDF and SVG."""

CAPTION = (
    "L of each of the {channels} of {network}, layer by layer in order of execution: "
    "the share of a channel's output variance that one straight line explains. Within a layer the "
    "channels stand in their own order; bars: the layer's median; diamonds: the layer's own L, in "
    "which channels count by the variance of their outputs. Dotted: the same function of "
    "Gaussian inputs, 0.733 for a ReLU.{dead} Layers: {layers}."
)
DEAD = " Crosses: {dead}, whose output does not vary; their L is 1 by convention."


@figure(kind="measured", heading="Spread over channels", needs=("every_channel",), order=171)
def channel_spread(
    every_channel: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw L of every channel, layer by layer.

    The reading: a layer whose dots lie together treats its channels alike; one that spreads has
    channels that are nearly linear next to some that bend.

    Parameters
    ----------
    every_channel : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`; of several networks the first.

    Returns
    -------
    AconFigure
        One axes: two collections a layer, dots coloured by its activation and crosses, then one of
        bars and one of diamonds, the layers' L.

    Raises
    ------
    AconError
        If a column is missing or there is no channel.
    """
    facts = reached_slopes(every_channel)
    layers = list(dict.fromkeys(row_names(facts)))
    groups = [own for _, own in facts.groupby(["layer", "call"], sort=False)]
    with theme(context):
        figure = new_figure(width, 2.9, context)
        axes = figure.add_subplot()
        named = dict.fromkeys(str(own["activation"].iloc[0]) for own in groups)
        for index, own in enumerate(groups):
            _draw_layer(axes, index, own, len(facts) > MANY)
        medians = [own.loc[~own["dead"], "L"].median() for own in groups]
        middles = np.arange(len(groups))
        axes.hlines(medians, middles - 0.42, middles + 0.42, color=INK, linewidth=thin(1.4))
        own_index = [
            1 - own["s_c"].sum(min_count=1) for own in groups
        ]  # the channels' parts add up
        axes.scatter(middles, own_index, marker="D", s=thin(4.5) ** 2, facecolor="white",
                     edgecolor=INK, linewidth=thin(1.0), zorder=3)  # fmt: skip
        yardsticks = np.array([own["yardstick"].iloc[0] for own in groups])
        axes.hlines(yardsticks, middles - 0.5, middles + 0.5, color=INK, linestyle=":",
                    linewidth=thin(0.9), zorder=1.6)  # fmt: skip
        name_layers(axes, layers, narrow=is_narrow(width))
        axes.set_ylabel("$L$ of a channel")
        low = np.nanmin([*facts["L"], *yardsticks])
        axes.set_ylim(0.2 * np.floor(low / 0.2) - 0.02, 1.03)
        legend_below(figure, _handles(list(named), facts))
    figure.name(f"{facts['network'].iloc[0]} on {facts['data'].iloc[0]}")
    dead = int(facts["dead"].sum())
    figure.caption = CAPTION.format(
        channels=counted(len(facts), "channel"), network=facts["network"].iloc[0],
        dead=DEAD.format(dead=counted(dead, "dead channel")) if dead else "",
        layers=", ".join(layers) if len(layers) < 7 else f"{layers[0]} to {layers[-1]}",
    )  # fmt: skip
    return figure


def _draw_layer(axes: Axes, index: int, own: pd.DataFrame, many: bool) -> None:
    """Draw the dots of one layer, its channels side by side, and crosses for the dead."""
    at = index + (np.arange(len(own)) + 0.5) / len(own) * 0.8 - 0.4
    dead = own["dead"].to_numpy(dtype=bool)
    axes.scatter(
        at[~dead], own["L"].to_numpy()[~dead], s=(thin(1.1) if many else thin(2.0)) ** 2,
        color=activation_color(str(own["activation"].iloc[0])), alpha=0.45, linewidths=0.0,
        rasterized=many,
    )  # fmt: skip
    axes.scatter(
        at[dead], np.ones(int(dead.sum())), s=thin(3.0) ** 2, marker="x", color=INK,
        linewidths=thin(0.7), rasterized=many,
    )  # fmt: skip


def _handles(activations: list[str], facts: pd.DataFrame) -> list[Line2D]:
    """Return what the legend explains."""
    handles = activation_handles(activations)
    handles.append(Line2D([], [], color=INK, linewidth=thin(1.4), label="median"))
    handles += [mark("$L$ of the layer", "D", fill="white"), *yardstick_handles(facts["yardstick"])]
    return [*handles, mark("dead channel", "x")] if facts["dead"].any() else handles
