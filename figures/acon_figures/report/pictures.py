"""The registry's figures of one run, for a page: as SVG at two widths, with caption and numbers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from acon_analysis.errors import AconError
from acon_analysis.statistics.beta_clusters import ordered_betas
from acon_analysis.statistics.beta_densities import beta_densities
from acon_figures.inputs import FROM_PACKAGE, Frames
from acon_figures.names import visible
from acon_figures.registry import FIGURES
from acon_figures.report.numbers import csv_text, packed
from acon_figures.report.svg import inline_svg
from acon_figures.spec import FigureSpec

#: Sketches, whose colours mean the light page that they are drawn for.
_SKETCHES = ("network_sketch",)

#: Figure -> what a page calls it.
_HEADINGS = {
    "beta_distributions": "β of single samples",
    "linearity_by_depth": "Linearity by depth",
    "beta_against_null": "β against what BatchNorm imposes",
    "beta_heatmap": "β of every sample and channel",
    "slopes": "Slopes: learned, and reached by the data",
    "channel_portrait": "The channel that matters most in the last layer",
    "sample_extremes": "One channel where it is straightest, and where it bends most",
    "measures_disagree": "What the measures of linearity do not agree on",
}


@dataclass(frozen=True)
class Numbers:
    """A table that a page offers as CSV.

    Attributes
    ----------
    name : str
        Its key in the page, also the file's name without ending.
    rows : int
    columns : tuple of str
    data : str or None
        From `numbers.packed`.
    """

    name: str
    rows: int
    columns: tuple[str, ...]
    data: str | None


@dataclass(frozen=True)
class Picture:
    """One figure of a page.

    Attributes
    ----------
    name, heading, caption : str
    wide, narrow : str
        ``<svg>`` elements for wide and narrow pages; empty where the figure could not be drawn.
    reason : str
        Why it could not.
    numbers : tuple of Numbers
    """

    name: str
    heading: str
    caption: str
    wide: str
    narrow: str
    reason: str
    numbers: tuple[Numbers, ...]


def specs_for(frames: Frames) -> list[FigureSpec]:
    """Return the measured figures that these frames are enough for."""
    return [
        spec
        for spec in FIGURES.values()
        if spec.kind == "measured"
        and spec.needs
        and spec.name not in _SKETCHES
        and all(need in frames and need not in FROM_PACKAGE for need in spec.needs)
    ]


def wanted_frames() -> set[str]:
    """Return the names of all frames that `specs_for` could use."""
    every = {name for spec in FIGURES.values() for name in (*spec.needs, *spec.options)}
    return every - set(FROM_PACKAGE)


def picture(spec: FigureSpec, frames: Frames, offered: dict[str, Numbers]) -> Picture:
    """Draw a figure for a page.

    Parameters
    ----------
    spec : FigureSpec
        One of `specs_for`.
    frames : Frames
        From `acon_figures.inputs.frames_of`.
    offered : dict of str to Numbers
        The tables that the page has already; new ones are added.
    """
    needed = [frames[need] for need in spec.needs]
    optional = {name: frames[name] for name in spec.options if name in frames}
    heading = _HEADINGS.get(spec.name, spec.name.replace("_", " ").capitalize())
    drawn: dict[str, str] = {}
    caption = ""
    try:
        for width in ("double", "single"):
            figure = spec.function(*needed, width=width, **optional)
            caption = visible(figure.caption)
            drawn[width] = inline_svg(figure, f"{spec.name}-{width}", heading, spec.description)
        numbers = tuple(_numbers(spec, frames, offered))
    except AconError as error:
        return Picture(spec.name, heading, "", "", "", visible(error), ())
    return Picture(spec.name, heading, caption, drawn["double"], drawn["single"], "", numbers)


def _numbers(spec: FigureSpec, frames: Frames, offered: dict[str, Numbers]) -> Iterator[Numbers]:
    """Yield the tables of a figure, each packed once however many figures draw it."""
    own = _OWN_NUMBERS.get(spec.name)
    wanted = {spec.name: own} if own is not None else dict.fromkeys(spec.needs)
    seen = set()
    for name, make in wanted.items():
        key, make = _IN_PLACE.get(name, (name, make))
        if make is None and not isinstance(frames[key], pd.DataFrame):
            continue
        if key not in offered:
            frame: Any = frames[key] if make is None else make(frames)
            table = numbers(key, frame)
            same = (one for one in offered.values() if one.data and one.data == table.data)
            offered[key] = next(same, table)
        if offered[key].name not in seen:
            seen.add(offered[key].name)
            yield offered[key]


def numbers(name: str, frame: pd.DataFrame) -> Numbers:
    """Pack a frame for a page."""
    return Numbers(
        name, len(frame), tuple(str(key) for key in frame.columns), packed(csv_text(frame))
    )


def _density_curves(frames: Frames) -> pd.DataFrame:
    given: dict[str, Any] = {key: frames[key] for key in ("static", "null") if key in frames}
    frame: Any = frames["frame"]
    return beta_densities(frame, **given).curves


def _ordered(frames: Frames) -> pd.DataFrame:
    frame: Any = frames["frame"]
    found = ordered_betas(frame)
    table = pd.DataFrame(found.values, columns=[f"channel {number}" for number in found.channels])
    table = table.astype("float32").round(4)
    table.insert(0, "sample", found.samples)
    return table


_Make = Callable[[Frames], pd.DataFrame]

#: Figures whose numbers are not the frames that they take.
_OWN_NUMBERS: Mapping[str, _Make] = {"beta_distributions": _density_curves}

#: Frames and figures that offer another table: its name, and how it is made.
_IN_PLACE: Mapping[str, tuple[str, _Make | None]] = {"frame": ("betas", _ordered)}
