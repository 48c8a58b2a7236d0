"""Densities of β over one layer's channels: each sample of Meta-ACON next to static ACON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import UsageError
from acon_analysis.statistics.beta_densities import BetaDensities, beta_densities
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_figures.names import plain
from acon_figures.spec import figure
from acon_figures.style import (
    COLORS,
    DASHES,
    INK,
    PUBLISHED_COLORS,
    AconFigure,
    inches,
    is_narrow,
    new_figure,
    theme,
    thin,
)

SAMPLE_COLORS = ("orange", "green", "red", "purple", "brown", "sky", "grey")
TOGETHER = 12
"""Beyond this many samples the legend names no single one."""


@figure(
    kind="measured",
    heading="β of single samples",
    needs=("frame",),
    options=("static", "null", "labels"),
    variants={"as_published": {"as_published": True}},
    table="density_curves",
    order=10,
)
def beta_distributions(
    frame: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    samples: int | Sequence[int] = 7,
    seed: int | np.random.Generator = 0,
    *,
    static: pd.DataFrame | None = None,
    null: pd.DataFrame | None = None,
    as_published: bool = False,
    labels: Mapping[int, object] | None = None,
    call: int | None = None,
    xlim: tuple[float, float] | None = None,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw the densities of β over the channels of one layer, one filled curve a sample.

    The reading: in a static ACON network the channels of a layer have one distribution of β for
    all images; in Meta-ACON each image has its own.

    Parameters
    ----------
    frame : BetaMatrix or pandas.DataFrame
        β of one layer of a Meta-ACON network, from `Run.beta`; or a frame with the columns
        ``sample``, ``layer``, ``channel``, ``beta`` (and ``call``), one row a sample and channel.
    layer : str, optional
        By default the last layer in the frame's order.
    samples : int or sequence of int
        How many samples to draw by `seed`, or the samples themselves.
    seed : int or numpy.random.Generator
        Chooses the samples.
    static : pandas.DataFrame, optional
        Columns ``layer``, ``channel``, ``beta``: the parameter β of a static ACON network, same
        layer; drawn as a histogram with its density.
    null : pandas.DataFrame, optional
        Columns ``layer``, ``channel``, ``bn_weight``, ``bn_bias``: adds, dotted, the density
        that BatchNorm alone would give every sample.
    as_published : bool
        Draw as the paper does: densities spill beyond 0 and 1 and are cut by the axes, samples
        are numbered 1, 2, ..., and the axis says "Distribution (%)". The default reflects the
        densities at 0 and 1, so that each integrates to 1 between them, and says "density",
        which the numbers are.
    labels : mapping of int to object, optional
        A name for a sample, such as its class; also a pandas Series.
    call : int, optional
        Which use of a layer that is used more than once, by default the last.
    xlim : tuple of float, optional
        By default 0 to 1, further where the middle 99 % of a static network's β reach further.
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        A matplotlib Figure; the curves are ``axes[0].lines``, static and null last.

    Raises
    ------
    UsageError, AconError
        As `acon_analysis.statistics.beta_densities.beta_densities`, which computes what is drawn.
    """
    data = beta_densities(
        frame, layer, samples, seed, static=static, null=null, as_published=as_published, call=call
    )
    limits = _limits(data, xlim, as_published)
    with theme(context):
        narrow = is_narrow(width)
        height = 0.62 * inches(width) if as_published else 3.1
        figure = new_figure(width, height, context)
        axes = figure.add_subplot()
        colors = PUBLISHED_COLORS if as_published else COLORS
        _draw_bars(axes, data.bars, colors["blue"], "ACON" if as_published else "ACON (static)")
        _draw_samples(axes, data, colors, labels, as_published)
        _draw_others(axes, data, colors["blue"])
        axes.set_xlim(*limits)
        peak = _cut_the_spike(axes, data)
        axes.set_xlabel("switching factor β" if not as_published else "β")
        axes.set_ylabel("Distribution (%)" if as_published else "density")
        if as_published:
            axes.legend(loc="upper right" if peak is None else "upper left")
        elif narrow:
            figure.legend(loc="outside lower center", ncols=2)
        else:
            figure.legend(loc="outside right upper")
    figure.caption = _caption(data, limits, as_published)
    if peak is not None:
        figure.caption += f" Cut: the static density rises to {peak:.0f}."
    return figure


def density_curves(
    frame: BetaMatrix | pd.DataFrame,
    *,
    static: pd.DataFrame | None = None,
    null: pd.DataFrame | None = None,
    labels: object = None,  # noqa: ARG001
) -> pd.DataFrame:
    """Return the curves that `beta_distributions` draws by default."""
    return beta_densities(frame, static=static, null=null).curves


def _cut_the_spike(axes: Axes, data: BetaDensities) -> float | None:
    """End the y axis above the samples' curves; return the height of what is cut off, if any.

    A static β that has hardly moved from where it started is a spike many times as high as any
    sample's density, and would hide those.
    """
    static = data.curves[data.curves["source"] == "static"]
    others = data.curves[data.curves["source"] != "static"]
    axes.set_ylim(bottom=0.0)
    if static.empty or others.empty:
        return None
    spike = max(float(data.bars["density"].max()), float(static["density"].max()))
    top = float(others["density"].max()) * 1.35
    if spike <= 2 * top:
        return None
    axes.set_ylim(top=top)
    low, high = axes.get_xlim()
    peak = float(static["x"].iloc[int(static["density"].to_numpy().argmax())])
    left = min(max(peak, low), high) > (low + high) / 2
    # Beside what rises above the words, be it the curve or a bar of the histogram.
    near = 0.8 * top
    bars = data.bars[data.bars["density"] > near]
    risen = [*static.loc[static["density"] > near, "x"], *bars["left"], *bars["right"]]
    where = min(max(min(risen) if left else max(risen), low), high)
    axes.annotate(
        f"ACON: up to {spike:.0f}",
        (where, top),
        xytext=(-6 if left else 6, -6),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
    )
    return spike


def _limits(
    data: BetaDensities, xlim: tuple[float, float] | None, as_published: bool
) -> tuple[float, float]:
    if xlim is not None:
        if not xlim[0] < xlim[1]:
            raise UsageError(f"xlim must rise; it is {xlim}")
        return xlim
    if as_published or data.bars.empty:
        return 0.0, 1.0
    share = data.bars["count"].cumsum() / data.bars["count"].sum()
    inner = data.bars[(share >= 0.005) & (share.shift(fill_value=0.0) <= 0.995)]
    return min(0.0, float(inner["left"].min())), max(1.0, float(inner["right"].max()))


def _draw_bars(axes: Axes, bars: pd.DataFrame, color: str, label: str) -> None:
    if not bars.empty:
        breadth = bars["right"] - bars["left"]
        axes.bar(
            bars["left"], bars["density"], breadth, align="edge", color=color, alpha=0.35,
            linewidth=0.0, label=label, zorder=1.9,
        )  # fmt: skip


def _draw_samples(
    axes: Axes,
    data: BetaDensities,
    colors: Mapping[str, str],
    labels: Mapping[int, object] | None,
    as_published: bool,
) -> None:
    curves = data.curves[data.curves["source"] == "sample"]
    many = len(data.samples) > TOGETHER
    for index, sample in enumerate(data.samples):
        curve = curves[curves["sample"] == sample]
        color = colors[SAMPLE_COLORS[index % len(SAMPLE_COLORS)]]
        style = "solid" if as_published else DASHES[index % len(DASHES)]
        name = f"Sample {index + 1}" if as_published else f"sample {sample}"
        if labels is not None and sample in labels:
            name = f"{name}: {plain(labels[sample])}"
        if many:  # a crowd: no curve can be distinguished, so none has a style
            color = colors["grey"]
            name = f"{len(data.samples)} samples" if index == 0 else f"_{name}"
        look: dict[str, Any] = {"linestyle": style}
        if many:
            look = {"linewidth": thin(), "alpha": 0.4}
        axes.plot(curve["x"], curve["density"], color=color, label=name, **look)
        if not many:
            axes.fill_between(
                curve["x"], curve["density"], color=color, alpha=0.2, linewidth=0.0, zorder=1.8
            )


def _draw_others(axes: Axes, data: BetaDensities, color: str) -> None:
    static = data.curves[data.curves["source"] == "static"]
    null = data.curves[data.curves["source"] == "null"]
    if not static.empty:
        axes.plot(static["x"], static["density"], color=color, label="_density of the static β")
    if not null.empty:
        axes.plot(null["x"], null["density"], color=INK, linestyle=":", label="BatchNorm alone")


def _caption(data: BetaDensities, limits: tuple[float, float], as_published: bool) -> str:
    groups = data.groups
    channels = int(groups["channels"].iloc[0])
    text = (
        f"Densities of the switching factor β over the {channels} channels of layer "
        f"{data.layer}, one filled curve for each of {len(data.samples)} samples"
    )
    static = groups[groups["source"] == "static"]
    if not static.empty:
        row = static.iloc[0]
        text += (
            f"; bars and blue line: the parameter β of the static ACON network's "
            f"{int(row['channels'])} channels, {row['outside']:.1%} of them outside [0, 1]"
        )
    if (data.curves["source"] == "null").any():
        text += "; dotted: what BatchNorm before the sigmoid would give every sample by itself"
    if as_published:
        kind = "spill beyond 0 and 1 and are cut there"
    elif bool(groups["reflected"].all()):
        kind = "are reflected at 0 and 1, so that each has area 1 between them"
    else:
        kind = "are reflected at 0 and 1 (not the static one, whose β is not confined to them)"
    low, high = limits
    text += f". The densities (Gaussian kernels, Scott's rule) {kind}."
    return text if (low, high) == (0.0, 1.0) else f"{text} Shown from {low:.2f} to {high:.2f}."
