"""What every figure must fulfil: no text cut off by the edge, no two texts over one another."""

from itertools import combinations
from typing import Any, cast

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from acon_figures import theme


def _tick_labels(axis: Axis) -> tuple[set[Text], set[Text]]:
    """Return an axis' drawn tick labels and all of them (those out of view are not drawn)."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-6 * (high - low)
    every: set[Text] = set()
    drawn: set[Text] = set()
    for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
        labels = {tick.label1, tick.label2}
        every |= labels
        if low - slack <= tick.get_loc() <= high + slack:
            drawn |= labels
    return drawn, every


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Draw a figure and return its visible texts with their boxes in pixels."""
    with theme():
        canvas: Any = FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    hidden: set[Text] = set()
    for axes in figure.axes:
        own = [getattr(axes, name) for name in ("xaxis", "yaxis", "zaxis") if hasattr(axes, name)]
        for axis in own:
            drawn, every = _tick_labels(axis)
            hidden |= every - drawn
        if not axes.axison and len(own) == 2:  # three-dimensional axes are always "off"
            hidden |= {t for axis in (axes.xaxis, axes.yaxis) for t in axis.findobj(Text)}
    renderer = canvas.get_renderer()
    return [
        (text.get_text(), text.get_window_extent(renderer))
        for text in cast("list[Text]", figure.findobj(Text))
        if text not in hidden and text.get_visible() and text.get_text().strip()
    ]


def problems(figure: Figure) -> list[str]:
    """Return what is cut off and what overlaps, in words; empty for a good figure."""
    boxes = texts(figure)
    edge = figure.bbox
    wrong = [
        f"{text!r} leaves the figure"
        for text, box in boxes
        if box.x0 < edge.x0 - 1 or box.y0 < edge.y0 - 1 or box.x1 > edge.x1 + 1
        or box.y1 > edge.y1 + 1
    ]  # fmt: skip
    for (one, a), (other, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 1.0 and along > 1.0:
            wrong.append(f"{one!r} and {other!r} overlap by {across:.0f} x {along:.0f} pixels")
    return wrong
