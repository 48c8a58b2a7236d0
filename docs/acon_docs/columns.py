"""Reference tables: every column that the project writes or hands out, every activation."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import acon_analysis

if TYPE_CHECKING:
    from acon_docs.pages import Folder

_DEFINITION = re.compile(r"^([A-Z]+(?:_[A-Z]+)*_COLUMNS)\b", re.MULTILINE)

#: What a table of columns is, by its place in the code; others show their place alone.
TITLES = {
    "columns.SAMPLE_COLUMNS": ("Images", "`run.samples`, `samples.parquet`"),
    "columns.LAYER_COLUMNS": ("Layers of a run", "`run.layers`, in `manifest.json`"),
    "columns.CHANNEL_COLUMNS": (
        "Channels and their parameters",
        "`run.channels`, `channels.parquet`",
    ),
    "columns.BETA_COLUMNS": ("β as a long table", "`run.betas()`, `recording.betas()`"),
    "columns.HISTOGRAM_COLUMNS": ("Histograms of β", "`run.histograms()`, `histograms.parquet`"),
    "columns.ERROR_COLUMNS": ("Images that could not be read", "`run.errors`, `errors/*.parquet`"),
    "columns.CURVE_COLUMNS": ("Training curves", "the CSV file beside trained weights"),
    "index_fields.LAYER_COLUMNS": ("Linearity by layer", '`run.linearity(by="layer")`'),
    "index_fields.CHANNEL_COLUMNS": ("Linearity by channel", '`run.linearity(by="channel")`'),
    "index_fields.SAMPLE_COLUMNS": ("Linearity by sample", '`run.linearity(by="sample")`'),
    "index_fields.DIFFERENCE_COLUMNS": ("Two runs compared", "`acon compare RUN RUN`"),
    "batchnorm_null.NULL_COLUMNS": ("The null model by channel", "`run.null_model(layer)`"),
    "run_statistics.SPLIT_COLUMNS": ("The split of β's variance", "`run.variance_split()`"),
    "fields.MOMENT_COLUMNS": ("Moments", "`moments/*.parquet`"),
    "fields.TOTAL_COLUMNS": ("Totals of each sample", "`totals/*.parquet`"),
    "fields.STATE_COLUMNS": ("Full states", "`states/*.parquet`, on request only"),
    "fields.KEY_COLUMNS": ("What identifies a row of moments", "part of the next"),
}


def column_tables() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return every tuple of columns by its place, found in the source: none can be forgotten."""
    found = {}
    room = Path(acon_analysis.__file__).parent
    for path in sorted(room.rglob("*.py")):
        for name in dict.fromkeys(_DEFINITION.findall(path.read_text("utf-8"))):
            value = getattr(importlib.import_module(_module(path)), name)
            rows = tuple(_row(column) for column in value)
            if rows and all(rows):
                found[f"{path.stem}.{name}"] = rows
    known = [place for place in TITLES if place in found]
    return {place: found[place] for place in [*known, *(set(found) - set(known))]}


def _module(path: Path) -> str:
    """Return the import name of a file of the package."""
    parts = path.relative_to(Path(acon_analysis.__file__).parents[1]).with_suffix("").parts
    return ".".join(parts)


def _row(column: Any) -> tuple[str, ...]:
    """Return (name, dtype, unit, meaning), or nothing if it is none."""
    if isinstance(column, tuple) and len(column) == 4:
        return column
    names = ("name", "dtype", "unit", "meaning")
    if all(hasattr(column, name) for name in names):
        return tuple(str(getattr(column, name)) for name in names)
    return ()


def measure_pages(docs: Path) -> dict[str, str]:
    """Return column -> page, as the heads of the pages in docs/measures name them."""
    pages: dict[str, str] = {}
    for path in sorted((docs / "measures").glob("*.md")):
        head = re.match(r"---\ncolumns: \[(.*?)\]\n---\n", path.read_text("utf-8"), re.DOTALL)
        for name in re.findall(r"[\w]+", head.group(1)) if head else ():
            pages[name] = path.stem
    return pages


def cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    text = text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("$", "\\$")
    return text or " "


def _column_table(place: str, rows: tuple[tuple[str, ...], ...],
                  measures: dict[str, str]) -> Iterator[str]:  # fmt: skip
    title, where = TITLES.get(place, (place, ""))
    yield f"## {title}\n"
    yield f"{where + '; ' if where else ''}`acon_analysis.{place}`.\n"
    yield "| column | type | unit | meaning |\n|---|---|---|---|"
    of_measure = place.startswith(("index_fields", "logitnormal", "run_statistics"))
    for name, dtype, unit, meaning in rows:
        linked = f"[`{name}`](../measures/{measures[name]}.md)" if (
            of_measure and name in measures
        ) else f"`{name}`"  # fmt: skip
        yield f"| {linked} | {dtype} | {cell(unit)} | {cell(meaning)} |"
    yield ""


def _columns(docs: Path) -> str:
    measures = measure_pages(docs)
    parts = [
        "# Columns",
        "",
        "Every table that a run holds or a function hands out, from the definitions in the code. "
        "Units: `1` is a pure number, `x` and `y` are those of a layer's input and output; names "
        "have none. A linked column is explained on the page of its measure.",
        "",
    ]
    for place, rows in column_tables().items():
        parts += list(_column_table(place, rows, measures))
    return "\n".join(parts)


def _formula(latex: str) -> str:
    from docutils.utils.math import MathError

    from acon_docs.mathml import mathml

    try:
        mathml(latex)
    except MathError:
        return ""
    return f"$${latex}$$"


def _activations() -> str:
    from acon_analysis.family import ACTIVATIONS

    parts = [
        "# Activations",
        "",
        "The records of `acon_analysis.family.ACTIVATIONS`. The functions themselves are on the "
        "page [family](family.rst).",
        "",
    ]
    for one in ACTIVATIONS.values():
        values = ", ".join(f"{name} = {value}" for name, value in one.parameters.items())
        parts += [f"## {one.title}", "", _formula(one.latex), ""]
        parts += ["function", f": `acon_analysis.family.{one.name}`, `{one.formula}`", ""]
        parts += ["derivative", f": `{one.derivative_formula}`", ""]
        if values:
            parts += ["parameters", f": {cell(values)}", ""]
        parts += ["source", f": {cell(str(one.source))}", ""]
    return "\n".join(parts)


def write(folder: "Folder") -> None:
    """Write the pages of columns and of activations."""
    folder.page("reference/columns.md", _columns(folder.docs))
    folder.page("reference/activations.md", _activations())
