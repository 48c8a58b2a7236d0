"""How linear each layer is, from the first to the last, of several networks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.plotdata.depth import nested_layers, relative_depth, shared_layers
from acon_figures.names import entry, plain
from acon_figures.spec import figure
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme, thin

PANELS = {"L": "$L$, all samples", "L_own": "$L$, within a sample", "G": "gate variance $G$"}
NETWORK_COLORS = ("red", "green", "orange", "blue", "purple", "brown")
MARKERS = "osD^vP"
FAMILY_DASHES = ("solid", (0, (4, 1.5)))
"""Networks whose names begin alike, such as digits_*, have one style of line."""

CAPTION = (
    "Linearity of the activation layers in order of execution: the share L of the outputs' "
    "variance that one straight line per channel explains, over all samples, and with a line of "
    "its own for every sample; and G = 4 Var(gate), which is 0 for a constant gate and undefined "
    "where there is no gate. Bars: 95 % jackknife over blocks of samples. {layers}"
)
DEAD = " Crosses: layers whose outputs do not vary; their L is 1 by convention."
BY = ("layer", "depth")
MOST_NAMED = 6
"""Layers that the caption names one by one."""


@figure(kind="measured", heading="Linearity by depth", needs=("depth",), order=170)
def linearity_by_depth(
    depth: pd.DataFrame,
    labels: Mapping[str, str] | None = None,
    *,
    by: str | None = None,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw L, L within samples and G by depth, one line a network.

    The reading: a layer near L = 1 could be replaced by a straight line; where L within a sample
    lies above L, each sample has a line of its own.

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
    width : {"single", "double"} or float
        Panels side by side or one below the other.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        One axes a measure (L, L_own, G), with one error bar container a network that has it.

    Raises
    ------
    UsageError
        For an unknown `by`.
    AconError
        If the networks share no layer and are drawn by it, or are too many to distinguish.
    """
    if by not in (None, *BY):
        raise UsageError(f"there is no axis by {by!r}; {closest(str(by), BY)}")
    of_layers = by == "layer" or (by is None and nested_layers(depth))
    table = shared_layers(depth) if of_layers else relative_depth(depth)
    networks = [str(name) for name in table["network"].unique()]
    looks = _looks(networks)
    names = [str(name) for name in table.drop_duplicates("place").sort_values("place")["layer"]]
    with theme(context):
        narrow = is_narrow(width)
        rows = -(-len(networks) // (2 if narrow else 4))
        figure = new_figure(width, 4.8 + 0.17 * rows if narrow else 2.45 + 0.17 * rows, context)
        shape = (len(PANELS), 1) if narrow else (1, len(PANELS))
        panels = figure.subplots(*shape, squeeze=False, sharex=narrow).ravel()
        for axes, (measure, title) in zip(panels, PANELS.items(), strict=True):
            _draw(axes, table[table["measure"] == measure], looks, labels or {})
            axes.set_title(title)
            if of_layers:
                _ticks(axes, [plain(_short(layer)) for layer in names])
            else:
                axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["first", "", "", "", "last"])
                axes.set_xlim(-0.07, 1.07)
            if narrow and axes is not panels[-1]:
                axes.tick_params(labelbottom=False)
        if not of_layers:
            panels[-1 if narrow else 1].set_xlabel("layer of the network")
        handles, words = panels[0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=2 if narrow else 4)
    layers = "The networks' layers differ: each runs from its first to its last."
    figure.caption = CAPTION.format(layers=_which(names) if of_layers else layers)
    if table["dead"].any():
        figure.caption += DEAD
    return figure


def _looks(networks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour, marker and dashes of every network.

    Where names are of two parts (digits_acon), the second decides the colour and the first the
    dashes; where there are too many of either, each network has its own colour.
    """
    parts = {name: name.partition("_")[::2] for name in networks}
    families = list(dict.fromkeys(first for first, _ in parts.values()))
    kinds = list(dict.fromkeys(second for _, second in parts.values()))
    if len(kinds) > len(NETWORK_COLORS) or len(families) > len(FAMILY_DASHES):
        families, kinds = [""], list(networks)
        parts = {name: ("", name) for name in networks}
    if len(kinds) > len(NETWORK_COLORS):
        raise AconError(f"{len(kinds)} networks are too many for {len(NETWORK_COLORS)} colours")
    looks = {}
    for name, (family, kind) in parts.items():
        place, dash = kinds.index(kind), families.index(family)
        color = COLORS[NETWORK_COLORS[place]]
        filled = {"markerfacecolor": "white"} if dash else {}
        looks[name] = {
            "color": color, "marker": MARKERS[place], "linestyle": FAMILY_DASHES[dash], **filled,
        }  # fmt: skip
    return looks


def _draw(
    axes: Axes, table: pd.DataFrame, looks: Mapping[str, dict[str, Any]], labels: Mapping[str, str]
) -> None:
    for network, look in looks.items():
        own = table[table["network"] == network].dropna(subset=["value"]).sort_values("place")
        if own.empty:
            continue
        below = np.nan_to_num(own["value"] - own["low"]).clip(0.0)
        above = np.nan_to_num(own["high"] - own["value"]).clip(0.0)
        axes.errorbar(
            own["place"], own["value"], np.stack([below, above]), capsize=thin(1.6),
            elinewidth=thin(0.8), label=entry(labels.get(network, network)), **look,
        )  # fmt: skip
        dead = own[own["dead"]]
        axes.scatter(dead["place"], dead["value"], s=40, marker="x", color="black", zorder=4)
    known = table[["value", "low", "high"]].to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    if known.size:  # whole fifths around the data, within 0 to 1
        low, high = float(known.min()), float(known.max())
        axes.set_ylim(0.2 * np.floor(low / 0.2), 0.2 * np.ceil(high / 0.2) + 0.01)
    else:
        axes.set_yticks([])
        words = "no gate" if (table["measure"] == "G").all() else "at most two values a sample"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center")


def _short(layer: str) -> str:
    """Return a layer's name without what stands for the activation in every name."""
    return layer.removesuffix(".acon").removeprefix("layer")


def _which(names: Sequence[str]) -> str:
    """Name the layers where they are few, else the first and the last."""
    if len(names) > MOST_NAMED:
        return f"{len(names)} layers, from {names[0]} to {names[-1]}."
    return f"Layers: {', '.join(names)}."


def _ticks(axes: Axes, names: list[str]) -> None:
    """Name every layer where there is room, else some of them."""
    step = max(1, -(-len(names) // 8))
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.set_xlim(-0.4, len(names) - 0.6)
    if any(len(name) > 4 for name in names):
        axes.tick_params(axis="x", labelrotation=90.0)
