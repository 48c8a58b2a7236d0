"""β while training: its spread and its differences between samples, against the nulls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.selection import choose_layer, require_columns
from acon_figures.labels import legend_below
from acon_figures.names import folded
from acon_figures.palette import activation_color
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, AconFigure, is_narrow, new_figure, theme, thin

NEEDED = (
    "variant", "seed", "epoch", "layer", "beta_sd", "null_sd", "effect_ratio", "null_low",
    "null_high",
)  # fmt: skip
WORDS = {
    "usual": "as published",
    "no_batch_norm": "no BatchNorm",
    "r4": "reduction r = 4",
    "layer": "one β a layer",
    "pixel": "one β a pixel",
    "decay_all": "decay on all",
    "long": "15 epochs",
}
"""Variants of the package's own table in words."""

MOST = 12

CAPTION = (
    "β of layer {layer} while training, a column a variant, {seeds}. (a) Standard deviation of a "
    "channel's β over the samples, measured (solid) and as BatchNorm's scale and shift alone would "
    "make it (dotted). (b) By how many times the variance of the samples' mean β exceeds that of "
    "independent channels; band: 5th to 95th percentile of β networks with redrawn weights. Within "
    "its band a network's β differs between samples no more than chance brings. Variants: "
    "{variants}."
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

    Returns
    -------
    AconFigure
        Two axes a variant, in two rows: first the measured spread and the null's, then the ratio
        with its band; means over seeds, behind them one pale line a seed where there are several.

    Raises
    ------
    UsageError
        For an unknown layer or variant.
    AconError
        If a column is missing, the frame is empty, or there are more than twelve variants.
    """
    require_columns(epochs, NEEDED, "the frame of β over epochs")
    own = epochs[epochs["layer"] == choose_layer(epochs, layer)]
    names = _variants(own, variants)
    columns = min(3, len(names)) if is_narrow(width) else min(6, len(names))
    rows = 2 * -(-len(names) // columns)
    with theme(context):
        figure = new_figure(width, 1.25 * rows + 0.6, context)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for number, name in enumerate(names):
            row, column = 2 * (number // columns), number % columns
            mine = own[own["variant"] == name].sort_values(["seed", "epoch"])
            pair = grid[row, column], grid[row + 1, column]
            _draw(*pair, mine)
            pair[0].set_title(folded(WORDS.get(name, name), 16), size="small")
        _scale(grid, own, len(names))
        color = activation_color("Meta-ACON")
        legend_below(figure, [
            Line2D([], [], color=color, label="measured"),
            Line2D([], [], color=INK, linestyle=":", label="(a) BatchNorm alone"),
            Patch(color=COLORS["grey"], alpha=0.35, label="(b) redrawn weights"),
        ])  # fmt: skip
    data = f"networks trained on {own['data'].iloc[0]}: " if "data" in own else ""
    figure.name(f"{data}layer {own['layer'].iloc[0]}")
    count = own["seed"].nunique()
    figure.caption = CAPTION.format(
        layer=own["layer"].iloc[0], variants=", ".join(WORDS.get(name, name) for name in names),
        seeds="one seed" if count == 1 else f"means of up to {count} seeds, each seed pale",
    )  # fmt: skip
    return figure


def _scale(grid: npt.NDArray[Any], own: pd.DataFrame, count: int) -> None:
    """Give each row of panels its one scale and name; empty the panels that are left."""
    top = 1.08 * float(np.nanmax(own[["beta_sd", "null_sd"]]))
    known = own[["effect_ratio", "null_low", "null_high"]].to_numpy(dtype=np.float64)
    known = known[np.isfinite(known) & (known > 0)]
    for number, axes in enumerate(grid.ravel()):
        row, column = divmod(number, grid.shape[1])
        if row // 2 * grid.shape[1] + column >= count:
            axes.set_axis_off()
            continue
        axes.set_xlim(float(own["epoch"].min()), float(own["epoch"].max()))
        axes.locator_params(axis="x", nbins=3, integer=True)
        axes.set_xlabel("epoch" if row == len(grid) - 1 else "")
        if row % 2 == 0:
            axes.set_ylim(0.0, top)
        else:
            axes.set_yscale("log")
            axes.set_ylim(0.8 * float(known.min()), 1.25 * float(known.max()))
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("(b) effect of the\nsample, ratio" if row % 2 else "(a) std of β")


def _variants(own: pd.DataFrame, wanted: Sequence[str] | None) -> list[str]:
    present = [str(name) for name in own["variant"].unique()]
    names = present if wanted is None else list(wanted)
    for name in names:
        if name not in present:
            raise UsageError(f"the frame holds no variant {name!r}; {closest(name, present)}")
    if not names:
        raise UsageError("variants is empty: name at least one")
    if len(names) > MOST:
        raise AconError(f"{len(names)} variants are too many for one figure; at most {MOST}")
    return names


def _draw(above: Axes, below: Axes, rows: pd.DataFrame) -> None:
    """Draw one variant."""
    color = activation_color("Meta-ACON")
    mean = rows.groupby("epoch")[list(NEEDED[4:])].mean()
    above.plot(mean.index, mean["beta_sd"], color=color)
    above.plot(mean.index, mean["null_sd"], color=INK, linestyle=":")
    below.plot(mean.index, mean["effect_ratio"], color=color)
    below.fill_between(
        mean.index, mean["null_low"], mean["null_high"], color=COLORS["grey"], alpha=0.3,
        linewidth=0.0,
    )  # fmt: skip
    below.axhline(1.0, color=INK, linewidth=thin(0.6), zorder=1.5)
    if rows["seed"].nunique() > 1:
        for _, one in rows.groupby("seed"):
            look: dict[str, Any] = {"color": color, "alpha": 0.35, "linewidth": thin(0.6)}
            above.plot(one["epoch"], one["beta_sd"], zorder=1.8, **look)
            below.plot(one["epoch"], one["effect_ratio"], zorder=1.8, **look)
