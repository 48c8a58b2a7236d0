"""How L of single samples spreads in every layer."""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from acon_analysis.columns import SAMPLE_SPREAD_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.screen import counted
from acon_analysis.selection import require_columns
from acon_analysis.statistics.gaussian import relu_own
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import activation_handles, legend_below, mark, name_layers
from acon_figures.palette import RULE, activation_color
from acon_figures.plots.linearity_by_depth import FEW
from acon_figures.spec import figure
from acon_figures.style import INK, AconFigure, is_narrow, new_figure, theme, thin

CAPTION = (
    "L of {samples} of {network}: the share of the variance of a sample's "
    "own outputs that straight lines of its own explain, one a channel. Boxes: the middle half of "
    "the samples, with the median; whiskers: the middle 90 %. Diamonds: L of the layer, of one "
    "line for all samples. Dotted: a ReLU of as many independent Gaussian values as a channel has "
    "in a sample: a line fits few values well, whatever they are{few}. {ends}"
)


@figure(kind="measured", heading="L of each sample", needs=("spread",), order=172)
def sample_spread(
    spread: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw quantiles of L of a sample in every layer.

    The reading: a short box is a layer that bends alike for all samples; a long one bends for
    some and hardly for others, which ``run.linearity(by="sample")`` names.

    Parameters
    ----------
    spread : pandas.DataFrame
        From `acon_analysis.plotdata.sample_spread.sample_spread`.

    Returns
    -------
    AconFigure
        One axes: the boxes as patches of one bar container, hollow where a sample has fewer than
        50 values a channel.

    Raises
    ------
    AconError
        If a column is missing or there is no layer.
    """
    table = spread
    require_columns(table, names(SAMPLE_SPREAD_COLUMNS), "the table of samples")
    if table.empty:
        raise AconError("no layer has several values a sample, so that none has L of a sample")
    layers, at, few = row_names(table), np.arange(len(table)), table["values"] < FEW
    colors = [activation_color(str(name)) for name in table["class_name"]]
    half = 0.3
    with theme(context):
        figure = new_figure(width, 2.7, context)
        axes = figure.add_subplot()
        axes.vlines(at, table["low"], table["high"], color=INK, linewidth=thin(0.8), zorder=2)
        axes.bar(
            at, table["upper"] - table["lower"], 2 * half, table["lower"], edgecolor=INK,
            color=["white" if hollow else color for hollow, color in zip(few, colors, strict=True)],
            linewidth=thin(0.8), zorder=2.2,
        )  # fmt: skip
        relu = np.array([_relu(count) for count in table["values"].round()])
        low = np.nanmin([*table["low"], *table["L"], *relu])
        # A white line would make a narrow box look hollow.
        tall = (table["upper"] - table["lower"]) > 0.06 * (1.03 - low)
        axes.hlines(
            table["median"], at - half, at + half, color=np.where(tall & ~few, "white", INK),
            linewidth=thin(0.7), zorder=2.4,
        )  # fmt: skip
        axes.scatter(at, table["L"], marker="D", s=thin(4.5) ** 2, facecolor="white", edgecolor=INK,
                     linewidth=thin(1.0), zorder=3)  # fmt: skip
        axes.hlines(relu, at - 0.5, at + 0.5, color=INK, linestyle=":", linewidth=thin(0.9))
        name_layers(axes, layers, narrow=is_narrow(width))
        axes.set_ylabel("$L$ of a sample")
        axes.set_ylim(0.1 * np.floor(low / 0.1) - 0.02, 1.03)
        legend_below(figure, _handles(list(table["class_name"])))
    figure.name(f"{table['network'].iloc[0]} on {table['data'].iloc[0]}")
    figure.caption = CAPTION.format(
        samples=_samples(table), ends=_ends(table),
        network=table["network"].iloc[0],
        few=f" (hollow: fewer than {FEW} values)" if few.any() else "",
    )  # fmt: skip
    return figure


def _handles(classes: list[str]) -> list[Patch | Line2D]:
    """Return what the legend explains."""
    return [
        *activation_handles(classes),
        Patch(facecolor=RULE, edgecolor=INK, label="middle half of the samples"),
        mark("$L$ of the layer", "D", fill="white"),
        Line2D([], [], color=INK, linestyle=":", label="a ReLU of as many Gaussian values"),
    ]


def _relu(count: float) -> float:
    """Return ReLU's L of a sample of N Gaussian values in many channels, by the sample's variance.

    That is N - 1 parts of the N that `relu_own` divides by.
    """
    return 1 - (1 - relu_own(count)) * count / (count - 1)


def _samples(table: pd.DataFrame) -> str:
    """Say how many samples are drawn, and which where they are not all."""
    count, every = counted(int(table["samples"].max()), "sample"), int(table["every"].max())
    return f"each of the {count}" if every == 1 else f"{count}, one in {every:,},"


def _ends(table: pd.DataFrame) -> str:
    """Name the samples at both ends of the layer whose samples differ most."""
    widest = int((table["high"] - table["low"]).to_numpy().argmax())
    row = table.to_dict("records")[widest]
    return (
        f"Samples differ most in {row_names(table)[widest]}: L = {row['least_L']:.3f} of sample "
        f"{row['least_sample']}, {row['most_L']:.3f} of sample {row['most_sample']}, "
        "both outside the whiskers."
    )
