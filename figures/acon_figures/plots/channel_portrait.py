"""One channel: its function at quantiles of β, its inputs, its best straight line."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.columns import INPUT_COLUMNS, names
from acon_analysis.plotdata.channels import channel_curves, choose_channel, shape_words
from acon_analysis.screen import counted
from acon_analysis.selection import require_columns
from acon_figures.labels import equals
from acon_figures.names import shortened
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, AconFigure, is_narrow, new_figure, theme, thin

LOOKS: dict[str, tuple[str, Any, str]] = {
    "beta_low": ("sky", (0, (5, 1.5)), "5 %"),
    "beta_middle": ("blue", "solid", "median"),
    "beta_high": ("red", (0, (5, 1.2, 1.2, 1.2)), "95 %"),
}

FLOOR = 0.3
"""Where the counts stand, above the strip at 0; the highest is 1 higher."""


CAPTION = (
    "Channel {channel} of layer {layer} of {network}: its function at the 5 % quantile, the median "
    "and the 95 % quantile of β over the samples, drawn from the smallest to the greatest input; "
    "dotted: the best straight line over all inputs. Below: {counts}mean (mark), mean ± one "
    "standard deviation (thick) and range (thin) of the inputs. Why: {why}. L: share of the "
    "output's variance that the line explains; s_c: the channel's "
    "part of the layer's 1 - L."
)


@figure(
    kind="measured",
    heading="The channel that matters most in the last layer",
    needs=("channels",),
    options=("inputs",),
    one_layer=True,
    order=220,
)
def channel_portrait(
    channels: pd.DataFrame,
    layer: str | None = None,
    channel: int | None = None,
    *,
    inputs: pd.DataFrame | None = None,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw one channel's function at quantiles of its β, with its inputs and its affine fit.

    The reading: whether the channel bends where its inputs lie, and whether β changes that.

    Parameters
    ----------
    channels : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`.
    layer : str, optional
        By default the last ACON layer.
    channel : int, optional
        By default the one with the greatest s_c.
    inputs : pandas.DataFrame, optional
        Counts of inputs: columns network, layer, call, channel, left, right, count, images (how
        many were counted). Drawn where it holds this channel.

    Returns
    -------
    AconFigure
        ``axes[0].lines``: the function at three quantiles of β, then the straight line;
        ``axes[1]``: range, standard deviation and mean of the inputs, with their counts as the
        one patch where `inputs` holds them.

    Raises
    ------
    UsageError, AconError
        As `acon_analysis.plotdata.channels.choose_channel`.
    """
    facts = choose_channel(channels, layer, channel)
    curves = channel_curves(facts)
    counts = _counts(inputs, facts)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 3.6 if narrow else 3.0, context)
        ratios = [9, 1] if counts is None else [9, 3]
        main, below = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
        _draw_curves(main, curves, facts)
        _draw_inputs(below, facts, counts)
        where = f"{shortened(facts['name'], 26)}, channel {facts['channel']}"
        gap = "\n" if narrow else ": "
        numbers = ", ".join(
            equals(name, facts[column])
            for name, column in (("$L$", "L"), ("$s_c$", "s_c"), ("$G$", "G"))
        )
        main.set_title(f"{where}{gap}{shape_words(facts)}\n{numbers}")
        if narrow:
            below.locator_params(axis="x", nbins=4)
            figure.legend(loc="outside lower center", ncols=2)
        else:
            figure.legend(loc="outside right upper")
    figure.name(f"{facts['network']} on {facts['data']}")
    words = ""
    if counts is not None:
        samples = counted(int(counts["images"].iloc[0]), "sample")
        words = f"the inputs of {samples}, counted (filled); their "
    figure.caption = CAPTION.format(
        channel=facts["channel"], layer=facts["name"], network=facts["network"], why=facts["why"],
        counts=words,
    )  # fmt: skip
    return figure


def _draw_curves(axes: Axes, curves: pd.DataFrame, facts: "pd.Series[Any]") -> None:
    for name, (color, style, quantile) in LOOKS.items():
        own = curves[curves["curve"] == name]
        label = f"β = {facts[name]:.2f} ({quantile})"
        axes.plot(own["x"], own["y"], color=COLORS[color], linestyle=style, label=label)
    fit = curves[curves["curve"] == "fit"]
    axes.plot(fit["x"], fit["y"], color=INK, linestyle=":", label="best straight line")
    axes.axvspan(
        facts["mean_x"] - facts["std_x"], facts["mean_x"] + facts["std_x"], color=COLORS["grey"],
        alpha=0.15, linewidth=0.0,
    )  # fmt: skip
    axes.set_ylabel("output")


def _counts(inputs: pd.DataFrame | None, facts: "pd.Series[Any]") -> pd.DataFrame | None:
    """Return the rows of the channel in order of the inputs; None without any."""
    if inputs is None:
        return None
    require_columns(inputs, names(INPUT_COLUMNS), "the counts of inputs")
    own = inputs
    for name in ("network", "layer", "call", "channel"):
        own = own[own[name] == facts[name]]
    own = own.sort_values("left")
    return own if len(own) and own["count"].max() > 0 else None


def _draw_inputs(axes: Axes, facts: "pd.Series[Any]", counts: pd.DataFrame | None) -> None:
    if counts is not None:
        edges = [*counts["left"], float(counts["right"].iloc[-1])]
        axes.stairs(
            FLOOR + counts["count"] / counts["count"].max(), edges, baseline=FLOOR, fill=True,
            color=COLORS["blue"], alpha=0.45,
        )  # fmt: skip
        axes.set_ylim(-0.2, FLOOR + 1.05)
    mean, std = float(facts["mean_x"]), float(facts["std_x"])
    axes.plot([facts["min_x"], facts["max_x"]], [0.0, 0.0], color=INK, linewidth=thin(0.6))
    axes.plot(
        [mean - std, mean + std], [0.0, 0.0], color=COLORS["grey"], linewidth=thin(3.0),
        solid_capstyle="butt",
    )  # fmt: skip
    axes.plot([mean], [0.0], color=INK, marker="|", markersize=thin(6.0))
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("input")
