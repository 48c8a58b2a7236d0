"""How linear each layer is, from the first to the last, of several networks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.plotdata.depth import nested_layers, off_line, relative_depth, shared_layers
from acon_analysis.screen import counted
from acon_analysis.statistics.gaussian import RELU_L, relu_own
from acon_analysis.statistics.sentences import row_names
from acon_figures.labels import (
    End,
    label_ends,
    legend_below,
    letters,
    name_layers,
    yardstick_handles,
)
from acon_figures.names import layer_labels, shortened
from acon_figures.palette import COLORS, MUTED, activation_looks
from acon_figures.spec import figure
from acon_figures.style import INK, AconFigure, is_narrow, new_figure, theme, thin

PANELS = {
    "L": "$L$: one line for all",
    "L_own": "$L_{\\mathrm{own}}$: a line per sample",
    "G": "gate variance $G$",
}
MOST = 12
"""Networks in one panel."""

CAPTION = (
    "Linearity of the activation layers in order of execution{panels}. L is the share of the "
    "outputs' variance that one straight line per channel explains: 1 is linear; dotted: {dotted}. "
    "{more}Bars: 95 % intervals, what other samples of the same data "
    "would change (jackknife over blocks of samples). {layers}"
)
MORE = {
    "L_own": "L_own: every sample has lines of its own, which fit better than fixed ones. A line "
    "fits few values well, whatever they are: dotted in this panel is a ReLU of as many "
    "independent Gaussian values as a channel has in a sample{few}. ",
    "G": "G = 4 Var(gate) is 0 for a constant gate; networks without a gate have none. ",
}
DEAD = " Crosses: layers whose outputs do not vary; their L is 1 by convention."
OFF = (
    " Open points off the line: layers of one value a sample, before layers of more, as in "
    "squeeze-and-excitation."
)
PRODUCTS = " Squares: products, compared with a plane over the gate's input and the other factor."
FEW = 50
"""Values of a channel in a sample below which L_own is hollow: noise fits well, too."""

_OF_PRODUCTS: dict[str, Any] = {"marker": "s", "linestyle": (0, (1.2, 1.2))}
"""Products bend more than their gates: one line through both would go up and down."""

_OFF: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white"}

BY = ("layer", "depth")
MOST_NAMED = 6
"""Layers that the caption names one by one."""


@figure(kind="measured", needs=("depth",), order=170)
def linearity_by_depth(
    depth: pd.DataFrame,
    labels: Mapping[str, str] | None = None,
    *,
    by: str | None = None,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw L, L within samples and G by depth, one line a network.

    The reading: a layer near L = 1 could be replaced by a straight line, one near 0.733 bends as
    ReLU does; where L_own lies above L and above its own dotted line, each sample has a line of
    its own.

    Parameters
    ----------
    depth : pandas.DataFrame
        From `acon_analysis.plotdata.depth.linearity_by_depth`.
    labels : mapping of str to str, optional
        What to call a network.
    by : {"layer", "depth"}, optional
        What stands below: the layers that every network has, by name, or for networks of other
        layers the depth from the first layer to the last. By default layers where all networks
        have those of the smallest.

    Returns
    -------
    AconFigure
        One axes a measure (L, L_own, G) that any network has, and a row of them for each data set;
        in each one error bar container a network, a second for points off its line and a third
        for products, where it has any.

    Raises
    ------
    UsageError
        For an unknown `by`.
    AconError
        If the networks share no layer and are drawn by it, or are too many for one panel.
    """
    if by not in (None, *BY):
        raise UsageError(f"there is no axis by {by!r}; {closest(str(by), BY)}")
    of_layers = by == "layer" or (by is None and nested_layers(depth))
    table = shared_layers(depth) if of_layers else relative_depth(depth)
    measures = [name for name in PANELS if table.query("measure == @name")["value"].notna().any()]
    measures = measures or ["L"]
    groups = [own for _, own in table.groupby("data", sort=False)]
    names = row_names(table.drop_duplicates("place").sort_values("place"))
    with theme(context):
        narrow = is_narrow(width)
        shape = (len(groups) * len(measures), 1) if narrow else (len(groups), len(measures))
        long = of_layers and max(map(len, layer_labels(names))) > 4
        room = 0.5 * shape[0] if long else 0.0
        figure = new_figure(width, 1.55 * shape[0] + 0.55 + room, context)
        grid = figure.subplots(*shape, squeeze=False)
        panels = grid.reshape(len(groups), len(measures))
        for row, own in zip(panels, groups, strict=True):
            _draw_row(row, own, measures, labels or {})
            if len(groups) > 1:
                for axes in row if narrow else row[:1]:
                    axes.set_ylabel(shortened(str(own["data"].iloc[0]).rpartition(" of ")[2], 20))
        letters(panels[0], [PANELS[name] for name in measures])
        for axes in panels.ravel():
            if of_layers:
                name_layers(axes, names, narrow=narrow, most=30 // shape[1])
                axes.set_xlabel(axes.get_xlabel() if axes in grid[-1] else "")
            else:
                axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["first", "", "", "", "last"])
                axes.set_xlim(-0.07, 1.07)
        if not of_layers:
            grid[-1, (shape[1] - 1) // 2].set_xlabel("layer of the network")
        handles = yardstick_handles(_yardsticks(table), "L_own" in measures)
        if _products(table).any():
            handles.append(Line2D([], [], label="products", **(_OF_PRODUCTS | {"color": MUTED})))
        legend_below(figure, handles)
    figure.name(_subject(table))
    layers = "The networks' layers differ: each runs from its first to its last."
    figure.caption = CAPTION.format(
        panels=f": {', '.join(table['network'].unique())}",
        more="".join(MORE[name].format(few=_few(table)) for name in measures if name in MORE),
        layers=_which(names) if of_layers else layers,
        dotted="0.733, a ReLU of Gaussian inputs"
        if table["network"].nunique() > 1
        else "the same function of Gaussian inputs, 0.733 for a ReLU",
    )
    if table["dead"].any():
        figure.caption += DEAD
    if any((_off(own) & ~own["dead"]).any() for _, own in table.groupby(["network", "measure"])):
        figure.caption += OFF
    if _products(table).any():
        figure.caption += PRODUCTS
    return figure


def _subject(table: pd.DataFrame) -> str:
    """Name the network where there is one, and the data where they are of one kind."""
    networks, data = (list(table[name].unique()) for name in ("network", "data"))
    who = str(networks[0]) if len(networks) == 1 else f"{len(networks)} networks"
    return f"{who} on {'; '.join(map(str, data[:3]))}"


def _draw_row(
    panels: Iterable[Axes], table: pd.DataFrame, measures: Sequence[str], labels: Mapping[str, str]
) -> None:
    """Draw the networks of one data set, a panel a measure; both panels of L have one y axis."""
    networks = table.drop_duplicates("network")
    if len(networks) > MOST:
        raise AconError(f"{len(networks)} networks are too many for one panel; at most {MOST}")
    looks = activation_looks(str(name) for name in networks["activation"])
    names = _short([str(name) for name in networks["network"]], labels)
    limits = _limits(table[table["measure"] != "G"], *_yardsticks(table))
    for axes, measure in zip(panels, measures, strict=True):
        own = table[table["measure"] == measure]
        axes.set_ylim(*(_limits(own) if measure == "G" else limits))
        ends = []
        for network, name, look in zip(networks["network"], names, looks, strict=True):
            last = _draw(axes, own[own["network"] == network], look, alone=len(networks) == 1)
            if last is not None:
                ends.append(End(*last, name, look["color"]))
        if measure != "G":
            _draw_yardstick(axes, own, _yardsticks(table))
        if len(networks) > 1 and measure == measures[0]:
            label_ends(axes, ends)


def _yardsticks(table: pd.DataFrame) -> "pd.Series[float]":
    """Return L of each layer's function on Gaussian inputs; of several networks that of a ReLU."""
    relu = pd.Series(RELU_L, index=table.index)
    return relu if table["network"].nunique() > 1 else table.get("yardstick", relu)


def _draw_yardstick(axes: Axes, own: pd.DataFrame, yardsticks: "pd.Series[float]") -> None:
    """Draw L on Gaussian inputs; of L_own that of a ReLU of as many values as a sample has."""
    reach, own = axes.get_xlim(), own.dropna(subset=["value"])
    if own["measure"].eq("L_own").any() and own.get("values", pd.Series(np.nan)).notna().any():
        own = own.drop_duplicates(["place", "values"])
        heights = np.array([relu_own(round(count)) for count in own["values"]])
    else:
        own = own.drop_duplicates("place")
        heights = yardsticks.loc[own.index].to_numpy()
    half = 0.5 / max(1.0, 1 / np.diff(np.unique(own["place"])).min(initial=1.0))
    ends = own["place"].to_numpy() + np.array([[-half], [half]])
    if len(set(heights)) == 1:
        heights, ends = heights[:1], np.array([[-1e3], [1e3]])
    axes.hlines(heights, *ends, color=INK, linestyle=":", linewidth=thin(0.9), zorder=1.6)
    axes.set_xlim(reach)


def _few(table: pd.DataFrame) -> str:
    """Say which layers have few values a sample, and how many have too few for any line."""
    own = table[table["measure"] == "L_own"].drop_duplicates("place")
    without = own[own["value"].isna()]
    words = ""
    if "values" in own and (own["value"].notna() & (own["values"] < FEW)).any():
        words = f" (hollow: fewer than {FEW} values)"
    if len(without):
        known = without.get("values", pd.Series(dtype=float)).dropna()
        most = counted(round(known.max()), "value") if len(known) else "2 values"
        verb = "has" if len(without) == 1 else "have"
        words += f". {counted(len(without), 'layer')} {verb} at most {most} a sample and no L_own"
    return words


def _short(networks: list[str], labels: Mapping[str, str]) -> list[str]:
    """Return what the networks of one data set are called: without what all begin with."""
    starts = {name.partition("_")[0] for name in networks}
    short = [name.partition("_")[2] or name for name in networks]
    kept = short if len(starts) == 1 and "" not in starts and len(networks) > 1 else networks
    return [shortened(labels.get(n, k), 18) for n, k in zip(networks, kept, strict=True)]


def _draw(
    axes: Axes, table: pd.DataFrame, look: dict[str, Any], *, alone: bool
) -> tuple[float, float] | None:
    """Draw one network, its products apart; return the end of its line."""
    table = table.dropna(subset=["value"]).sort_values("place")
    if table.empty:
        return None
    products, off = _products(table), _off(table)
    own = ~products | bool(products.all())
    of_products = look | _OF_PRODUCTS | ({"color": COLORS["grey"]} if alone else {})
    for layers, of_layers in (
        (own & ~off, look), (own & off & ~table["dead"], look | _OFF), (~own & ~off, of_products),
    ):  # fmt: skip
        if layers.any():
            _draw_line(axes, table[layers], of_layers, len(table))
    dead = table[table["dead"]]
    axes.scatter(dead["place"], dead["value"], s=40, marker="x", color="black", zorder=4)
    end = table[own & ~off] if (own & ~off).any() else table
    return float(end["place"].iloc[-1]), float(end["value"].iloc[-1])


def _draw_line(axes: Axes, own: pd.DataFrame, look: dict[str, Any], total: int) -> None:
    """Draw layers of one kind with their intervals, hollow where samples have few values."""
    below = np.nan_to_num(own["value"] - own["low"]).clip(0.0)
    above = np.nan_to_num(own["high"] - own["value"]).clip(0.0)
    many = thin(1.0 if total <= 10 else 0.7)
    axes.errorbar(
        own["place"], own["value"], np.stack([below, above]), capsize=thin(1.2), linewidth=many,
        markersize=2.8 * many, elinewidth=thin(0.7), **look,
    )  # fmt: skip
    few = own[(own["measure"] == "L_own") & (own.get("values", FEW) < FEW)]
    axes.scatter(
        few["place"], few["value"], s=(3.6 * many) ** 2, marker=look.get("marker", "o"),
        facecolor="white", edgecolor=look["color"], linewidth=thin(0.8), zorder=3,
    )  # fmt: skip


def _off(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return which layers of one network, in order of execution, lie off its line."""
    values = table.get("values", pd.Series(np.nan, index=table.index))
    return pd.Series(off_line(values, table["dead"]), index=table.index)


def _products(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return which layers are products; none in a frame without kinds."""
    return table.get("kind", pd.Series("", index=table.index)) == "product"


def _limits(table: pd.DataFrame, *shown: float) -> tuple[float, float]:
    """Return whole fifths around the values and what is shown with them, within 0 to 1."""
    known = np.append(table[["value", "low", "high"]].to_numpy(dtype=np.float64), shown)
    known = known[np.isfinite(known)]
    low, high = 0.2 * np.floor(known.min() / 0.2), 0.2 * np.ceil(known.max() / 0.2)
    return float(low), float(max(high, low + 0.2) + 0.02)


def _which(names: Sequence[str]) -> str:
    """Name the layers where they are few, else the first and the last."""
    if len(names) > MOST_NAMED:
        return f"{len(names)} layers, from {names[0]} to {names[-1]}."
    return f"Layers: {', '.join(names)}."
