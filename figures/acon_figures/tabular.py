"""Tables inside figures, in booktabs' manner, with text as large as the width allows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib import cbook
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from acon_figures.style import INK

LINE = 1.5
"""Height of a row in units of its text size."""

GAP = 1.1
"""Space between columns, likewise."""


@dataclass(frozen=True)
class Cells:
    """A table as text."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    # Whether each column is set to the left; the others are to the right.
    left: Sequence[bool]
    # (row, column) pairs.
    bold: frozenset[tuple[int, int]] = frozenset()
    # Rows with a rule above.
    breaks: Sequence[int] = field(default=())
    title: str = ""

    @property
    def height(self) -> float:
        """Height in units of the text size."""
        return LINE * (len(self.rows) + 1 + (1.2 if self.title else 0.0)) + 0.6


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a text in points, mathematics included."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    math = cbook.is_math_text(text)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, math)
    return float(width)


def fitting_size(cells: Cells, points: float, largest: float) -> float:
    """Return the text size at which a table is at most `points` wide, at most `largest`."""
    natural = sum(_widths(cells, largest)) + GAP * largest * (len(cells.heads) - 1)
    return min(largest, largest * points / natural)


def draw_table(axes: Axes, cells: Cells, size: float, points: float) -> None:
    """Draw a table from the top of axes `points` wide and ``cells.height * size`` points high."""
    axes.set_axis_off()
    axes.set_xlim(0.0, points)
    axes.set_ylim(-cells.height * size, 0.0)
    widths = np.asarray(_widths(cells, size))
    gap = (points - widths.sum()) / max(len(widths) - 1, 1)
    starts = np.append(0.0, np.cumsum(widths + gap))[: len(widths)]
    y = -0.5 * LINE * size
    if cells.title:
        axes.text(0.0, y, cells.title, size=size, weight="bold", va="center", color=INK)
        y -= 1.2 * LINE * size
    _rule(axes, y + 0.6 * LINE * size, points, 1.0)
    for number, row in enumerate((cells.heads, *cells.rows)):
        if number == 1 or number - 1 in cells.breaks:
            _rule(axes, y + 0.45 * LINE * size, points, 0.5)
        for column, text in enumerate(row):
            at_left = cells.left[column]
            x = starts[column] if at_left else starts[column] + widths[column]
            axes.text(
                x, y - 0.12 * size, text, size=size, va="center", color=INK,
                ha="left" if at_left else "right",
                weight="bold" if (number - 1, column) in cells.bold else "normal",
            )  # fmt: skip
        y -= LINE * size
    _rule(axes, y + 0.4 * LINE * size, points, 1.0)


def _widths(cells: Cells, size: float) -> list[float]:
    widths = []
    for column in range(len(cells.heads)):
        entries = [text_width(cells.heads[column], size)]
        for number, row in enumerate(cells.rows):
            bold = (number, column) in cells.bold
            entries.append(text_width(row[column], size, bold=bold))
        widths.append(max(entries))
    return widths


def _rule(axes: Axes, y: float, points: float, thickness: float) -> None:
    axes.hlines(y, 0.0, points, color=INK, linewidth=thickness)
