"""Boxes and arrows for the diagrams of layers."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from acon_figures.style import INK, thin

LINEAR = "#eef1f4"
GATE = "#fbe3bd"
ACTIVATION = "#c9e2f2"
"""Fills: linear steps, sigmoid and ReLU, the activation itself."""

BOX_HEIGHT = 0.62
"""Height of a box where rows are 1 apart."""


def panel(axes: Axes, title: str, rows: float) -> None:
    """Prepare axes for a diagram: x from 0 to 1, y from `rows` (top) to 0, no frame."""
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, rows)
    axes.set_title(title)


def box(
    axes: Axes, x: float, y: float, text: str, *, width: float = 0.7, fill: str = LINEAR
) -> None:
    """Draw a box with its text, both centred at (x, y)."""
    patch = FancyBboxPatch(
        (x - width / 2, y - BOX_HEIGHT / 2), width, BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.02", mutation_aspect=8.0,
        facecolor=fill, edgecolor=INK, zorder=2.0,
    )  # fmt: skip
    axes.add_patch(patch)
    word(axes, x, y, text)


def word(axes: Axes, x: float, y: float, text: str, *, align: str = "center") -> None:
    """Write text without a box, on white where lines pass below."""
    axes.text(x, y, text, ha=align, va="center", size="small", color=INK, zorder=3.0)


def arrow(axes: Axes, *points: tuple[float, float], head: bool = True) -> None:
    """Draw a line through points, with a head at its end."""
    *_, before, last = points
    if len(points) > 2 or not head:
        path = points if not head else points[:-1]
        axes.plot(*zip(*path, strict=True), color=INK, linewidth=thin(0.7), zorder=1.0)
    if head:
        style = {"arrowstyle": "-|>", "color": INK, "linewidth": thin(0.7)}
        shrink = {"shrinkA": 0.0, "shrinkB": 0.0, "mutation_scale": thin(5.0)}
        axes.annotate("", xy=last, xytext=before, arrowprops=style | shrink, zorder=1.0)


def column(
    axes: Axes, x: float, steps: Sequence[tuple[float, str, str]], *, width: float = 0.7
) -> None:
    """Draw boxes centred at x, joined by arrows, from steps (y, text, fill); no fill, no box."""
    for index, (y, text, fill) in enumerate(steps):
        if fill:
            box(axes, x, y, text, width=width, fill=fill)
        else:
            word(axes, x, y, text)
        if index:
            above = steps[index - 1][0]
            arrow(axes, (x, above - BOX_HEIGHT / 2), (x, y + BOX_HEIGHT / 2))
