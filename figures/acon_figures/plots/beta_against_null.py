"""β against what BatchNorm imposes: by channel, by sample, and the samples' effect by layer."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from acon_analysis.errors import AconError
from acon_analysis.screen import counted
from acon_analysis.selection import require_columns
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import legend_below, letters
from acon_figures.names import layer_labels
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, AconFigure, is_narrow, new_figure, theme, thin

SHARES = ("sample_share", "channel_share", "rest_share")
TITLES = ("by channel", "by sample", "by layer")

CAPTION = (
    "(a) β of each of {channels} of layer {layer}, mean and standard deviation over the "
    "samples; grey: those that the BatchNorm before the sigmoid gives by its shift and scale alone "
    "(Kolmogorov-Smirnov distance on average {ks:.3f}; chance alone gives {expected:.3f}). (b) The "
    "samples' means of β in that layer; dotted: the normal curve if channels varied independently "
    "(standard deviation {null_std:.4f}, measured {own_std:.4f}). (c) By layer, the variance of "
    "the samples' means, as a multiple of that of independent channels{band}.{networks}"
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
    """Draw how far β of one layer is from BatchNorm's null, and how much more its samples differ.

    The reading: β of single channels follows the null in any network, trained or not; only a dot of
    (c) beyond its band, what whole samples share, can have been learned.

    Parameters
    ----------
    null_table : pandas.DataFrame
        As `Run.null_model` gives it: one row a channel of one layer.
    sample_means : pandas.DataFrame
        Columns ``sample``, ``beta``: the mean of β over that layer's channels.
    splits : pandas.DataFrame
        As `Run.variance_split` gives it: one row a layer; the band of redrawn networks is drawn
        where it is there.

    Returns
    -------
    AconFigure
        Three axes: a line of means over the channels, with their standard deviations and the
        null's band; a histogram with the curve of independent channels; the ratios as dots, one a
        layer, over the bars from the 5th to the 95th percentile of redrawn networks.

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
        figure = new_figure(width, 6.8 if narrow else 2.6, context)
        shape = (3, 1) if narrow else (1, 3)
        left, middle, right = figure.subplots(*shape, squeeze=False).ravel()
        _draw_channels(left, known)
        _draw_samples(middle, sample_means, own)
        band = _draw_ratios(right, splits)
        letters((left, middle, right), TITLES)
        words = "(a) BatchNorm alone" + (", (c) redrawn weights" if band else "")
        legend_below(figure, [
            Line2D([], [], color=activation_color("Meta-ACON"), marker="o", label="measured"),
            Patch(color=COLORS["grey"], alpha=0.45, label=words),
            Line2D([], [], color=INK, linestyle=":", label="(b) independent channels"),
        ])  # fmt: skip
    figure.name(f"layer {row_names(known)[0]}")
    figure.caption = _caption(known, sample_means, own, splits)
    return figure


def _draw_channels(axes: Axes, known: pd.DataFrame) -> None:
    own, color = known.sort_values("mean", kind="stable"), activation_color("Meta-ACON")
    index = np.arange(len(own))
    axes.fill_between(
        index, own["null_mean"] - own["null_std"], own["null_mean"] + own["null_std"],
        color=COLORS["grey"], alpha=0.45, linewidth=0.0, step="mid", label="null",
    )  # fmt: skip
    axes.vlines(
        index, own["mean"] - own["std"], own["mean"] + own["std"], color=color,
        linewidth=thin(0.6), alpha=0.7,
    )  # fmt: skip
    axes.plot(
        index, own["mean"], color=color, linestyle="none", marker="o",
        markersize=thin(2.0), label="measured",
    )  # fmt: skip
    axes.set_ylim(0.0, 1.0)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("channel, by its mean")
    axes.set_ylabel("β, mean ± std over samples")


def _draw_samples(axes: Axes, sample_means: pd.DataFrame, own: "pd.Series[Any]") -> None:
    values = sample_means["beta"].to_numpy(dtype=np.float64)
    bins = max(8, min(40, round(np.sqrt(len(values)))))
    color = activation_color("Meta-ACON")
    axes.hist(values, bins=bins, density=True, color=color, alpha=0.6, label="measured")
    std, mean = float(own["expected_sample_std"]), float(own["mean"])
    if std > 0:
        reach = max(4 * std, float(np.abs(values - mean).max()))
        x = np.linspace(mean - reach, mean + reach, 301)
        density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
        axes.plot(x, density, color=INK, linestyle=":", label="independent\nchannels")
    axes.locator_params(axis="x", nbins=3)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel("mean β of a sample")
    axes.set_ylabel("density")


def _draw_ratios(axes: Axes, splits: pd.DataFrame) -> bool:
    """Draw the ratio of each layer, the first on top; say whether any has a band."""
    rows = np.arange(len(splits))
    ends = splits.reindex(columns=["null_p05", "null_p95"]).to_numpy(dtype=np.float64)
    known = np.isfinite(ends).all(axis=1)
    axes.barh(
        rows[known], ends[known, 1] - ends[known, 0], 0.62, left=ends[known, 0],
        color=COLORS["grey"], alpha=0.45, linewidth=0.0,
    )  # fmt: skip
    axes.plot(
        splits["ratio"], rows, color=activation_color("Meta-ACON"), marker="o", linestyle="none"
    )
    axes.axvline(1.0, color=INK, linewidth=thin(0.7), zorder=1.5)
    values = np.concatenate([splits["ratio"].to_numpy(dtype=np.float64), ends.ravel(), [1.0]])
    values = values[np.isfinite(values) & (values > 0)]
    axes.set_xscale("log")
    axes.set_xlim(0.8 * float(values.min()), 1.25 * float(values.max()))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    step = max(1, -(-len(splits) // 20))
    axes.set_yticks(rows[::step], layer_labels(row_names(splits))[::step])
    axes.set_ylim(len(splits) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("effect of samples, ratio")
    return bool(known.any())


def _caption(
    known: pd.DataFrame, means: pd.DataFrame, own: "pd.Series[Any]", splits: pd.DataFrame
) -> str:
    networks = ""
    if "answer" in splits.columns and (splits["answer"] != "").any():
        called = row_names(splits)
        more = [called[at] for at in np.flatnonzero(splits["answer"] == "more")]
        words = ", ".join(more) or "none"
        networks = f" Layers whose samples differ more than in redrawn networks: {words}."
    bands = splits.reindex(columns=["null_p05", "null_p95"]).notna().all(axis=1).any()
    return CAPTION.format(
        band=" (bars: 5th to 95th percentile of networks with redrawn weights)" if bands else "",
        channels=counted(len(known), "channel"), layer=row_names(known)[0], ks=known["ks"].mean(),
        expected=known["ks_expected"].mean() if "ks_expected" in known.columns else np.nan,
        own_std=means["beta"].std(ddof=0), null_std=own["expected_sample_std"], networks=networks,
    )  # fmt: skip
