"""Which channels of every layer are dead, saturated, straight or bent, and how often inputs > 0."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.plotdata.portraits import STATES, reached_slopes
from acon_analysis.plotdata.portraits import channel_states as states_of
from acon_analysis.screen import counted
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import legend_below, letters
from acon_figures.names import layer_labels, layers_word
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, RULE, AconFigure, is_narrow, new_figure, theme, thin

LOOKS = {
    "dead": (INK, "dead"),
    "saturated": (COLORS["red"], "saturated"),
    "one side": (COLORS["orange"], "linear: inputs on one side of 0"),
    "linear": (COLORS["sky"], "linear for another reason"),
    "bends": (RULE, "bends"),
}
MOST_NAMED = 40

CAPTION = (
    "The {channels} of {network} by layer, in order of execution from above. (a) Share "
    "of the channels that are dead (the output does not vary), saturated (no slope that their "
    "inputs reach is 5 % of the steepest that their function has), linear (L of at "
    "least 0.99) because 95 % or more of their inputs lie on one side of 0, where their "
    "function is a line, linear for another reason, or bend. (b) Share of each channel's inputs "
    "that are positive; line: the layer's median. At 0 a ReLU is always off, at 1 always on. Dead: "
    "{dead:,}, saturated: {saturated:,}."
)


@figure(kind="measured", heading="Dead and saturated channels", needs=("every_channel",), order=173)
def channel_states(
    every_channel: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw what channels do, layer by layer, and on which side of 0 their inputs lie.

    The reading: dead and saturated channels cost time and pass nothing on; those with inputs of one
    sign could be straight lines.

    Parameters
    ----------
    every_channel : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`; of several networks the first.

    Returns
    -------
    AconFigure
        ``axes[0]``: one container of bars a state, in the order of
        `acon_analysis.plotdata.portraits.STATES`; ``axes[1]``: the dots of all channels, and the
        medians.

    Raises
    ------
    AconError
        If a column is missing or there is no channel.
    """
    facts = reached_slopes(every_channel)
    states = states_of(facts)
    groups = [own for _, own in facts.groupby(["layer", "call"], sort=False)]
    shares = [states[own.index].value_counts(normalize=True).reindex(STATES) for own in groups]
    layers = list(dict.fromkeys(row_names(facts)))
    with theme(context):
        narrow = is_narrow(width)
        height = min(8.0, max(1.2, 0.19 * len(groups))) + 0.4
        figure = new_figure(width, height * (2 if narrow else 1) + 0.6, context)
        panels = figure.subplots(*((2, 1) if narrow else (1, 2)), sharey=True, squeeze=False)
        left, right = panels.ravel()
        _draw_shares(left, np.nan_to_num(np.array(shares, dtype=np.float64)))
        _draw_positive(right, groups)
        _name_rows(left, layers)
        letters((left, right), ("what the channels do", "how often the input is positive"))
        left.set_xlabel("share of the channels")
        right.set_xlabel("share of the inputs")
        legend_below(figure, list(left.containers))
    figure.name(f"{facts['network'].iloc[0]} on {facts['data'].iloc[0]}")
    figure.caption = CAPTION.format(
        channels=counted(len(facts), "channel"), network=facts["network"].iloc[0],
        dead=int((states == "dead").sum()), saturated=int((states == "saturated").sum()),
    )  # fmt: skip
    return figure


def _draw_shares(axes: Axes, shares: np.ndarray) -> None:
    """Stack the shares of the states (layers, states), each layer a row."""
    start = np.zeros(len(shares))
    for index, state in enumerate(STATES):
        color, label = LOOKS[state]
        axes.barh(
            np.arange(len(shares)), shares[:, index], 0.78, left=start, color=color, label=label
        )
        start += shares[:, index]
    axes.set_xlim(0.0, 1.0)
    axes.grid(visible=False, axis="y")


def _draw_positive(axes: Axes, groups: list[pd.DataFrame]) -> None:
    """Draw the share of positive inputs of every channel, each layer a row."""
    count = sum(map(len, groups))
    for row, own in enumerate(groups):
        at = row + (np.arange(len(own)) + 0.5) / len(own) * 0.7 - 0.35
        axes.scatter(
            own["positive"], at, s=thin(1.2) ** 2, color=COLORS["blue"], alpha=0.4, linewidths=0.0,
            rasterized=count > 1000,
        )  # fmt: skip
    rows = np.arange(len(groups))
    medians = [own["positive"].median() for own in groups]
    axes.vlines(medians, rows - 0.38, rows + 0.38, color=INK, linewidth=thin(1.2))
    axes.set_xlim(-0.03, 1.03)
    axes.grid(visible=False, axis="y")


def _name_rows(axes: Axes, layers: list[str]) -> None:
    """Name the rows, the first on top; of many rows every n-th."""
    step = -(-len(layers) // MOST_NAMED)
    axes.set_yticks(range(0, len(layers), step), layer_labels(layers)[::step])
    axes.set_ylim(len(layers) - 0.45, -0.55)
    axes.set_ylabel(layers_word(layers) if len(layers) > 1 else "")
