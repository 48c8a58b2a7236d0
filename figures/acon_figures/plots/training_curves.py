"""Test error of ReLU, Swish, ACON-C and Meta-ACON while training, and the difference to ReLU."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import AconError
from acon_analysis.training.logs import curve_bands
from acon_figures.labels import End, label_ends, letters
from acon_figures.names import entry
from acon_figures.palette import activation_color, activation_looks
from acon_figures.spec import figure
from acon_figures.style import AconFigure, is_narrow, new_figure, theme, thin

MOST = 6
"""Activations in one figure."""

REFERENCE = "ReLU"

DECADE = 10.0
"""Errors that span less than this factor stand on a linear axis."""

CAPTION = (
    "Share of wrong answers on held-out images against optimiser steps, for networks that differ "
    "in their activation only: (a) itself, (b) less that of ReLU at the same step, in points; "
    "below 0 the network errs less often. {seeds}"
)
CAPTION_PUBLISHED = (
    "Share of wrong answers against optimiser steps, for networks that differ in their activation "
    "only. Dashed: while training (augmented images, network in training mode, mean over each "
    "epoch); solid: held-out images. {seeds}"
)


@figure(
    kind="measured",
    needs=("training",),
    variants={"as_published": {"as_published": True}},
    order=160,
)
def training_curves(
    training: pd.DataFrame,
    *,
    as_published: bool = False,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw the test error against iterations, and its difference to that of ReLU.

    The reading: how fast and how far the same network learns with another activation; a band that
    covers 0 is a difference that another seed may turn round.

    Parameters
    ----------
    training : pandas.DataFrame
        Columns ``activation``, ``seed``, ``iteration``, ``train_error``, ``test_error``, as
        `acon_analysis.training.logs.training_logs` gives them; ``network`` names the data.
    as_published : bool
        Draw training and test error of all activations in one panel, as the paper does.

    Returns
    -------
    AconFigure
        ``axes[0]``: one line an activation; ``axes[1]``, where ReLU is among them: one line for
        each other activation. As published: two lines an activation, train (dashed) and test
        (solid). Where there are several seeds, a band from the least to the greatest around each.

    Raises
    ------
    AconError
        If a column is missing, or there are too many activations.
    """
    table = curve_bands(training)
    activations = [str(name) for name in table["activation"].unique()]
    if len(activations) > MOST:
        raise AconError(f"{len(activations)} activations are more than {MOST}")
    looks = dict(zip(activations, activation_looks(activations), strict=True))
    with theme(context):
        if as_published:
            figure = _published(table, looks, width, context)
        else:
            figure = _compared(training, table, looks, width, context)
    if "network" in training:
        data = str(training["network"].iloc[0]).partition("_")[0]
        figure.name(f"networks trained on {data}, held-out images")
    caption = CAPTION_PUBLISHED if as_published else CAPTION
    figure.caption = caption.format(seeds=_seeds(table))
    if figure.axes[0].get_yscale() == "log" and (table["mean"] <= 0.0).any():
        figure.caption += " An error of 0 is not on the axis and leaves a gap."
    return figure


def _compared(
    training: pd.DataFrame,
    table: pd.DataFrame,
    looks: dict[str, dict[str, Any]],
    width: str | float,
    context: str,
) -> AconFigure:
    """Draw the test error, and its difference to the reference where that is there."""
    differs = REFERENCE in looks and len(looks) > 1
    narrow = is_narrow(width)
    count = 2 if differs else 1
    figure = new_figure(width, 2.4 * count if narrow else 2.6, context)
    shape = (count, 1) if narrow else (1, count)
    panels = figure.subplots(*shape, squeeze=False).ravel()
    own = table[table["quantity"] == "test_error"]
    _draw(panels[0], own, looks, dashed=False)
    _scale(panels[0], own)
    panels[0].set_ylabel("test error")
    titles = ["test error"]
    if differs:
        titles.append(f"difference to {REFERENCE}")
        others = {name: look for name, look in looks.items() if name != REFERENCE}
        _draw(panels[1], _differences(training), others, dashed=False)
        panels[1].axhline(0.0, color=activation_color(REFERENCE), zorder=1.8)
        panels[1].set_ylabel("points of test error")
    letters(panels, titles)
    for axes in panels:
        axes.set_xlabel("iterations")
        axes.set_xlim(0.0, float(own["iteration"].max()))
        lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        ends = [
            End(1.0, float(np.asarray(line.get_ydata())[-1]), str(line.get_label()),
                str(line.get_color()))
            for line in lines
        ]  # fmt: skip
        if axes is panels[-1] and differs:
            ends.append(End(1.0, 0.0, REFERENCE, activation_color(REFERENCE)))
        if axes is panels[-1]:
            label_ends(axes, ends)
    return figure


def _differences(training: pd.DataFrame) -> pd.DataFrame:
    """Return mean and range over seeds of the test error less the mean of the reference."""
    means = training[training["activation"] == REFERENCE].groupby("iteration")["test_error"].mean()
    points = 100 * (training["test_error"] - training["iteration"].map(means))
    own = training.assign(difference=points).dropna(subset=["difference"])
    return curve_bands(own[own["activation"] != REFERENCE], ["difference"])


def _draw(
    axes: Axes,
    table: pd.DataFrame,
    looks: dict[str, dict[str, Any]],
    *,
    dashed: bool,
    suffix: str = "",
    floor: float = -np.inf,
) -> None:
    """Draw one line an activation, with a band where there are several seeds."""
    for activation, look in looks.items():
        own = table[table["activation"] == activation]
        style: Any = (0, (3, 1.2)) if dashed else "solid"
        axes.plot(
            own["iteration"], own["mean"], color=look["color"], linestyle=style,
            linewidth=thin(0.8 if dashed else 1.1), label=entry(f"{activation}{suffix}"),
        )  # fmt: skip
        if (own["seeds"] > 1).any():
            low, high = (own[end].clip(lower=floor) for end in ("low", "high"))
            axes.fill_between(
                own["iteration"], low, high, color=look["color"], alpha=0.15, linewidth=0.0
            )


def _scale(axes: Axes, table: pd.DataFrame) -> None:
    """Draw on a logarithmic axis what spans more than a decade."""
    drawn = table.loc[table["mean"] > 0, "mean"]
    if not drawn.empty and drawn.max() > DECADE * drawn.min():
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(bottom=0.8 * float(drawn.min()))


def _published(
    table: pd.DataFrame, looks: dict[str, dict[str, Any]], width: str | float, context: str
) -> AconFigure:
    """Draw training and test error in one panel."""
    narrow = is_narrow(width)
    figure = new_figure(width, 3.4 if narrow else 2.9, context)
    axes = figure.add_subplot()
    _scale(axes, table)
    # On a logarithmic axis a band that reaches down to 0 ends at the least error drawn.
    least = float(table.loc[table["mean"] > 0, "mean"].min())
    floor = least if axes.get_yscale() == "log" else 0.0
    for name, own in looks.items():
        for word in ("train", "test"):
            of = table[table["quantity"] == f"{word}_error"]
            _draw(axes, of, {name: own}, dashed=word == "train", suffix=f" {word}", floor=floor)
    axes.set_xlim(0.0, float(table["iteration"].max()))
    axes.set_xlabel("iterations")
    axes.set_ylabel("error")
    if narrow:
        figure.legend(loc="outside lower center", ncols=2)
    else:
        figure.legend(loc="outside right upper")
    return figure


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
