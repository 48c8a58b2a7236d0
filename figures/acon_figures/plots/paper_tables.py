"""Tables 3, 4, 9, 10, meta-ACON, TFNet and the improvements, best numbers bold."""

from collections.abc import Sequence

from acon_analysis import paper
from acon_analysis.errors import UsageError
from acon_figures.spec import figure
from acon_figures.style import (
    TALK_SIZE,
    TALK_TEXT,
    AconFigure,
    inches,
    is_narrow,
    new_figure,
    theme,
)
from acon_figures.tabular import Cells, draw_table, fitting_size

ROWS = (("table3",), ("meta_acon", "table4"), ("table9", "table10"), ("tfnet", "improvements"))
"""Tables side by side at two columns' width."""

MARGIN = 0.06
GUTTER = 0.3
"""Around the figure and between tables, in inch."""


@figure(kind="printed numbers", variants={"counts": {"names": ("counts",)}}, order=60)
def paper_tables(
    names: Sequence[str] | None = None, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw the paper's printed tables.

    Parameters
    ----------
    names : sequence of str, optional
        Keys of `acon_analysis.paper.TABLES`, one below the other; by default tables 3, 4, 9, 10,
        meta-ACON, TFNet and the improvements, in pairs where the width allows.

    Returns
    -------
    AconFigure
        One axes a table.

    Raises
    ------
    UsageError
        For an unknown table, or no name.
    """
    narrow = is_narrow(width)
    if names is None:
        flat = tuple((name,) for row in ROWS for name in row)
        rows: Sequence[Sequence[str]] = flat if narrow else ROWS
    else:
        rows = [(name,) for name in names]
    if not rows:
        raise UsageError("names is empty: give at least one table")
    cells = [[_cells(name) for name in row] for row in rows]
    scale, text = (1.0, 1.0) if context == "paper" else (TALK_SIZE, TALK_TEXT)
    sizes, heights = [], []
    for row in cells:
        points = _points(len(row), width) * scale
        size = min(fitting_size(one, points, 7.0 * text) for one in row)
        sizes.append(size)
        heights.append(max(one.height for one in row) * size / 72.0 / scale)
    height = sum(heights) + 0.12 * (len(rows) - 1) + 2.0 * MARGIN
    with theme(context):
        figure = new_figure(width, height, context)
        figure.set_layout_engine("none")
        top = height - MARGIN
        for row, size, high in zip(cells, sizes, heights, strict=True):
            for index, one in enumerate(row):
                points = _points(len(row), width)
                left = MARGIN + index * (points / 72.0 + GUTTER)
                mine = one.height * size / 72.0 / scale
                rect = (left / inches(width), (top - mine) / height)
                size_in_figure = (points / 72.0 / inches(width), mine / height)
                axes = figure.add_axes((*rect, *size_in_figure))
                draw_table(axes, one, size, points * scale)
            top -= high + 0.12
    shown = [paper.describe(name) for row in rows for name in row]
    sources = "; ".join(f"{one.title}: {one.source} (grade {one.grade})" for one in shown)
    bold = ", best numbers bold" if any(one.bold for row in cells for one in row) else ""
    figure.caption = f"The paper's printed tables{bold}. Sources: {sources}."
    return figure


def _points(count: int, width: str | float) -> float:
    """Return the width of one of `count` tables side by side, in points on paper."""
    return 72.0 * (inches(width) - 2.0 * MARGIN - (count - 1) * GUTTER) / count


def _cells(name: str) -> Cells:
    one = paper.describe(name)
    shown = paper.printed(name)
    heads = [column.latex or column.heading.removesuffix(" (Swish)") for column in one.columns]
    mask = paper.best_mask(name)
    bold = frozenset((int(r), int(c)) for r, c in zip(*mask.nonzero(), strict=True))
    left = [isinstance(value, str) for value in one.rows[0]]
    title = f"{one.title}: {TITLES[name]}" if name in TITLES else one.title
    return Cells(heads, shown.to_numpy().tolist(), left, bold, one.breaks, title)


TITLES = {
    "table3": "ImageNet top-1 error (%); ACON-A is Swish",
    "table4": "ShuffleNetV2 0.5x, top-1 error (%)",
    "table9": "COCO, RetinaNet (%)",
    "table10": "CityScapes, PSPNet (%)",
    "meta_acon": "ImageNet top-1 error (%)",
    "tfnet": "ImageNet top-1 error (%)",
    "improvements": "over ReLU (points)",
    "counts": "as printed, and counted on this project's networks",
}
