"""Small tables of measured results that come with the package, for the figures of them."""

from pathlib import Path

import pandas as pd

from acon_analysis.errors import UsageError, closest

#: Folder of the tables: ``NAME.csv``, with its origin in ``NAME.md``.
RESULTS = Path(__file__).parent / "results"


def available() -> tuple[str, ...]:
    """Return the names of the tables, in order of the alphabet."""
    return tuple(sorted(path.stem for path in RESULTS.glob("*.csv")))


def table(name: str) -> pd.DataFrame:
    """Read one table, one of `available`; `UsageError` if there is none of that name."""
    return pd.read_csv(_path(name).with_suffix(".csv"))


def provenance(name: str) -> str:
    """Return the text that says how a table was made; `UsageError` if there is no such table."""
    return _path(name).with_suffix(".md").read_text(encoding="utf-8")


def _path(name: str) -> Path:
    """Return a table's path without its ending."""
    if name not in available():
        raise UsageError(f"there is no table of results {name!r}; {closest(name, available())}")
    return RESULTS / name
