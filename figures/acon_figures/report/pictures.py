"""The registry's figures of one run, for a page: as SVG at two widths, with caption and numbers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from acon_analysis.columns import BLOCK_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.statistics.beta_clusters import ordered_betas
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_figures.drawing import complete
from acon_figures.inputs import Inputs
from acon_figures.names import visible
from acon_figures.registry import FIGURES
from acon_figures.report.numbers import MOST_PACKED, csv_text, packed
from acon_figures.report.svg import inline_svg
from acon_figures.spec import FigureSpec


@dataclass(frozen=True)
class Numbers:
    """A table that a page offers as CSV."""

    # Its key in the page, also the file's name without ending.
    name: str
    rows: int
    columns: tuple[str, ...]
    # From `numbers.packed`.
    data: str | None


@dataclass(frozen=True)
class Picture:
    """One figure of a page."""

    name: str
    heading: str
    caption: str
    # ``<svg>`` elements for wide and narrow pages; empty where the figure could not be drawn.
    wide: str
    narrow: str
    # Why it could not.
    reason: str
    numbers: tuple[Numbers, ...]


def reported() -> list[FigureSpec]:
    """Return the figures that a report shows where a run has their inputs; those of β last."""
    shown = [spec for spec in FIGURES.values() if spec.heading]
    return sorted(shown, key=lambda spec: "beta" in spec.name)


def picture(spec: FigureSpec, inputs: Inputs, offered: dict[str, Numbers]) -> Picture | None:
    """Draw a figure for a page, and add to its tables; None where the run has nothing to show."""
    drawn: dict[str, str] = {}
    caption = ""
    try:
        frames = inputs.of(spec)
        if not frames.keys() >= set(spec.required):
            return None
        for width in ("double", "single"):
            figure = spec.draw(frames, width=width)
            complete(figure, spec, inputs)
            caption = visible(figure.caption).replace(" %", "\u00a0%")
            label = f"{spec.name}-{width}"
            drawn[width] = inline_svg(figure, label, spec.heading, spec.description)
        tables = tuple(dict.fromkeys(_offer(spec, frames, offered)))
    except AconError as error:
        return Picture(spec.name, spec.heading, "", "", "", visible(error), ())
    return Picture(spec.name, spec.heading, caption, drawn["double"], drawn["single"], "", tables)


def _offer(
    spec: FigureSpec, frames: Mapping[str, Any], offered: dict[str, Numbers]
) -> Iterator[Numbers]:
    """Yield the tables of a figure, each packed once however many figures draw it."""
    for name, make in _tables(spec, frames):
        if name not in offered:
            table = numbers(name, make())
            same = (one for one in offered.values() if one.data and one.data == table.data)
            offered[name] = next(same, table)
        yield offered[name]


def _tables(
    spec: FigureSpec, frames: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[], pd.DataFrame]]]:
    """Yield the names of the tables that hold a figure's numbers, and what makes each."""
    if spec.table:
        yield spec.name, partial(spec.numbers, frames)
        return
    for need in spec.needs:
        if isinstance(frames[need], BetaMatrix):
            yield "betas", partial(_ordered, frames[need])
        elif isinstance(frames[need], pd.DataFrame):
            yield need, partial(_known, need, frames[need])


def _known(need: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table; of one of blocks, which was given as a file, the columns that it may have."""
    if need != "blocks":
        return frame.copy()
    return frame[[name for name in names(BLOCK_COLUMNS) if name in frame]]


def _ordered(betas: BetaMatrix) -> pd.DataFrame:
    """Return β as the heat map shows it, a column a channel."""
    found = ordered_betas(betas)
    table = pd.DataFrame(found.values, columns=[f"channel {number}" for number in found.channels])
    table = table.astype("float32").round(4)
    table.insert(0, "sample", found.sample_ids)
    return table


def numbers(name: str, frame: pd.DataFrame, most: int = MOST_PACKED) -> Numbers:
    """Pack a frame for a page that carries at most N characters of it."""
    columns = tuple(str(key) for key in frame.columns)
    return Numbers(name, len(frame), columns, packed(csv_text(frame), most))
