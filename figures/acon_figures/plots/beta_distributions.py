"""Densities of β over one layer's channels: each sample of Meta-ACON next to static ACON."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from acon_analysis.errors import UsageError
from acon_analysis.screen import counted
from acon_analysis.statistics.beta_densities import BetaDensities, beta_densities
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_figures.labels import legend_below, mark
from acon_figures.names import plain, sample_name
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import (
    INK,
    PUBLISHED_COLORS,
    RULE,
    AconFigure,
    inches,
    new_figure,
    theme,
    thin,
)

SAMPLE_COLORS = ("orange", "green", "red", "purple", "brown", "sky", "grey")
"""Of the published form."""

MOST_ROWS = 40

OVERLAP = 1.6
"""Height of the highest density, where rows are 1 apart."""

NULL = "#d5d9de"
"""What lies behind every row."""


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
    """Draw the densities of β over the channels of one layer, one row a sample.

    The reading: in a static ACON network the channels of a layer have one distribution of β for
    all images; in Meta-ACON each image has its own. Where it does not differ from the grey one
    behind, it is what BatchNorm alone would give.

    Parameters
    ----------
    frame : BetaMatrix or pandas.DataFrame
        β of one layer of a Meta-ACON network, from `Run.beta`; or a frame with the columns
        ``sample``, ``layer``, ``channel``, ``beta`` (and ``call``), one row a sample and channel.
    layer : str, optional
        By default the last layer in the frame's order.
    samples : int or sequence of int
        How many samples to draw by `seed`, then sorted by their mean β; or the samples themselves,
        drawn in this order.
    seed : int or numpy.random.Generator
        Chooses the samples.
    static : pandas.DataFrame, optional
        Columns ``layer``, ``channel``, ``beta``: the parameter β of a static ACON network, same
        layer; drawn as a histogram with its density, in a row and on a scale of its own.
    null : pandas.DataFrame, optional
        Columns ``layer``, ``channel``, ``bn_weight``, ``bn_bias``: adds, behind every sample, the
        density that BatchNorm alone would give it.
    as_published : bool
        Draw as the paper does: all curves in one panel, samples numbered 1, 2, ..., densities
        that spill beyond 0 and 1 and are cut by the axes, which say "Distribution (%)". The
        default reflects the densities at 0 and 1, so that each integrates to 1 between them.
    labels : mapping of int to object, optional
        A name for a sample, such as its class; also a pandas Series.
    call : int, optional
        Which use of a layer that is used more than once, by default the last.
    xlim : tuple of float, optional
        By default 0 to 1, further where the middle 99 % of a static network's β reach further.

    Returns
    -------
    AconFigure
        ``axes[0]``: two lines a sample, from above: its density and that of BatchNorm (empty
        without `null`), `OVERLAP` rows high at most; ``axes[1]``: the static network, where there
        is one. As published: one axes, whose lines are the samples' curves, the static one and that
        of BatchNorm.

    Raises
    ------
    UsageError
        For more than 40 samples in rows.
    UsageError, AconError
        As `acon_analysis.statistics.beta_densities.beta_densities`, which computes what is drawn.
    """
    data = beta_densities(
        frame, layer, samples, seed, static=static, null=null, as_published=as_published, call=call
    )
    limits = _limits(data, xlim, as_published)
    with theme(context):
        if as_published:
            figure, peak = _published(data, labels, limits, width, context)
        else:
            figure, peak = _rows(data, samples, labels, limits, width, context), None
    figure.name(f"layer {data.layer}")
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


def _rows(
    data: BetaDensities,
    samples: int | Sequence[int],
    labels: Mapping[int, object] | None,
    limits: tuple[float, float],
    width: str | float,
    context: str,
) -> AconFigure:
    """Draw a row a sample, all on one scale, and one for the static network on its own."""
    if len(data.samples) > MOST_ROWS:
        raise UsageError(
            f"a figure has at most {MOST_ROWS} rows; got {counted(len(data.samples), 'sample')}"
        )
    of_samples = data.groups[data.groups["source"] == "sample"]
    if isinstance(samples, int):
        of_samples = of_samples.sort_values("mean", kind="stable")
    null = data.curves[data.curves["source"] == "null"]
    static = data.curves[data.curves["source"] == "static"]
    color = activation_color("Meta-ACON")
    shown = data.curves[data.curves["source"].isin(["sample", "null"])]
    scale = OVERLAP / float(shown["density"].max())
    count = len(of_samples)
    figure = new_figure(width, 0.4 * (count + OVERLAP + 0.8 * (not static.empty)) + 0.8, context)
    ratios = [count + OVERLAP - 1, 1.2][: 2 - static.empty]
    grid = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios).ravel()
    axes = grid[0]
    for rank, row in enumerate(of_samples.to_dict("records")):
        curve = data.curves[data.curves["sample"] == row["sample"]]
        _draw_row(axes, count - 1 - rank, curve, null, scale, color)
        mean = {"s": thin(3.0) ** 2, "color": INK, "zorder": 4 + rank}
        axes.scatter([row["mean"]], [count - 1 - rank], clip_on=False, **mean)
    axes.set_ylim(
        0.0, max(float(np.max(line.get_ydata(), initial=0.0)) for line in axes.lines) + 0.1
    )
    names = [sample_name(sample, labels) for sample in of_samples["sample"]]
    axes.set_yticks(range(count), names[::-1])
    _bare(axes)
    channels = counted(int(data.groups["channels"].iloc[0]), "channel")
    handles: list[Artist] = [
        Patch(color=color, alpha=0.5, label=f"β of a sample in {channels}"),
        mark("its mean"),
    ]
    if not null.empty:
        handles.append(Patch(color=NULL, label="BatchNorm alone"))
    if not static.empty:
        color = activation_color("ACON-C")
        _draw_bars(grid[-1], data.bars, color, "_bars")
        grid[-1].plot(static["x"], static["density"], color=color)
        top = 1.06 * float(data.bars["density"].max())
        grid[-1].set_ylim(0.0, top)
        grid[-1].set_yticks([0.3 * top], ["ACON (static)"])
        grid[-1].grid(visible=False, axis="y")
        _bare(grid[-1])
        handles.append(Patch(color=color, alpha=0.5, label="static β, on its own scale"))
    grid[-1].set_xlim(*limits)
    grid[-1].set_xlabel("switching factor β")
    legend_below(figure, handles)
    return figure


def _draw_row(
    axes: Axes, base: int, curve: pd.DataFrame, null: pd.DataFrame, scale: float, color: str
) -> None:
    """Draw a sample's density over BatchNorm's, upwards from `base`; lower rows lie in front."""
    front = 3.0 - base / 100
    for table, fill, alpha in ((null, NULL, 1.0), (curve, color, 0.4)):
        height = base + scale * table["density"]
        axes.fill_between(
            table["x"], base, height, color=fill, alpha=alpha, linewidth=0.0, zorder=front
        )
    y = base + scale * curve["density"]
    axes.plot(curve["x"], y, color=color, zorder=front + 0.004)
    axes.plot(
        null["x"], base + scale * null["density"], color=INK, linestyle=":", linewidth=thin(0.9),
        zorder=front + 0.004,
    )  # fmt: skip


def _bare(axes: Axes) -> None:
    """Leave names at the left and a line below each row."""
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(axis="both", length=0.0)


def _published(
    data: BetaDensities,
    labels: Mapping[int, object] | None,
    limits: tuple[float, float],
    width: str | float,
    context: str,
) -> tuple[AconFigure, float | None]:
    """Draw all curves in one panel, as the paper does; return the height of what is cut, too."""
    figure = new_figure(width, 0.62 * inches(width), context)
    axes = figure.add_subplot()
    blue = PUBLISHED_COLORS["blue"]
    _draw_bars(axes, data.bars, blue, "ACON")
    for index, sample in enumerate(data.samples):
        curve = data.curves[data.curves["sample"] == sample]
        color = PUBLISHED_COLORS[SAMPLE_COLORS[index % len(SAMPLE_COLORS)]]
        name = f"Sample {index + 1}"
        if labels is not None and sample in labels:
            name = f"{name}: {plain(labels[sample])}"
        axes.plot(curve["x"], curve["density"], color=color, label=name)
        axes.fill_between(
            curve["x"], curve["density"], color=color, alpha=0.2, linewidth=0.0, zorder=1.8
        )
    for source, color, style, name in (
        ("static", blue, "solid", "_density of the static β"),
        ("null", INK, ":", "BatchNorm alone"),
    ):
        curve = data.curves[data.curves["source"] == source]
        if not curve.empty:
            axes.plot(curve["x"], curve["density"], color=color, linestyle=style, label=name)
    axes.set_xlim(*limits)
    peak = _cut_the_spike(axes, data)
    axes.set_xlabel("β")
    axes.set_ylabel("Distribution (%)")
    axes.legend(loc="upper right" if peak is None else "upper left")
    return figure, peak


def _cut_the_spike(axes: Axes, data: BetaDensities) -> float | None:
    """End the y axis above the samples' curves, which a static β would dwarf; return its height."""
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
    # Next to what rises above the words, be it the curve or a bar of the histogram.
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


def _caption(data: BetaDensities, limits: tuple[float, float], as_published: bool) -> str:
    groups = data.groups
    channels = counted(int(groups["channels"].iloc[0]), "channel")
    text = (
        f"Densities of the switching factor β over the {channels} of layer "
        f"{data.layer}, one for each of {counted(len(data.samples), 'sample')}"
    )
    if not as_published:
        text += ", all on one scale; dots: their means"
    static = groups[groups["source"] == "static"]
    if not static.empty:
        row = static.iloc[0]
        text += (
            f"; bars and their line: the parameter β of the static ACON network's "
            f"{counted(int(row['channels']), 'channel')}, {100 * row['outside']:.1f} % of them "
            "outside [0, 1]"
        )
    if (data.curves["source"] == "null").any():
        behind = "dotted" if as_published else "grey and dotted"
        text += f"; {behind}: what BatchNorm before the sigmoid would give every sample"
    if as_published:
        kind = "spill beyond 0 and 1 and are cut there"
    elif bool(groups["reflected"].all()):
        kind = "are reflected at 0 and 1, so that each has area 1 between them"
    else:
        kind = "are reflected at 0 and 1 (not the static one, whose β is not confined to them)"
    low, high = limits
    text += f". The densities (Gaussian kernels, Scott's rule) {kind}."
    return text if (low, high) == (0.0, 1.0) else f"{text} Shown from {low:.2f} to {high:.2f}."
