"""What networks lose when their activations become cheaper functions, form by form."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from acon_analysis.errors import AconError
from acon_analysis.selection import require_columns
from acon_figures.labels import legend_below
from acon_figures.names import entry
from acon_figures.palette import MUTED, activation_color
from acon_figures.spec import figure
from acon_figures.style import FAINT, INK, RULE, AconFigure, is_narrow, new_figure, theme, thin

NEEDED = (
    "network", "data", "activation", "form", "recalibrated", "budget", "accuracy_change",
    "accuracy_low", "accuracy_high", "output_change",
)  # fmt: skip

#: Forms from above, whether BatchNorms were estimated again, and their names.
FORMS = {
    ("line", False): "line",
    ("relu", False): "ReLU",
    ("relu", True): "ReLU, new BN",
    ("hardswish", False): "hardswish",
    ("poly:2", False): "degree 2",
    ("poly:4", False): "degree 4",
    ("two-piece", False): "two pieces",
}

DATA_MARKERS = ("o", "s", "^", "D")

#: Changes of the output beyond this one are drawn at it: a polynomial has no bound.
MOST = 1.2

CAPTION = (
    "Change of the accuracy (points, 95 % interval) and of the logits (norm of the difference over "
    "the norm, mean over test images; {most:g} and more at the edge) of {networks} networks "
    "whose activations are replaced by other functions without training. Lines, polynomials of "
    "degree 2 and 4, and two lines that meet are fitted on each channel on training images; of "
    "Meta-ACON its β network goes. Grey band: one point. {parts}"
)
PARTS = "Below: only the share of the channels with the least predicted change of the logits."


@figure(kind="measured", needs=("forms",), order=265)
def replacement_forms(
    forms: pd.DataFrame, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw what is lost by form: a row of panels for each budget, a point a network.

    The reading: a form whose points all stand at zero can replace the activations of every network
    shown; where they scatter to the left, it depends on the network.

    Parameters
    ----------
    forms : pandas.DataFrame
        Columns `NEEDED`; one row a network, form, budget and whether BatchNorms were estimated
        again, as ``benchmarks/replacing.py`` writes it.

    Returns
    -------
    AconFigure
        Two axes a budget, in each one container of an error bar a network and form, in the order of
        the frame.

    Raises
    ------
    AconError
        If a column is missing, or no form of `FORMS` is there.
    """
    require_columns(forms, list(NEEDED), "the frame of forms")
    own = forms[[key in FORMS for key in zip(forms["form"], forms["recalibrated"], strict=True)]]
    if own.empty:
        raise AconError("the frame holds no form that is drawn")
    budgets = sorted(own["budget"].unique(), reverse=True)
    styles = _styles(own)
    with theme(context):
        narrow = is_narrow(width)
        count = 2 * len(budgets)
        shape = (count, 1) if narrow else (len(budgets), 2)
        figure = new_figure(width, 1.7 * shape[0] + 0.5, context)
        panels = figure.subplots(
            *shape, squeeze=False, sharey=True, sharex=False if narrow else "col"
        )
        for number, axes in enumerate(panels.ravel()):
            budget = budgets[number // 2]
            _draw(axes, own[own["budget"] == budget], styles, accuracy=number % 2 == 0)
            share = f"{100 * budget:.0f} % of the channels"
            axes.set_title("all channels" if budget == 1 else share)
            if narrow or number >= count - 2:
                words = ("change of the accuracy, points", "change of the logits")
                axes.set_xlabel(words[number % 2])
        _legend(figure, own, styles)
    figure.caption = CAPTION.format(
        networks=own["network"].nunique(), most=MOST, parts=PARTS if len(budgets) > 1 else ""
    ).strip()
    return figure


def _styles(own: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return colour, marker and vertical shift of each network."""
    data = list(own["data"].unique())
    networks = own.drop_duplicates("network")
    shifts = np.linspace(-0.36, 0.36, len(networks)) if len(networks) > 1 else [0.0]
    return {
        row["network"]: {
            "color": activation_color(str(row["activation"])),
            "marker": DATA_MARKERS[data.index(row["data"]) % 4],
            "shift": shift,
        }
        for row, shift in zip(networks.to_dict("records"), shifts, strict=True)
    }


def _draw(
    axes: Axes, part: pd.DataFrame, styles: dict[str, dict[str, Any]], *, accuracy: bool
) -> None:
    """Draw one measure of one budget."""
    if accuracy:
        axes.axvspan(-1, 1, color=FAINT, zorder=0.5)
    axes.axvline(0.0, color=INK, linewidth=thin(0.6), zorder=1)
    rows = list(FORMS)
    for row in part.to_dict("records"):
        style = dict(styles[row["network"]])
        height = rows.index((row["form"], row["recalibrated"])) + style.pop("shift")
        value, ends = min(row["output_change"], MOST), None
        if accuracy:
            value, low, high = (100 * row[f"accuracy_{end}"] for end in ("change", "low", "high"))
            ends = [[value - low], [high - value]]
        axes.errorbar(
            [value], [height], xerr=ends, linestyle="none", elinewidth=thin(0.5),
            markersize=2.4 * thin(1) / 1.2, clip_on=False, **style,
        )  # fmt: skip
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color=RULE, linewidth=thin(0.4), zorder=0.6)
    axes.set_xlim(*((-100, 10) if accuracy else (0, MOST)))
    axes.set_yticks(range(len(rows)), list(FORMS.values()))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _legend(figure: AconFigure, own: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """Explain colours by activations, markers by data."""
    of_network = own.drop_duplicates("network").set_index("network")
    entries: dict[str, dict[str, Any]] = {}
    for network, style in styles.items():
        look = {"color": style["color"], "marker": "o"}
        entries.setdefault(of_network["activation"][network], look)
    for network, style in styles.items():
        look = {"color": MUTED, "marker": style["marker"], "markerfacecolor": "none"}
        entries.setdefault(of_network["data"][network], look)
    handles = [
        Line2D([], [], linestyle="none", label=entry(label), **look)
        for label, look in entries.items()
    ]
    legend_below(figure, handles)
