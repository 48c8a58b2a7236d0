"""The paper's printed tables as frames, of numbers and as text.

Every number is graded and sourced; where two printed numbers disagree, both are kept
(`contradictions`).
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import UsageError, closest
from acon_analysis.paper.numbers import ALL, CONTRADICTIONS, Best, PaperTable

TABLES: dict[str, PaperTable] = {one.name: one for one in ALL}
"""All tables by name: table3, table4, table9, table10, meta_acon, tfnet, improvements, counts."""

MISSING = "–"


def describe(name: str) -> PaperTable:
    """Return a table with its caption, source, grade and notes; `UsageError` if there is none."""
    if name not in TABLES:
        raise UsageError(f"the paper's tables hold no {name!r}; {closest(name, TABLES)}")
    return TABLES[name]


def table(name: str) -> pd.DataFrame:
    """Return one of `TABLES` as numbers, a row a printed row.

    Errors, gains and precisions in percent or points, ``flops_m`` in millions of multiply-adds,
    ``params_m`` in millions; missing where nothing is printed. ``attrs`` holds title, caption,
    source and grade.
    """
    one = describe(name)
    frame = pd.DataFrame(list(one.rows), columns=[column.name for column in one.columns])
    frame.attrs = {key: getattr(one, key) for key in ("title", "caption", "source", "grade")}
    return frame


def overview() -> pd.DataFrame:
    """Return one row a table: ``name``, ``title``, ``caption``, ``rows``, ``source``, ``grade``."""
    rows = [(t.name, t.title, t.caption, len(t.rows), t.source, t.grade) for t in ALL]
    return pd.DataFrame(rows, columns=["name", "title", "caption", "rows", "source", "grade"])


def contradictions() -> pd.DataFrame:
    """Return where printed sources disagree: a topic, two values and their sources, as text."""
    columns = ["topic", "value", "source", "other_value", "other_source"]
    return pd.DataFrame(list(CONTRADICTIONS), columns=columns)


def printed(name: str) -> pd.DataFrame:
    """Return a table as text: headings for columns, numbers as the paper prints them."""
    one = describe(name)
    frame = table(name)
    return pd.DataFrame(
        {
            column.heading: [
                MISSING if pd.isna(value) else column.show(value) for value in frame[column.name]
            ]
            for column in one.columns
        },
        dtype=object,
    )


def best_mask(name: str) -> npt.NDArray[np.bool_]:
    """Return which cells of a table are printed bold, shape (rows, columns)."""
    one = describe(name)
    frame = table(name)
    mask = np.zeros(frame.shape, dtype=bool)
    if one.best is None:
        return mask
    numbers = frame[list(one.best.columns)]
    where = np.isin(frame.columns, one.best.columns)
    mask[:, where] = numbers.eq(_best_values(frame, numbers, one.best)).to_numpy()
    return mask


def _best_values(frame: pd.DataFrame, numbers: pd.DataFrame, best: Best) -> pd.DataFrame:
    shape = numbers.copy()
    if best.by == "row":
        values = numbers.agg(best.sense, axis="columns")
        return shape.apply(lambda _: values)
    if best.by == "group":
        return numbers.groupby(frame[best.group]).transform(best.sense)
    values = numbers.agg(best.sense)
    return shape.apply(lambda column: pd.Series(values[column.name], index=column.index))
