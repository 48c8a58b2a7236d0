"""Words next to what they name: labels at the ends of lines, and letters of panels."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from acon_analysis.screen import three_digits
from acon_analysis.statistics.gaussian import RELU_L
from acon_figures.names import entry, layer_labels, layers_word
from acon_figures.palette import INK, activation_color
from acon_figures.style import AconFigure, thin


class End(NamedTuple):
    """The end of a line, in data, and what is written there."""

    x: float
    y: float
    text: str
    color: str


def letters(panels: Iterable[Axes], titles: Iterable[str]) -> None:
    """Give several panels their titles, each with its letter; one panel alone has no letter."""
    pairs = list(zip(panels, titles, strict=True))
    for number, (axes, title) in enumerate(pairs):
        axes.set_title(f"({chr(ord('a') + number)}) {title}" if len(pairs) > 1 else title)


def label_ends(axes: Axes, ends: Sequence[End], *, side: str = "right") -> None:
    """Write names at the ends of lines, moved apart; the axes must have their final limits."""
    if not ends:
        return
    size = float(mpl.rcParams["legend.fontsize"])
    low, high = axes.transScale.transform([(0, edge) for edge in axes.get_ylim()])[:, 1]
    wanted = axes.transScale.transform([(0, end.y) for end in ends])[:, 1]
    figure = axes.get_figure(root=True)
    height = 0.9 * axes.get_position().height * (figure.get_figheight() if figure else 1.0)
    share = np.clip((wanted - low) / (high - low), 0.0, 1.0)
    gap = 1.2 * size / 72.0 / height
    found = np.array(apart(share, gap))
    rank = np.argsort(np.argsort(found))  # inside the axes, as far as there is room
    found = np.clip(found, gap * (rank + 0.4), 1.0 - gap * (len(ends) - rank - 0.6))
    start, stop, align = (1.0, 1.035, "left") if side == "right" else (0.0, -0.035, "right")
    for end, height, level in zip(ends, share, found, strict=True):
        axes.annotate(
            "", (start, height), xytext=(stop, level), xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": end.color, "linewidth": thin(0.5),
                        "shrinkA": 0.0, "shrinkB": 0.0},
        )  # fmt: skip
        axes.text(
            stop, level, f" {end.text} ", transform=axes.transAxes, size=size, color=end.color,
            va="center", ha=align,
        )  # fmt: skip


def apart(wanted: Sequence[float] | npt.NDArray[np.float64], gap: float) -> list[float]:
    """Return positions at least `gap` apart, in the order of those wanted and close to them."""
    order = np.argsort(wanted, kind="stable")
    groups: list[tuple[float, list[int]]] = []  # the middle of a group of touching names
    for index in order:
        groups.append((float(wanted[index]), [int(index)]))
        while len(groups) > 1:
            (below, own), (above, other) = groups[-2:]
            if above - below >= gap * (len(own) + len(other)) / 2:
                break
            count = len(own) + len(other)
            middle = (below * len(own) + above * len(other)) / count
            groups[-2:] = [(middle, own + other)]
    found = [0.0] * len(wanted)
    for middle, members in groups:
        for rank, index in enumerate(members):
            found[index] = middle + (rank - (len(members) - 1) / 2) * gap
    return found


def equals(name: str, value: float) -> str:
    """Write a number of three digits after its name: "L = 0.998", "L > 0.999"."""
    text = three_digits(value)
    return f"{name} {text}" if text.startswith(">") else f"{name} = {text}"


def activation_handles(classes: Iterable[str]) -> list[Line2D]:
    """Return the legend's entries for the colours of the first activations, and of products."""
    named: dict[str, str] = {}  # a function has the colour of its module
    for name in classes:
        named.setdefault(name.lower(), name)
    return [
        mark("product" if name == "mul" else entry(name), color=activation_color(name))
        for name in list(named.values())[:6]
    ]


def mark(label: str, shape: str = "o", *, color: str = INK, fill: str | None = None) -> Line2D:
    """Return the legend's entry for single marks."""
    inside = fill or color
    return Line2D([], [], linestyle="none", marker=shape, color=color, mfc=inside, label=label)


def legend_below(figure: AconFigure, handles: Sequence[Artist]) -> None:
    """Explain what is drawn below the panels, in as many columns as the width allows."""
    size = float(mpl.rcParams["legend.fontsize"]) / 72.0
    longest = max(len(str(handle.get_label())) for handle in handles)
    most = figure.get_figwidth() / (size * (0.56 * longest + 5.0))
    columns = max(1, min(len(handles), int(most)))
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)


def yardstick_handles(yardsticks: "pd.Series[float]", first: bool = False) -> list[Line2D]:
    """Return the legend's entry for dotted lines at the layers' yardsticks, if there are any.

    ``first``: they are in the first panel; in the second dotted is always a ReLU.
    """
    if yardsticks.isna().all():
        words = "b: a ReLU of Gaussian inputs" if first else ""
    elif np.isclose(yardsticks.dropna(), RELU_L).all():
        words = "a ReLU of Gaussian inputs" + (" (0.733 in a)" if first else ": 0.733")
    else:
        words = "each layer's function of Gaussian inputs" + (" (b: a ReLU)" if first else "")
    return [Line2D([], [], color=INK, linestyle=":", label=words)] if words else []


def name_layers(axes: Axes, layers: Sequence[str], *, narrow: bool, most: int = 26) -> None:
    """Name layers below, at 0, 1, ...: every one where there is room, else some of them."""
    room, named = 12 if narrow else most, list(range(len(layers)))
    whole = list(layers)
    if len(layers) > room:  # of layers that are called several times only the first calls
        named = [place for place in named if not re.search(r"call [1-9]\d*\)$", layers[place])]
        whole = [re.sub(r" \(call 0\)$|, call 0(?=\)$)", "", layers[place]) for place in named]
    step = -(-len(named) // room)
    labels = layer_labels(whole)[::step]
    axes.set_xticks(named[::step], labels)
    if max(map(len, labels)) * len(labels) > (36 if narrow else 3.2 * most):
        axes.tick_params(axis="x", labelrotation=90.0)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(layers_word(whole))
