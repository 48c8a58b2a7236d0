"""Maxout units with pieces learned from ReLU, |x|, x² and tanh."""

from collections.abc import Callable
from functools import cache

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from acon_analysis.screen import counted
from acon_analysis.studies.experiments import learned_maxout
from acon_figures.spec import figure
from acon_figures.style import COLORS, DASHES, INK, AconFigure, is_narrow, new_figure, theme, thin

CAPTION = (
    "Maxout units with pieces learned by least squares on 201 points. Two pieces become ReLU or "
    "|x| exactly, five come near x²; a maximum of lines is convex, so tanh stays out of reach. "
    "Thin: the learned pieces of the largest fit. Errors are root mean squares."
)

_fits: Callable[[], tuple[pd.DataFrame, pd.DataFrame]] = cache(learned_maxout)


@figure(kind="measured", order=140)
def maxout_learned(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw Maxout units fitted to ReLU, |x|, x² and tanh.

    Returns
    -------
    AconFigure
        One axes a target; its ``lines`` are the target and one fit for each number of pieces, the
        pieces themselves are a collection.

    References
    ----------
    Goodfellow, Warde-Farley, Mirza, Courville and Bengio, Maxout Networks, ICML 2013,
    arXiv:1302.4389.
    """
    table, lines = _fits()
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 3.4 if narrow else 2.1, context)
        panels = figure.subplots(*((2, 2) if narrow else (1, 4)), squeeze=False).ravel()
        for axes, (target, curves) in zip(panels, table.groupby("target", sort=False), strict=True):
            _draw(axes, curves, lines[lines["target"] == target])
            axes.set_title(str(target))
            axes.set_xlabel("x")
    figure.caption = CAPTION
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, lines: pd.DataFrame) -> None:
    low, high = float(curves["y"].min()), float(curves["y"].max())
    margin = 0.12 * (high - low)
    axes.set_xlim(-3.0, 3.0)
    axes.set_ylim(low - margin, high + 4.5 * margin)
    largest = lines[lines["pieces"] == lines["pieces"].max()]
    ends = [
        [(x, piece["slope"] * x + piece["intercept"]) for x in (-3.0, 3.0)]
        for _, piece in largest.iterrows()
    ]
    thin_lines = LineCollection(ends, colors=COLORS["grey"], linewidths=thin(0.4))
    axes.add_collection(thin_lines, autolim=False)
    styles = {2: (COLORS["orange"], DASHES[1]), 5: (COLORS["blue"], DASHES[0])}
    for pieces, curve in curves.groupby("pieces"):
        count = int(str(pieces))
        if count == 0:
            style = DASHES[2]
            axes.plot(curve["x"], curve["y"], color=INK, linestyle=style, label="target", zorder=3)
        else:
            error = float(lines.loc[lines["pieces"] == count, "error"].iloc[0])
            color, style = styles[count]
            label = f"{counted(count, 'piece')}: {'exact' if error < 1e-9 else f'{error:.2f}'}"
            axes.plot(curve["x"], curve["y"], color=color, linestyle=style, label=label)
    axes.legend(loc="upper center", handlelength=1.4)
