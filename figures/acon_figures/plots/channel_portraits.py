"""Channels of a network from the most linear to the most nonlinear, each with its best line."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from acon_analysis.plotdata.portraits import channel_portraits as portraits
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import equals, legend_below
from acon_figures.names import plain, shortened
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, AconFigure, is_narrow, new_figure, theme, thin

CAPTION = (
    "Channels of {network} at equally spaced ranks of L, from the most linear to the most "
    "nonlinear of those whose output varies: the activation from the smallest to the greatest "
    "input of the channel{acon}, and dotted the straight line that fits its values best. Grey: the "
    "mean of the inputs ± one standard deviation. It shows no gaps: of inputs in two clumps it may "
    "mark the empty middle; a run holds no counts of inputs. L: share of the output's variance "
    "that the line explains. Channels: {channels}."
)


@figure(kind="measured", heading="Portraits of channels", needs=("every_channel",), order=172)
def channel_portraits(
    every_channel: pd.DataFrame,
    count: int = 6,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw channels of a network, each where its inputs lie, with its best straight line.

    The reading: a channel bends as much as its function does where its inputs lie; a
    ReLU is a straight line for inputs on one side of 0.

    Parameters
    ----------
    every_channel : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`; of several networks the first.
    count : int
        How many channels.

    Returns
    -------
    AconFigure
        One axes a channel, from the greatest L to the least; its two lines are the function and
        the straight line.

    Raises
    ------
    UsageError, AconError
        As `acon_analysis.plotdata.portraits.channel_portraits`.
    """
    chosen, curves = portraits(every_channel, count)
    own = every_channel[every_channel["network"] == chosen["network"].iloc[0]]
    keys = zip(own["layer"], own["call"], strict=True)
    called = dict(zip(keys, row_names(own), strict=True))
    names = [called[row.layer, row.call] for row in chosen.itertuples()]
    with theme(context):
        columns = min(2 if is_narrow(width) else 3, len(chosen))
        rows, most = -(-len(chosen) // columns), 10 if columns < 3 else 16
        figure = new_figure(width, rows * (1.4 if columns == 2 else 1.55) + 0.3, context)
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes, (number, facts) in zip(panels.ravel(), chosen.iterrows(), strict=False):
            _draw(axes, curves[curves["number"] == number], facts, max(2, columns))
            kind = plain(facts["activation"])
            words = f"{kind}{chr(10) if len(kind) > most else ', '}{equals('$L$', facts['L'])}"
            name = shortened(names[int(str(number))], 24)
            gap = "\n" if columns < 3 or len(name) > 17 else ", "
            one = f"{name}{gap}channel {facts['channel']}"
            axes.set_title(f"{one}\n{words}", size="small")
        for axes in panels.ravel()[len(chosen) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel("output")
        for axes in panels[-1]:
            axes.set_xlabel("input")
        handles = [
            Line2D([], [], color=INK, label="activation"),
            Line2D([], [], color=INK, linestyle=":", label="best straight line"),
            Patch(color=COLORS["grey"], alpha=0.25, label="inputs: mean ± std"),
        ]
        legend_below(figure, handles)
    figure.name(f"{chosen['network'].iloc[0]} on {chosen['data'].iloc[0]}")
    figure.caption = CAPTION.format(
        network=chosen["network"].iloc[0],
        acon=" (ACON at its median β)" if chosen["p1"].notna().any() else "",
        channels=", ".join(
            f"{channel} of {name}" for channel, name in zip(chosen["channel"], names, strict=True)
        ),
    )
    return figure


def _draw(axes: Axes, curve: pd.DataFrame, facts: "pd.Series[float]", columns: int) -> None:
    """Draw one channel, in one of so many columns."""
    color = activation_color(str(facts["activation"]))
    axes.plot(curve["x"], curve["y"], color=color, linewidth=thin(1.3))
    axes.plot(curve["x"], curve["line"], color=INK, linestyle=":")
    axes.axvspan(
        facts["mean_x"] - facts["std_x"], facts["mean_x"] + facts["std_x"], color=COLORS["grey"],
        alpha=0.18, linewidth=0.0,
    )  # fmt: skip
    axes.locator_params(nbins=3)
    axes.locator_params(axis="x", nbins=columns)  # labels of narrow panels do not touch
    axes.ticklabel_format(useOffset=False)
    axes.ticklabel_format(axis="x", scilimits=(-2, 4))
