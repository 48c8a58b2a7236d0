"""The derivatives that the data of every channel reach, and the slope of its best line."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from acon_analysis.plotdata.portraits import reached_slopes as slopes_of
from acon_analysis.screen import counted
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import legend_below, name_layers
from acon_figures.names import entry
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import INK, AconFigure, is_narrow, new_figure, theme, thin

CAPTION = (
    "The derivative of each of the {channels} of {network} over its data, layer by "
    "layer in order of execution: shaded from the least to the greatest derivative between the "
    "smallest and the greatest input of the channel{unknown}; line: the slope of the straight line "
    "that fits its values best. The channels of a layer are sorted by that slope."
)
UNKNOWN = " (not of {count}: the formula of their activation is not known)"


@figure(
    kind="measured", heading="The derivative over the data", needs=("every_channel",), order=174
)
def reached_slopes(
    every_channel: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw which derivatives the data reach, and the slope of each channel's best line, by layer.

    The reading: a channel whose shaded range is narrow is a straight line on these data; where the
    line lies near 0 the channel passes little on.

    Parameters
    ----------
    every_channel : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`; of several networks the first.
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        ``axes[0]``: one line a layer, the sorted slopes; one shaded range a layer whose derivative
        is known.

    Raises
    ------
    AconError
        If a column is missing or there is no channel.
    """
    facts = slopes_of(every_channel)
    groups = [own for _, own in facts.groupby(["layer", "call"], sort=False)]
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 2.8, context)
        axes = figure.add_subplot()
        for index, own in enumerate(groups):
            _draw_layer(axes, index, own.sort_values("slope", kind="stable"))
        axes.axhline(0.0, color=INK, linewidth=thin(0.6), zorder=1.5)
        name_layers(axes, list(dict.fromkeys(row_names(facts))), narrow=narrow)
        axes.set_ylabel("derivative")
        names = list(dict.fromkeys(str(own["activation"].iloc[0]) for own in groups))[:6]
        handles = [
            Patch(color=activation_color(name), alpha=0.25, label=entry(name)) for name in names
        ]
        line = Line2D([], [], color=INK, label="slope of the best line")
        legend_below(figure, [*handles, line])
    figure.name(f"{facts['network'].iloc[0]} on {facts['data'].iloc[0]}")
    lacking = int(facts["slope_low"].isna().sum())
    figure.caption = CAPTION.format(
        channels=counted(len(facts), "channel"), network=facts["network"].iloc[0],
        unknown=UNKNOWN.format(count=counted(lacking, "channel")) if lacking else "",
    )  # fmt: skip
    return figure


def _draw_layer(axes: Axes, index: int, own: pd.DataFrame) -> None:
    """Draw one layer, its channels side by side from the least slope to the greatest."""
    at = index + np.linspace(-0.4, 0.4, len(own) + 1)
    low, high, slope = (
        np.append(values, values[-1:])
        for values in own[["slope_low", "slope_high", "slope"]].to_numpy(dtype=np.float64).T
    )
    color = activation_color(str(own["activation"].iloc[0]))
    if np.isfinite(low).any():
        axes.fill_between(
            at,
            low,
            high,
            step="post",
            facecolor=color,
            edgecolor=color,
            alpha=0.25,
            linewidth=thin(0.4),
        )
    axes.plot(at, slope, drawstyle="steps-post", color=INK, linewidth=thin(1.0))
