"""Changes of the loss by layer, with intervals, when gates do not depend on the sample."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.screen import counted
from acon_analysis.selection import choose_network, require_columns
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import mark
from acon_figures.names import plain
from acon_figures.spec import figure
from acon_figures.style import COLORS, FAINT, INK, AconFigure, is_narrow, new_figure, theme, thin

NEEDED = (
    "layer", "intervention", "recalibrated", "loss_change", "low", "high", "accuracy_change",
    "verdict",
)  # fmt: skip

#: Titles of the interventions, in words.
TITLES = {
    "mean": "held at its channel's mean",
    "constant": "held at 0.5",
    "resample": "another sample's",
    "resample-within-class": "another sample's, same class",
    "level": "0.5 instead of its mean",
}
#: Interventions drawn by default, where the frame has them.
SHOWN = ("mean", "constant", "resample")

VERDICT_COLORS = {"used": "blue", "not used": "grey", "undecided": "orange"}

CAPTION = (
    "Change of the loss of {network} (nats, mean over {samples}, with its interval) when "
    "the gate of a layer, or of all layers, does not depend on the sample as it did: {panels}. "
    "{again}Grey band and linear part of the axis: ±{margin:g}, changes that do not matter; the "
    "axis is logarithmic outside. Colour: the verdict (not used: interval within the band; used: a "
    "significant change; otherwise undecided). At the right the change of the accuracy in points."
)
AGAIN = "Squares: with the BatchNorms outside the gates estimated again. "


@figure(kind="measured", needs=("gates",), order=230)
def gate_changes(
    gates: pd.DataFrame,
    network: str | None = None,
    interventions: Sequence[str] | None = None,
    *,
    margin: float = 0.01,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw what becomes of the loss when gates are held or exchanged, one panel an intervention.

    The reading: a point to the right of the band is variation of the gate that the network uses;
    an interval within the band is variation that it does not use.

    Parameters
    ----------
    gates : pandas.DataFrame
        As `acon_analysis.gate_use` returns it; with a column ``network`` also of several networks.
    network : str, optional
        By default the first in the frame.
    interventions : sequence of str, optional
        Which to draw and in which order; by default those of `SHOWN` that the frame has.
    margin : float
        The margin δ that the frame was made with.

    Returns
    -------
    AconFigure
        One axes an intervention; in each one container of an error bar a row of the frame, layers
        from above, all layers at once below.

    Raises
    ------
    UsageError
        For an unknown network or intervention.
    AconError
        If a column is missing or the frame is empty.
    """
    require_columns(gates, list(NEEDED), "the frame of gates")
    if gates.empty:
        raise AconError("the frame holds no intervention")
    own = choose_network(gates, network)
    names = _interventions(own, interventions)
    layers = [*(name for name in own["layer"].unique() if name != "all"), "all"]
    with theme(context):
        narrow = is_narrow(width)
        height = 0.2 * len(layers) + 0.62
        figure = new_figure(width, height * (len(names) if narrow else 1) + 0.25, context)
        shape = (len(names), 1) if narrow else (1, len(names))
        panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, name in zip(panels, names, strict=True):
            _draw(axes, own[own["intervention"] == name], layers, margin)
            axes.set_title(TITLES.get(name, plain(name)))
        _ticks(panels[0], own, margin)
        (panels[-1] if narrow else panels[len(panels) // 2]).set_xlabel("change of the loss (nats)")
        _legend(figure, bool(own["recalibrated"].any()), narrow)
    if "network" in own:
        of = f" on {counted(int(own['samples'].max()), 'sample')}" if "samples" in own else ""
        figure.name(f"{own['network'].iloc[0]}{of}")
    figure.caption = CAPTION.format(
        network=own["network"].iloc[0] if "network" in own else "a network",
        samples=counted(int(own["samples"].max()), "sample") if "samples" in own else "the samples",
        panels="; ".join(TITLES.get(name, name) for name in names),
        again=AGAIN if own["recalibrated"].any() else "",
        margin=margin,
    )
    return figure


def _interventions(own: pd.DataFrame, wanted: Sequence[str] | None) -> list[str]:
    """Return the interventions to draw."""
    there = [str(name) for name in own["intervention"].unique()]
    if wanted is None:
        return [name for name in SHOWN if name in there] or there
    for name in wanted:
        if name not in there:
            raise UsageError(f"the frame holds no intervention {name!r}; {closest(name, there)}")
    return list(wanted)


def _draw(axes: Axes, rows: pd.DataFrame, layers: list[str], margin: float) -> None:
    """Draw one intervention: a row a layer, a square below the point where there are both."""
    axes.axvspan(-margin, margin, color=FAINT, zorder=0.5)
    axes.axvline(0.0, color=INK, linewidth=thin(0.6), zorder=1)
    axes.axhline(len(layers) - 1.5, color=INK, linewidth=thin(0.4), zorder=1)
    both = rows["recalibrated"].nunique() > 1
    for row in rows.to_dict("records"):
        height = layers.index(row["layer"]) + (0.18 if row["recalibrated"] else -0.18) * both
        mean = row["loss_change"]
        axes.errorbar(
            [mean], [height], xerr=[[mean - row["low"]], [row["high"] - mean]],
            marker="s" if row["recalibrated"] else "o", markersize=2.6 * thin(1) / 1.2,
            color=COLORS[VERDICT_COLORS[row["verdict"]]], linestyle="none",
            elinewidth=thin(0.8),
        )  # fmt: skip
        if not row["recalibrated"] and pd.notna(row["accuracy_change"]):
            axes.annotate(
                f"{100 * row['accuracy_change']:+.1f}".replace("-", "−"),
                (1, layers.index(row["layer"])), xycoords=("axes fraction", "data"),
                xytext=(-2, 0), textcoords="offset points", ha="right", va="center",
                fontsize="x-small",
            )  # fmt: skip
    called = dict(zip(rows["layer"], row_names(rows), strict=True))
    axes.set_yticks(
        range(len(layers)),
        ["all layers" if name == "all" else plain(called[name]) for name in layers],
    )
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _ticks(axes: Axes, own: pd.DataFrame, margin: float) -> None:
    """Set the axis: linear within the margin, logarithmic outside, room for text at the right."""
    axes.set_xscale("symlog", linthresh=margin, linscale=0.7)
    low, high = min(own["low"].min(), -margin), max(own["high"].max(), margin)
    axes.set_xlim(1.6 * low, 8 * high)
    steps = [margin * 10**k for k in range(4)]
    ticks = [-step for step in reversed(steps) if -step >= 1.6 * low][:1]
    ticks += [0.0, *(step for step in steps if step <= 1.6 * high)]
    axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.minorticks_off()


def _legend(figure: AconFigure, again: bool, narrow: bool) -> None:
    """Explain colours, and markers where there are two."""
    handles = [mark(word, color=COLORS[color]) for word, color in VERDICT_COLORS.items()]
    if again:
        handles.append(mark("BatchNorms estimated again", "s"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if narrow else 4)
