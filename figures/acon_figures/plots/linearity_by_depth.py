"""How linear the layers are from the first to the last, of several networks in one plot."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.depth import shared_layers
from acon_analysis.errors import AconError
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme, thin

PANELS = {"L": "$L$, all samples", "L_own": "$L$, within a sample", "G": "gate variance $G$"}
NETWORK_COLORS = ("red", "green", "orange", "blue", "purple", "brown")
MARKERS = "osD^vP"

CAPTION = (
    "Linearity of the activation layers in order of execution: the share L of the outputs' "
    "variance that one straight line per channel explains, over all samples, and with a line of "
    "its own for every sample; and G = 4 Var(gate), which is 0 for a constant gate and undefined "
    "where there is no gate. Bars: 95 % jackknife over blocks of samples. Layers: {layers}."
)


def linearity_by_depth(
    depth: pd.DataFrame,
    labels: Mapping[str, str] | None = None,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw L, L within samples and G by depth, one line a network.

    The reading: a layer near L = 1 could be replaced by a straight line; where L within a sample
    lies above L, each sample has a line of its own.

    Parameters
    ----------
    depth : pandas.DataFrame
        From `acon_analysis.depth.linearity_by_depth`; layers that not every network has are left
        out.
    labels : mapping of str to str, optional
        What to call a network.
    width : {"single", "double"} or float
        Panels beside or below one another.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        One axes a measure (L, L_own, G), with one error bar container a network that has it.

    Raises
    ------
    AconError
        If the networks share no layer, or are too many to tell apart.
    """
    table = shared_layers(depth)
    networks = [str(name) for name in table["network"].unique()]
    if len(networks) > len(NETWORK_COLORS):
        raise AconError(f"{len(networks)} networks are too many for {len(NETWORK_COLORS)} colours")
    names = table.drop_duplicates("place").sort_values("place")
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 5.0 if narrow else 2.6, context)
        shape = (len(PANELS), 1) if narrow else (1, len(PANELS))
        panels = figure.subplots(*shape, squeeze=False, sharex=narrow).ravel()
        for axes, (measure, title) in zip(panels, PANELS.items(), strict=True):
            _draw(axes, table[table["measure"] == measure], networks, labels or {})
            axes.set_title(title)
            _ticks(axes, [_short(str(layer)) for layer in names["layer"]])
        handles, words = panels[0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=2 if narrow else 4)
    figure.caption = CAPTION.format(layers=", ".join(names["layer"]))
    return figure


def _draw(axes: Axes, table: pd.DataFrame, networks: list[str], labels: Mapping[str, str]) -> None:
    for index, network in enumerate(networks):
        own = table[table["network"] == network].dropna(subset=["value"]).sort_values("place")
        if own.empty:
            continue
        below = np.nan_to_num(own["value"] - own["low"]).clip(0.0)
        above = np.nan_to_num(own["high"] - own["value"]).clip(0.0)
        axes.errorbar(
            own["place"], own["value"], np.stack([below, above]), color=COLORS[
                NETWORK_COLORS[index]
            ], marker=MARKERS[index], capsize=thin(1.6), elinewidth=thin(0.8),
            label=labels.get(network, network),
        )  # fmt: skip
    known = table[["value", "low", "high"]].to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    if known.size:  # whole fifths around the data, within 0 to 1
        low, high = float(known.min()), float(known.max())
        axes.set_ylim(0.2 * np.floor(low / 0.2), 0.2 * np.ceil(high / 0.2) + 0.01)


def _short(layer: str) -> str:
    """Return a layer's name without what stands for the activation in every name."""
    return layer.removesuffix(".acon").removeprefix("layer")


def _ticks(axes: Axes, names: list[str]) -> None:
    """Name every layer where there is room, else some of them."""
    step = max(1, -(-len(names) // 8))
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.set_xlim(-0.4, len(names) - 0.6)
    if any(len(name) > 4 for name in names):
        axes.tick_params(axis="x", labelrotation=90.0)
