"""A network as a strip: how nonlinear every block is, and the activations inside it."""

from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import AconError
from acon_analysis.screen import counted
from acon_analysis.selection import require_columns
from acon_analysis.statistics.gaussian import RELU_L
from acon_analysis.statistics.sentences import block_names
from acon_figures.names import last_part, plain
from acon_figures.spec import figure
from acon_figures.style import COLORS, FAINT, INK, AconFigure, is_narrow, new_figure, theme, thin

"""L of ReLU for Gaussian inputs of mean 0."""

WHOLE = "whole network"
DRAWN = ("block", "nlc", "nlc_error", "r2", "vectors", "inside")
"""The columns that are drawn."""

WIDTH = 0.76
"""Of a bar, where blocks are 1 apart."""

MOST_NAMED = 28
"""Blocks that are named below; of more, every n-th."""

CAPTION = (
    "One bar a block, in order of execution{whole}. (a) The nonlinearity coefficient, from 1, its "
    "value for every affine map; bars: ± 2 standard errors. (b) What is inside: L of each "
    "activation, and the share R² of the block's output that the best affine map explains on other "
    "samples (open triangles: it is at least that, for a block that mixes positions). Dotted: L of "
    "ReLU for Gaussian inputs. Where dots and bars disagree, a shortcut makes the block more "
    "linear than its activations, or a product or a normalisation makes it less."
)


@figure(kind="measured", heading="The network as a strip of blocks", needs=("blocks",), order=175)
def network_strip(
    blocks: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw one bar a block, and below it the linearity of the activations inside.

    The reading: a block without a bar could be one affine map, whatever its activations do.

    Parameters
    ----------
    blocks : pandas.DataFrame
        From `acon_analysis.block_linearity`: block, nlc, nlc_error, r2, vectors, inside; of a CSV
        file too. Network, data and samples, where they are there, stand above.

    Returns
    -------
    AconFigure
        ``axes[0]`` has one bar a block, ``axes[1]`` the dots of its activations and the marks of
        its R²; the whole network, where it is there, stands apart at the right.

    Raises
    ------
    AconError
        If there are no blocks.
    """
    require_columns(blocks, DRAWN, "the table of blocks")
    if blocks.empty:
        raise AconError("the table holds no blocks to draw")
    table = blocks.reset_index(drop=True)
    whole = (table["block"] == WHOLE).to_numpy()
    at = np.arange(len(table)) + 0.6 * whole  # apart from the blocks
    with theme(context):
        made = new_figure(width, 3.6 if is_narrow(width) else 3.0, context)
        above, below = made.subplots(2, 1, sharex=True, height_ratios=[1.0, 1.0])
        _draw_coefficients(above, at, table, whole)
        _draw_inside(below, at, table)
        _name(below, at, block_names(table), narrow=is_narrow(width))
        made.legend(loc="outside lower center", ncols=2 if is_narrow(width) else 5)
        made.name(_what(table))
    made.caption = CAPTION.format(whole="; the whole network stands apart" if whole.any() else "")
    return made


def _what(table: pd.DataFrame) -> str:
    """Return which network was measured on what, as far as a table says."""
    one = table.iloc[0]
    found = [last_part(str(one["network"]))] if "network" in table else []
    data = last_part(str(one["data"])) if "data" in table and pd.notna(one["data"]) else ""
    found += [f"on {data}"] if data else []
    text = " ".join(found)
    return f"{text}, {counted(one['samples'], 'sample')}" if "samples" in table else text


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    """Return numbers of a sequence, or of the text that a CSV file has of it."""
    if isinstance(values, str):
        values = [float(text) for text in values.strip("[] ").split(",") if text.strip()]
    return np.asarray(values, dtype=np.float64)


def _draw_coefficients(
    axes: Axes, at: npt.NDArray[np.float64], table: pd.DataFrame, whole: npt.NDArray[np.bool_]
) -> None:
    """Draw the bars of panel (a), from 1."""
    colors = [COLORS["grey"] if one else COLORS["blue"] for one in whole]
    nlc, error = (table[name].to_numpy(dtype=np.float64) for name in ("nlc", "nlc_error"))
    axes.bar(
        at, nlc - 1, WIDTH, bottom=1.0, color=colors, yerr=2 * np.nan_to_num(error),
        error_kw={"elinewidth": thin(0.7), "ecolor": INK},
    )  # fmt: skip
    axes.axhline(1.0, color=INK, linewidth=thin(0.7))
    if (lost := np.isnan(nlc)).any():  # no bar would say that it is affine
        axes.plot(at[lost], np.ones(lost.sum()), "x", color=INK, label="not measured")
    known = np.concatenate([nlc - 2 * error, nlc + 2 * error, [0.95, 1.05]])
    low, high = np.nanmin(known), np.nanmax(known)
    axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    axes.set_title("(a) each block: 1 where it is affine")
    axes.set_ylabel("NLC")
    axes.grid(visible=False, axis="x")


def _draw_inside(axes: Axes, at: npt.NDArray[np.float64], table: pd.DataFrame) -> None:
    """Draw the boxes, dots and marks of panel (b)."""
    axes.bar(at, 1.0, WIDTH, color=FAINT, zorder=0.5)
    axes.axhline(RELU_L, color=INK, linestyle=":", linewidth=thin(0.7), label="$L$ of ReLU")
    inside = [_numbers(values) for values in table["inside"]]
    steps = [_spread(len(values)) for values in inside]
    axes.plot(
        np.concatenate([middle + step for middle, step in zip(at, steps, strict=True)]),
        np.concatenate(inside), "o", color=COLORS["orange"], markersize=3.0 * thin() / 0.6,
        label="$L$ of an activation",
    )  # fmt: skip
    r2, mixed = table["r2"].to_numpy(dtype=np.float64), table["vectors"] == "mixes positions"
    kinds = ((~mixed, "D", INK, ""), (mixed & (r2 > 0), "^", "white", ", at least"))
    for chosen, marker, face, words in kinds:
        if np.isfinite(r2[chosen]).any():
            axes.plot(
                at[chosen], r2[chosen].clip(min=0.0), marker, markerfacecolor=face,
                markeredgecolor=INK, markeredgewidth=thin(0.8), markersize=4.0 * thin() / 0.6,
                label=f"$R^2$ of the block{words}",
            )  # fmt: skip
    axes.set_ylim(-0.04, 1.04)
    axes.set_title("(b) inside it: 1 where an activation is linear")
    axes.set_ylabel("$L$, $R^2$")
    axes.grid(visible=False, axis="x")


def _spread(count: int) -> npt.NDArray[np.float64]:
    """Return where the activations of a block are drawn within its bar."""
    reach = 0.36 * WIDTH if count > 1 else 0.0
    return np.linspace(-reach, reach, count)


def _name(axes: Axes, at: npt.NDArray[np.float64], names: list[str], *, narrow: bool) -> None:
    """Write the names below, without what all blocks begin with; of many blocks every n-th."""
    own = [name for name in names if name != WHOLE]
    start = _start(own)
    most = MOST_NAMED // (2 if narrow else 1)
    step = -(-len(names) // most)
    shown = [n for n, name in enumerate(names) if n % step == 0 or name == WHOLE]
    if len(shown) > 1 and shown[-1] - shown[-2] < step:
        shown.pop(-2)
    words = ["all" if names[n] == WHOLE else plain(names[n].removeprefix(start)) for n in shown]
    axes.set_xticks([at[n] for n in shown], words)
    if max(map(len, words)) * len(words) > (45 if narrow else 100):
        axes.tick_params(axis="x", labelrotation=90.0)
    axes.set_xlabel(f"block in {plain(start[:-1])}" if start else "block")
    axes.set_xlim(at[0] - 0.7, at[-1] + 0.7)


def _start(names: list[str]) -> str:
    """Return what all names begin with, to its last dot or underscore."""
    if len(names) < 2:
        return ""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    start = "".join(letters[0] for letters in same)
    return start[: max(start.rfind("."), start.rfind("_")) + 1]
