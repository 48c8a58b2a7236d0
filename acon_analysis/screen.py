"""Tables as text for a screen: text left, numbers right, no wider than the terminal."""

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

#: Columns of module paths, which are shortened from the left: what differs stands on the right.
PATHS = frozenset({"layer", "block"})
#: Letters that the last column is wrapped at, and that paths and other text keep, at the least.
LEAST_LAST, LEAST_PATH, LEAST_TEXT = 24, 16, 28
#: Columns of counts, written with thousands separators.
_COUNTED = frozenset({"parameters", "elements", "calls", "n"})
#: A width for files, where nothing is shortened.
UNLIMITED = 1_000_000
#: The width from which a screen has room for long text.
WIDE = 100
_GAP = "  "
_WITH_NUMBER = "\u00a0%"


def sentence_text(text: str, width: int | None = None) -> str:
    """Return a sentence in lines that fit a screen; in one line where there is no screen."""
    screen = "COLUMNS" in os.environ or sys.stdout.isatty()
    limit = width or (terminal_width() if screen else UNLIMITED)
    kept = text.replace(" %", _WITH_NUMBER)  # no line begins with a sign
    lines = textwrap.fill(kept, limit, break_long_words=False, break_on_hyphens=False)
    return lines.replace(_WITH_NUMBER, " %")


def terminal_width() -> int:
    """Return the width of the terminal (or ``COLUMNS``), 120 where there is none."""
    return shutil.get_terminal_size((120, 24)).columns


def counted(count: int, word: str) -> str:
    """Return a number and what it counts: "1 layer", "4,000 channels", "2 classes"."""
    plural = f"{word}es" if word.endswith(("s", "x", "ch")) else f"{word}s"
    return f"{count:,} {word if count == 1 else plural}"


def listed(
    items: "Sequence[Any]", most: int, show: "Callable[[Any], str]" = str, joint: str = ", "
) -> str:
    """Return the first items, and how many more there are: "a, b and 3 more"."""
    text = joint.join(map(show, items[:most]))
    return text + (f"{joint.rstrip(', ')} and {len(items) - most} more" * (len(items) > most))


def settled(value: float) -> float:
    """Return a share without the rounding of float32: what is within 5e-7 of 0 or 1 is 0 or 1."""
    return round(value, 6) + 0.0  # no -0.0


def a_or_an(name: str) -> str:
    """Return the article of a name such as "ELU" or "ReLU"."""
    return "an" if name[:1] in "AEIO" or name.startswith("RR") else "a"


def three_digits(value: float) -> str:
    """Format a share with three digits, so that what is not 1 does not look like it."""
    text = f"{settled(value):.3f}"
    return text if text != "1.000" or settled(value) == 1 else "> 0.999"


def signed(value: float) -> str:
    """Format a difference with three digits and its sign, 0 without one."""
    text = f"{value:+.3f}"
    return text if float(text) else "0.000"


@dataclass
class _Column:
    """One column: its cells as text, and how narrow it may become."""

    name: str
    whole: list[str]
    number: bool
    least: int
    cells: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)

    @property
    def width(self) -> int:
        return max(len(self.name), *map(len, self.cells), 1)

    def narrow(self, width: int) -> None:
        """Cut the cells to a width, paths from the left."""
        cut = _from_left if self.name in PATHS else _from_right
        self.cells = [cut(cell, width) for cell in self.whole]

    def justified(self, text: str) -> str:
        return text.rjust(self.width) if self.number else text.ljust(self.width)


def table_text(frame: "pd.DataFrame", width: int | None = None) -> str:
    """Return a frame as text that fits a screen of `width` letters, by default the terminal's.

    Paths of modules are shortened from the left, but stay distinct; other text is shortened from
    the right, and text in the last column is wrapped. Columns for which there is no room are
    left out from the right, and named below the table.
    """
    limit = width or terminal_width()
    columns = [_column(str(name), frame[name]) for name in frame.columns]
    if columns and columns[0].name not in PATHS:  # names that people type
        columns[0].least = max(map(len, [columns[0].name, *columns[0].whole]))
    if not len(frame) or not columns:
        return "(empty table)"
    left_out: list[str] = []
    _fit(columns, limit)
    while len(columns) > 1 and _total(columns) > limit:
        left_out.insert(0, columns.pop().name)
        _fit(columns, limit)
    text = "\n".join(_lines(columns, len(frame)))
    if not left_out:
        return text
    note = f"(no room for {', '.join(left_out)}: a wider terminal, or a file, has them)"
    return f"{text}\n{sentence_text(note, limit)}"


def _total(columns: "Sequence[_Column]") -> int:
    """Return the width of a table; a last column of text counts as narrow as it can be wrapped."""
    *others, last = columns
    wide = last.width if last.number or last.name in PATHS else min(last.width, LEAST_LAST)
    return sum(column.width for column in others) + wide + len(_GAP) * len(others)


def _fit(columns: "list[_Column]", limit: int) -> None:
    """Shorten the text of a table where it is too wide, paths first, and wrap the last column."""
    for column in columns:
        column.cells, column.lines = column.whole, []
    texts = [column for column in columns if not column.number]
    for column in sorted(texts, key=lambda one: one.name not in PATHS):
        over = _total(columns) - limit
        wrapped = column is columns[-1] and column.name not in PATHS
        if over > 0 and not wrapped:
            column.narrow(min(column.width, max(column.least, column.width - over)))
    last = columns[-1]
    room = limit - sum(one.width + len(_GAP) for one in columns[:-1])
    if last.number or last.name in PATHS or room < LEAST_LAST or last.width <= room:
        return
    if max(len(word) for cell in last.whole for word in cell.split()) > room:
        last.narrow(room)
    last.lines = [textwrap.wrap(cell, room) or [""] for cell in last.cells]


def _lines(columns: "Sequence[_Column]", count: int) -> list[str]:
    """Return the lines of a table, each row with those that its last column was wrapped into."""
    *others, last = columns
    lines = [_GAP.join([*(one.justified(one.name) for one in others), _end(last, last.name)])]
    indent = " " * sum(one.width + len(_GAP) for one in others)
    for row in range(count):
        first, *more = last.lines[row] if last.lines else [last.cells[row]]
        cells = [*(one.justified(one.cells[row]) for one in others), _end(last, first)]
        lines += [_GAP.join(cells), *(indent + line for line in more)]
    return [line.rstrip() for line in lines]


def _end(column: _Column, text: str) -> str:
    """Return text of the last column, which is not filled up on the right."""
    return column.justified(text) if column.number else text


def _column(name: str, values: "pd.Series[Any]") -> _Column:
    """Return a column of cells."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    known = values.notna()
    if is_bool_dtype(values):
        cells = ["yes" if value else "no" for value in values]
    elif is_numeric_dtype(values):
        write = _writer(name, [float(value) for value in values[known]])
        cells = [write(value) if there else "-" for value, there in zip(values, known, strict=True)]
    else:
        cells = [
            _printable(str(value)) if there else "-"
            for value, there in zip(values, known, strict=True)
        ]
    number = is_numeric_dtype(values) and not is_bool_dtype(values)
    least = max(_distinct(cells), LEAST_PATH) if name in PATHS else LEAST_TEXT
    return _Column(name, cells, number, max(least, len(name)))


def _writer(name: str, values: list[float]) -> Any:
    """Return what writes the numbers of a column, all with as many decimals."""
    most = max((abs(value) for value in values), default=0.0)
    share = name[:1].isupper() and most <= 1  # L, L_low
    whole = all(value.is_integer() for value in values if abs(value) != float("inf"))
    if whole and not share:  # L = 1 is written 1.000
        return "{:,.0f}".format if name in _COUNTED else "{:.0f}".format
    if most >= 1e5:
        return "{:.3g}".format
    decimals = 3 if most < 100 else 1
    small = 0.5 * 10**-decimals

    def write(value: float) -> str:
        value = settled(value) if share else value
        if value and abs(value) < small:
            return f"{value:.0e}"
        return three_digits(value) if most <= 1 else f"{value:.{decimals}f}"

    return write


def _distinct(cells: list[str]) -> int:
    """Return how many letters paths need from their ends to stay as distinct as they are."""
    kinds, longest = len(set(cells)), max(map(len, cells), default=0)
    for length in range(LEAST_PATH - 1, longest):
        if len({cell[-length:] for cell in cells}) == kinds:
            return length + 1
    return longest


def _from_left(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _from_right(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _printable(text: str) -> str:
    """Return text in which nothing moves the cursor or ends the line."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode()
        for sign in text
    )
