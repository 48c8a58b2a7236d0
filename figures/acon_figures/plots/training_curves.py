"""The paper's training curves, of this project's own networks: error against iterations."""

import pandas as pd

from acon_analysis.errors import AconError
from acon_analysis.training_logs import curve_bands
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme, thin

CURVE_COLORS = ("blue", "orange", "green", "red", "purple", "brown")
CAPTION = (
    "Share of wrong answers against optimiser steps, for networks that differ in their activation "
    "only. Dashed: while training (augmented images, network in training mode, mean over each "
    "epoch); solid: held-out images. {seeds}"
)


def training_curves(
    training: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw training and test error against iterations, one colour an activation.

    The reading: how fast and how far the same network learns with another activation.

    Parameters
    ----------
    training : pandas.DataFrame
        Columns ``activation``, ``seed``, ``iteration``, ``train_error``, ``test_error``, as
        `acon_analysis.training_logs.training_logs` gives them.
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        Two lines an activation, train (dashed) and test (solid); where there are several seeds,
        a band from the least to the greatest beside each.

    Raises
    ------
    AconError
        If a column is missing, or there are more activations than colours.
    """
    table = curve_bands(training)
    activations = list(table["activation"].unique())
    if len(activations) > len(CURVE_COLORS):
        raise AconError(f"{len(activations)} activations are more than {len(CURVE_COLORS)}")
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 3.4 if narrow else 2.9, context)
        axes = figure.add_subplot()
        for activation, color in zip(activations, CURVE_COLORS, strict=False):
            for quantity, word in (("train_error", "train"), ("test_error", "test")):
                of = (table["activation"] == activation) & (table["quantity"] == quantity)
                own = table[of]
                style = (0, (3, 1.2)) if word == "train" else "solid"
                axes.plot(
                    own["iteration"], own["mean"], color=COLORS[color], linestyle=style,
                    linewidth=thin(0.8 if word == "train" else 1.0), label=f"{activation} {word}",
                )  # fmt: skip
                if (own["seeds"] > 1).any():
                    axes.fill_between(
                        own["iteration"], own["low"], own["high"], color=COLORS[color],
                        alpha=0.18, linewidth=0.0,
                    )  # fmt: skip
        # From nine in ten to one in a thousand: only a logarithmic axis shows both ends.
        axes.set_yscale("log", nonpositive="mask")
        axes.set_xlim(0.0, float(table["iteration"].max()))
        axes.set_xlabel("iterations")
        axes.set_ylabel("error")
        if narrow:
            figure.legend(loc="outside lower center", ncols=2)
        else:
            figure.legend(loc="outside right upper")
    seeds = int(table["seeds"].max())
    words = "One seed: differences of a few images are chance."
    if seeds > 1:
        words = f"Mean of {seeds} seeds, bands from the least to the greatest."
    if (table["mean"] <= 0.0).any():
        words += " An error of 0 has no place on the axis and leaves a gap."
    figure.caption = CAPTION.format(seeds=words)
    return figure
