"""Training and test error of ReLU, Swish, ACON-C and Meta-ACON against iterations."""

from collections.abc import Sequence

import pandas as pd

from acon_analysis.errors import AconError
from acon_analysis.paper.numbers import NETWORK_ACTIVATIONS
from acon_analysis.training.logs import curve_bands
from acon_figures.names import entry
from acon_figures.spec import figure
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme, thin

CURVE_COLORS = ("blue", "orange", "green", "red", "purple", "brown")
"""The first four are those of `NETWORK_ACTIVATIONS`, whichever are drawn, as in the paper."""

DECADE = 10.0
"""Errors that span less than this factor stand on a linear axis."""

CAPTION = (
    "Share of wrong answers against optimiser steps, for networks that differ in their activation "
    "only. Dashed: while training (augmented images, network in training mode, mean over each "
    "epoch); solid: held-out images. {seeds}"
)


@figure(kind="measured", needs=("training",), order=160)
def training_curves(
    training: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw training and test error against iterations, one colour an activation.

    The reading: how fast and how far the same network learns with another activation.

    Parameters
    ----------
    training : pandas.DataFrame
        Columns ``activation``, ``seed``, ``iteration``, ``train_error``, ``test_error``, as
        `acon_analysis.training.logs.training_logs` gives them.
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        Two lines an activation, train (dashed) and test (solid); where there are several seeds,
        a band from the least to the greatest around each.

    Raises
    ------
    AconError
        If a column is missing, or there are more activations than colours.
    """
    table = curve_bands(training)
    activations = list(table["activation"].unique())
    if len(activations) > len(CURVE_COLORS):
        raise AconError(f"{len(activations)} activations are more than {len(CURVE_COLORS)}")
    # From nine in ten to one in a thousand: only a logarithmic axis shows both ends.
    drawn = table.loc[table["mean"] > 0, "mean"]
    logarithmic = not drawn.empty and drawn.max() > DECADE * drawn.min()
    # There a band that reaches down to 0 ends at the least error drawn.
    floor = float(drawn.min()) if logarithmic else 0.0
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 3.4 if narrow else 2.9, context)
        axes = figure.add_subplot()
        for activation, color in _colors(activations).items():
            for quantity, word in (("train_error", "train"), ("test_error", "test")):
                of = (table["activation"] == activation) & (table["quantity"] == quantity)
                own = table[of]
                style = (0, (3, 1.2)) if word == "train" else "solid"
                axes.plot(
                    own["iteration"], own["mean"], color=COLORS[color], linestyle=style,
                    linewidth=thin(0.8 if word == "train" else 1.0),
                    label=entry(f"{activation} {word}"),
                )  # fmt: skip
                if (own["seeds"] > 1).any():
                    axes.fill_between(
                        own["iteration"], own["low"].clip(lower=floor),
                        own["high"].clip(lower=floor), color=COLORS[color],
                        alpha=0.18, linewidth=0.0,
                    )  # fmt: skip
        if logarithmic:
            axes.set_yscale("log", nonpositive="mask")
        axes.set_xlim(0.0, float(table["iteration"].max()))
        axes.set_xlabel("iterations")
        axes.set_ylabel("error")
        if narrow:
            figure.legend(loc="outside lower center", ncols=2)
        else:
            figure.legend(loc="outside right upper")
    figure.caption = CAPTION.format(seeds=_seeds(table))
    if logarithmic and (table["mean"] <= 0.0).any():
        figure.caption += " An error of 0 has no place on the axis and leaves a gap."
    return figure


def _colors(activations: Sequence[str]) -> dict[str, str]:
    """Return each activation's colour: its own in `NETWORK_ACTIVATIONS`, else one left."""
    fixed = dict(zip(NETWORK_ACTIVATIONS.values(), CURVE_COLORS, strict=False))
    own = {name: fixed[name] for name in activations if name in fixed}
    left = iter([color for color in CURVE_COLORS if color not in own.values()])
    return {name: own.get(name) or next(left) for name in activations}


def _seeds(table: pd.DataFrame) -> str:
    """Say how many seeds the curves are of."""
    counts = table.groupby("activation", sort=False)["seeds"].max()
    if counts.max() == 1:
        return "One seed: differences of a few images are chance."
    if counts.min() == counts.max():
        of = f"{counts.max()} seeds"
    else:
        of = "several seeds (" + ", ".join(f"{name}: {n}" for name, n in counts.items()) + ")"
    uneven = table.groupby(["activation", "quantity"])["seeds"].nunique().max() > 1
    more = " Where a seed's log is shorter, the mean goes on without it." if uneven else ""
    return f"Mean of {of}, bands from the least to the greatest.{more}"
