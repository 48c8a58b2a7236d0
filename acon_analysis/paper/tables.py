"""The paper's printed tables as frames, and as text, Markdown and LaTeX.

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
    """Return a table with its caption, source, grade and notes.

    Raises
    ------
    UsageError
        For an unknown name; near ones are named.
    """
    if name not in TABLES:
        raise UsageError(f"the paper's tables hold no {name!r}; {closest(name, TABLES)}")
    return TABLES[name]


def table(name: str) -> pd.DataFrame:
    """Return a printed table as numbers.

    Parameters
    ----------
    name : str
        A key of `TABLES`.

    Returns
    -------
    pandas.DataFrame
        One row a printed row. Errors, gains and precisions in percent or points, ``flops_m`` in
        millions of multiply-adds, ``params_m`` in millions; missing where nothing is printed.
        ``attrs`` holds title, caption, source and grade.
    """
    one = describe(name)
    frame = pd.DataFrame(list(one.rows), columns=[column.name for column in one.columns])
    frame.attrs = {
        "title": one.title,
        "caption": one.caption,
        "source": one.source,
        "grade": one.grade,
    }
    return frame


def overview() -> pd.DataFrame:
    """Return one row a table: ``name``, ``title``, ``caption``, ``rows``, ``source``, ``grade``."""
    rows = [(t.name, t.title, t.caption, len(t.rows), t.source, t.grade) for t in ALL]
    return pd.DataFrame(rows, columns=["name", "title", "caption", "rows", "source", "grade"])


def contradictions() -> pd.DataFrame:
    """Return where printed sources disagree.

    Returns
    -------
    pandas.DataFrame
        Columns ``topic``, ``value``, ``source``, ``other_value``, ``other_source``, all text.
    """
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


def to_text(name: str) -> str:
    """Return a table as aligned text with its caption above and source and notes below."""
    one = describe(name)
    cells = printed(name)
    lines = [list(cells.columns), *cells.to_numpy().tolist()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(cells.columns))]
    left = _text_columns(one)
    rows = ["  ".join(_pad(line, widths, left)).rstrip() for line in lines]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [rule, rows[0], rule]
    for number, row in enumerate(rows[1:]):
        body += [rule, row] if number in one.breaks else [row]
    below = [f"Source: {one.source} (grade {one.grade}).", *one.notes]
    return "\n".join([f"{one.title}. {one.caption}", *body, rule, *below])


def to_markdown(name: str) -> str:
    """Return a table as Markdown, the best numbers bold, source and notes below."""
    one = describe(name)
    cells = printed(name)
    mask = best_mask(name)
    left = _text_columns(one)
    head = f"| {' | '.join(cells.columns)} |"
    rule = f"|{'|'.join(':--' if column else '--:' for column in left)}|"
    rows = []
    for values, bold in zip(cells.to_numpy().tolist(), mask, strict=True):
        shown = [f"**{v}**" if b else v for v, b in zip(values, bold, strict=True)]
        rows.append(f"| {' | '.join(shown)} |")
    below = " ".join([f"Source: {one.source} (grade {one.grade}).", *one.notes])
    return "\n".join([f"**{one.title}.** {one.caption}", "", head, rule, *rows, "", below])


def to_latex(name: str) -> str:
    r"""Return a table as LaTeX with booktabs' rules (the document needs ``\usepackage{booktabs}``).

    The best numbers are bold; source and notes stand as comments above.
    """
    one = describe(name)
    cells = printed(name)
    mask = best_mask(name)
    align = "".join("l" if column else "r" for column in _text_columns(one))
    heads = [column.latex or _escape(column.heading) for column in one.columns]
    lines = [f"% {line}" for line in (f"{one.source} (grade {one.grade})", *one.notes)]
    lines += [r"\begin{table}", r"\centering", rf"\caption{{{_escape(one.caption)}}}"]
    lines += [rf"\label{{tab:{one.name}}}", rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [" & ".join(heads) + r" \\", r"\midrule"]
    for number, values in enumerate(cells.to_numpy().tolist()):
        if number in one.breaks:
            lines.append(r"\midrule")
        shown = [
            rf"\textbf{{{_escape(value)}}}" if bold else _escape(value)
            for value, bold in zip(values, mask[number], strict=True)
        ]
        lines.append(" & ".join(shown) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines)


def _best_values(frame: pd.DataFrame, numbers: pd.DataFrame, best: Best) -> pd.DataFrame:
    shape = numbers.copy()
    if best.by == "row":
        values = numbers.agg(best.sense, axis="columns")
        return shape.apply(lambda _: values)
    if best.by == "group":
        return numbers.groupby(frame[best.group]).transform(best.sense)
    values = numbers.agg(best.sense)
    return shape.apply(lambda column: pd.Series(values[column.name], index=column.index))


def _text_columns(one: PaperTable) -> list[bool]:
    """Return which columns hold words, which are set to the left."""
    return [isinstance(value, str) for value in one.rows[0]]


def _pad(line: list[str], widths: list[int], left: list[bool]) -> list[str]:
    cells = zip(line, widths, left, strict=True)
    return [value.ljust(width) if words else value.rjust(width) for value, width, words in cells]


def _escape(text: str) -> str:
    text = text.replace(MISSING, "--")
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text.replace("β", r"$\beta$")
