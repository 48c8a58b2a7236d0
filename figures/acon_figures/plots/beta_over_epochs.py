"""β while training: its spread and its differences between samples, against the nulls."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.selection import choose_layer, require_columns
from acon_figures.names import entry
from acon_figures.spec import figure
from acon_figures.style import (
    COLORS,
    DASHES,
    INK,
    AconFigure,
    is_narrow,
    new_figure,
    theme,
    thin,
)

NEEDED = (
    "variant", "seed", "epoch", "layer", "beta_sd", "null_sd", "effect_ratio", "null_low",
    "null_high",
)  # fmt: skip
VARIANT_COLORS = ("blue", "orange", "green", "red", "purple", "brown")

CAPTION = (
    "β of layer {layer} while training, {seeds}. (a) Standard deviation of a channel's β over the "
    "samples, measured (solid) and as BatchNorm's scale and shift alone would make it (dotted). "
    "(b) By how many times the variance of the samples' mean β exceeds that of independent "
    "channels; bands: 5th to 95th percentile of β networks with redrawn weights. Within its band a "
    "network's β differs between samples no more than chance brings. Variants: {variants}."
)


@figure(kind="measured", needs=("epochs",), order=200)
def beta_over_epochs(
    epochs: pd.DataFrame,
    layer: str | None = None,
    variants: Sequence[str] | None = None,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw what training does to β of one layer: its spread, and its differences between samples.

    The reading: in (a) a gap to the dotted line, in (b) a curve above its band, is what β has
    learned; all else BatchNorm and chance give.

    Parameters
    ----------
    epochs : pandas.DataFrame
        Columns ``variant`` (str), ``seed``, ``epoch`` (0 before the first step), ``layer``,
        ``beta_sd`` (standard deviation of β over samples), ``null_sd`` (what BatchNorm alone
        gives), ``effect_ratio``, ``null_low``, ``null_high`` (5th and 95th percentile of the
        ratio in redrawn networks); NaN where a null is unknown.
    layer : str, optional
        By default the last of the frame.
    variants : sequence of str, optional
        Which to draw and in which order, by default all.
    width : {"single", "double"} or float
        Panels side by side or one below the other.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        ``axes[0]``: two lines a variant (measured, null), the means over its seeds;
        ``axes[1]``: one line a variant, on a logarithmic scale. Behind them one pale line a seed,
        where there are several, and a band a variant.

    Raises
    ------
    UsageError
        For an unknown layer or variant.
    AconError
        If a column is missing, the frame is empty, or the variants are too many to distinguish.
    """
    require_columns(epochs, NEEDED, "the frame of β over epochs")
    own = epochs[epochs["layer"] == choose_layer(epochs, layer)]
    names = _variants(own, variants)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.6 if narrow else 2.8, context)
        left, right = figure.subplots(*((2, 1) if narrow else (1, 2)), squeeze=False).ravel()
        for place, name in enumerate(names):
            rows = own[own["variant"] == name].sort_values(["seed", "epoch"])
            _draw(left, right, rows, name, place)
        left.plot([], [], color=INK, linestyle=":", label="BatchNorm alone")
        left.set_ylabel("(a) std of β over samples")
        right.set_yscale("log")
        right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter(NullFormatter())
        right.axhline(1.0, color=INK, linewidth=thin(0.6), zorder=1.5)
        right.set_ylabel("(b) samples' effect, ratio")
        for axes in (left, right):
            axes.set_xlim(float(own["epoch"].min()), float(own["epoch"].max()))
            axes.set_xlabel("epoch")
        handles, words = left.get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=2 if narrow else 4)
    count = own["seed"].nunique()
    figure.caption = CAPTION.format(
        layer=own["layer"].iloc[0], variants=", ".join(names),
        seeds="one seed" if count == 1 else f"means of up to {count} seeds, each seed pale",
    )  # fmt: skip
    return figure


def _variants(own: pd.DataFrame, wanted: Sequence[str] | None) -> list[str]:
    present = [str(name) for name in own["variant"].unique()]
    names = present if wanted is None else list(wanted)
    for name in names:
        if name not in present:
            raise UsageError(f"the frame holds no variant {name!r}; {closest(name, present)}")
    if not names:
        raise UsageError("variants is empty: name at least one")
    if len(names) > len(VARIANT_COLORS):
        raise AconError(f"{len(names)} variants are too many for {len(VARIANT_COLORS)} colours")
    return names


def _draw(left: Axes, right: Axes, rows: pd.DataFrame, name: str, place: int) -> None:
    color, style = COLORS[VARIANT_COLORS[place]], DASHES[(0, 1, 3, 4, 5, 6)[place]]
    mean = rows.groupby("epoch")[list(NEEDED[4:])].mean()
    left.plot(mean.index, mean["beta_sd"], color=color, linestyle=style, label=entry(name))
    left.plot(mean.index, mean["null_sd"], color=color, linestyle=":")
    right.plot(mean.index, mean["effect_ratio"], color=color, linestyle=style)
    right.fill_between(
        mean.index, mean["null_low"], mean["null_high"], color=color, alpha=0.15, linewidth=0.0
    )
    if rows["seed"].nunique() > 1:
        for _, one in rows.groupby("seed"):
            look: dict[str, Any] = {"color": color, "alpha": 0.35, "linewidth": thin(0.45)}
            left.plot(one["epoch"], one["beta_sd"], zorder=1.8, **look)
            right.plot(one["epoch"], one["effect_ratio"], zorder=1.8, **look)
