"""β against what BatchNorm imposes: by channel, by sample, its variance by layer."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import AconError
from acon_analysis.selection import require_columns
from acon_figures.names import plain
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, AconFigure, is_narrow, new_figure, theme, thin

SHARES = {
    "sample_share": ("samples", "orange"),
    "channel_share": ("channels", "blue"),
    "rest_share": ("neither alone", "grey"),
}

TITLES = ("(a) by channel", "(b) by sample", "(c) by layer")

CAPTION = (
    "(a) β of each of {channels} channels of layer {layer}, mean and standard deviation over the "
    "samples, with those of the logit-normal that bn2's shift and scale impose behind (grey); mean "
    "Kolmogorov-Smirnov distance {ks:.3f}, {expected:.3f} to expect of as many samples of the "
    "null. (b) The samples' means "
    "of β in that layer; dotted: the normal curve if channels varied independently (standard "
    "deviation {own_std:.4f} measured, {null_std:.4f} then). (c) Shares of the variance of β by "
    "layer; above each bar, how many times the variance of the samples' means exceeds that of "
    "independent channels.{networks}"
)


@figure(
    kind="measured",
    heading="β against what BatchNorm imposes",
    needs=("null_table", "sample_means", "splits"),
    order=180,
)
def beta_against_null(
    null_table: pd.DataFrame,
    sample_means: pd.DataFrame,
    splits: pd.DataFrame,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw how far β of one layer is from BatchNorm's null, and what its variance belongs to.

    The reading: β of single channels follows the null in any network, trained or not; only what
    whole samples share beyond it can have been learned.

    Parameters
    ----------
    null_table : pandas.DataFrame
        As `Run.null_model` gives it: one row a channel of one layer.
    sample_means : pandas.DataFrame
        Columns ``sample``, ``beta``: the mean of β over that layer's channels.
    splits : pandas.DataFrame
        As `Run.variance_split` gives it: one row a layer.
    width : {"single", "double"} or float
        Panels side by side or one below the other.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        Three axes: a line of means over the channels, with their standard deviations and the
        null's band; a histogram with the curve of independent channels; stacked bars, one
        container a share.

    Raises
    ------
    AconError
        If a column is missing, or the layer has no BatchNorm before its β.
    """
    require_columns(null_table, ["layer", "mean", "std", "null_mean", "null_std", "ks"], "the null")
    require_columns(sample_means, ["sample", "beta"], "the samples' means")
    require_columns(splits, ["layer", "mean", "expected_sample_std", *SHARES], "the split")
    known = null_table.dropna(subset=["null_mean", "null_std"])
    if known.empty:
        raise AconError("the layer has no BatchNorm before its sigmoid, so there is no null")
    layer = str(known["layer"].iloc[0])
    own = splits[splits["layer"] == layer].iloc[-1]
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 6.6 if narrow else 2.7, context)
        shape = (3, 1) if narrow else (1, 3)
        left, middle, right = figure.subplots(*shape, squeeze=False).ravel()
        _draw_channels(left, known)
        _draw_samples(middle, sample_means, own)
        _draw_shares(right, splits)
        for axes, title in zip((left, middle, right), TITLES, strict=True):
            axes.set_title(title)
    figure.caption = _caption(known, sample_means, own, splits)
    return figure


def _draw_channels(axes: Axes, known: pd.DataFrame) -> None:
    own = known.sort_values("mean", kind="stable")
    place = np.arange(len(own))
    axes.fill_between(
        place, own["null_mean"] - own["null_std"], own["null_mean"] + own["null_std"],
        color=COLORS["grey"], alpha=0.45, linewidth=0.0, step="mid", label="null",
    )  # fmt: skip
    axes.vlines(
        place, own["mean"] - own["std"], own["mean"] + own["std"], color=COLORS["blue"],
        linewidth=thin(0.4), alpha=0.7,
    )  # fmt: skip
    axes.plot(
        place, own["mean"], color=COLORS["blue"], linestyle="none", marker="o",
        markersize=thin(2.0), label="measured",
    )  # fmt: skip
    axes.set_ylim(0.0, 1.25)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("channel, by its mean")
    axes.set_ylabel("β, mean ± std over samples")
    axes.legend(loc="upper center", ncols=2, handlelength=1.2, columnspacing=1.0)


def _draw_samples(axes: Axes, sample_means: pd.DataFrame, own: "pd.Series[Any]") -> None:
    values = sample_means["beta"].to_numpy(dtype=np.float64)
    bins = max(8, min(40, round(np.sqrt(len(values)))))
    axes.hist(values, bins=bins, density=True, color=COLORS["orange"], alpha=0.6, label="measured")
    std, mean = float(own["expected_sample_std"]), float(own["mean"])
    if std > 0:
        reach = max(4 * std, float(np.abs(values - mean).max()))
        x = np.linspace(mean - reach, mean + reach, 301)
        density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
        axes.plot(x, density, color=INK, linestyle=":", label="independent\nchannels")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("mean β of a sample")
    axes.set_ylabel("density")
    axes.legend(loc="upper right")


def _draw_shares(axes: Axes, splits: pd.DataFrame) -> None:
    place = np.arange(len(splits))
    base = np.zeros(len(splits))
    for name, (label, color) in SHARES.items():
        axes.bar(place, splits[name], bottom=base, color=COLORS[color], label=label, width=0.75)
        base = base + np.nan_to_num(splits[name].to_numpy(dtype=np.float64))
    if len(splits) <= 8:
        for x, top, ratio in zip(place, base, splits["ratio"], strict=True):
            if np.isfinite(ratio):
                axes.text(
                    float(x),
                    float(top) + 0.01,
                    f"{ratio:.1f}",
                    ha="center",
                    va="bottom",
                    size="x-small",
                )
    names = [plain(str(n).removesuffix(".acon").removeprefix("layer")) for n in splits["layer"]]
    step = max(1, -(-len(names) // 8))
    axes.set_xticks(place[::step], names[::step])
    if max(len(name) for name in names) > 4:
        axes.tick_params(axis="x", labelrotation=90.0)
    axes.set_ylim(0.0, 1.5)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("layer")
    axes.set_ylabel("share of the variance of β")
    axes.legend(loc="upper center", ncols=1)


def _caption(
    known: pd.DataFrame, means: pd.DataFrame, own: "pd.Series[Any]", splits: pd.DataFrame
) -> str:
    networks = ""
    if "answer" in splits.columns and (splits["answer"] != "").any():
        more = splits.loc[splits["answer"] == "more", "layer"]
        words = ", ".join(str(name) for name in more) or "none"
        networks = f" Layers whose samples differ more than in redrawn networks: {words}."
    return CAPTION.format(
        channels=len(known), layer=known["layer"].iloc[0], ks=known["ks"].mean(),
        expected=known["ks_expected"].mean() if "ks_expected" in known.columns else np.nan,
        own_std=means["beta"].std(ddof=0), null_std=own["expected_sample_std"], networks=networks,
    )  # fmt: skip
