"""Numbers and names as a page shows them, and frames as small CSV files inside it."""

import base64
import gzip
import math
from typing import Any

import pandas as pd

from acon_analysis import files
from acon_analysis.screen import settled, three_digits
from acon_figures.names import visible

#: Characters of one packed CSV beyond which a page does not carry it.
MOST_PACKED = 600_000

#: The same for the table of layers, which a page does not show as a whole if they are very many.
MOST_PACKED_LAYERS = 2_400_000


def number(value: Any, digits: int = 3) -> str:
    """Return a number with N decimals, or N significant digits where it is small or large."""
    known = float(value)
    if math.isnan(known):
        return "–"
    if known == 0:
        return "0"
    if math.isinf(known):
        return "∞" if known > 0 else "−∞"
    size = abs(known)
    text = f"{known:.{digits}f}" if 10.0**-digits <= size < 1000 else f"{known:.{digits}g}"
    return text.replace("-", "−", 1) if known < 0 else text


def share(value: Any) -> str:
    """Return an index between 0 and 1; what is not 1 does not look like it."""
    known = settled(float(value))
    text = number(known)
    return three_digits(known) if text == "1.000" else text


def count(value: Any) -> str:
    """Return a whole number with separators; a dash where there is none."""
    known = float(value)
    return "–" if math.isnan(known) else f"{round(known):,}"


def exact(value: Any) -> str:
    """Return a number for the script: nine digits, empty where there is none."""
    known = float(value)
    return "" if math.isnan(known) else f"{known:.9g}"


def csv_text(frame: pd.DataFrame, digits: int = 7) -> str:
    """Return a frame as CSV without its index; apostrophes before what would be a formula."""
    safe = frame.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = [visible(v) if isinstance(v, str) else v for v in safe[name]]
    return files.csv_text(safe, f"%.{digits}g")


def packed(text: str, most: int = MOST_PACKED) -> str | None:
    """Return text as base64 of gzip, the same bytes every time; None for more than N characters."""
    data = gzip.compress(text.encode("utf-8", "backslashreplace"), compresslevel=9, mtime=0)
    coded = base64.b64encode(data).decode("ascii")
    return coded if len(coded) <= most else None
