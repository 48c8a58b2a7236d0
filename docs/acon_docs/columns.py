"""Reference tables: every column that the project writes or hands out, every activation."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from acon_analysis import columns
from acon_analysis.columns import Column
from acon_analysis.moments import fields

if TYPE_CHECKING:
    from acon_docs.pages import Folder

#: Title of each table of columns, and where the table is found.
TITLES = {
    "SAMPLE_COLUMNS": ("Samples", "`run.samples`, `samples.parquet`"),
    "LAYER_COLUMNS": ("Layers of a run", "`run.layers`, in `manifest.json`"),
    "CHANNEL_COLUMNS": ("Channels and their parameters", "`run.channels`, `channels.parquet`"),
    "NONLINEARITY_COLUMNS": (
        "The census",
        "`acon.nonlinearities`, `run.nonlinearities`, `nonlinearities.parquet`",
    ),
    "CENSUS_COLUMNS": ("The census by operator", "`acon layers`, `acon report`"),
    "BETA_COLUMNS": ("β as a long table", "`run.betas()`, `recording.betas()`"),
    "HISTOGRAM_COLUMNS": ("Histograms of β", "`run.histograms()`, `histograms.parquet`"),
    "ERROR_COLUMNS": ("Samples that could not be used", "`run.errors`, `errors/*.parquet`"),
    "CURVE_COLUMNS": ("Training curves", "the CSV file with trained weights"),
    "LINEARITY_LAYER_COLUMNS": ("Linearity by layer", '`run.linearity(by="layer")`'),
    "LINEARITY_CHANNEL_COLUMNS": ("Linearity by channel", '`run.linearity(by="channel")`'),
    "BLOCK_COLUMNS": ("Linearity of blocks", "`acon.block_linearity(model, data)`, `acon blocks`"),
    "LINEARITY_SAMPLE_COLUMNS": ("Linearity by sample", '`run.linearity(by="sample")`'),
    "DIFFERENCE_COLUMNS": ("Two runs compared", "`acon compare RUN RUN`"),
    "NULL_COLUMNS": ("The null model by channel", "`run.null_model(layer)`"),
    "SPLIT_COLUMNS": ("The split of β's variance", "`run.variance_split()`"),
    "MOMENT_COLUMNS": ("Moments", "`moments/*.parquet`"),
    "PRODUCT_COLUMNS": ("Moments of gated products", "`moments/*.parquet` of runs that have any"),
    "TOTAL_COLUMNS": ("Totals of each sample", "`totals/*.parquet`"),
    "STATE_COLUMNS": ("Full states", "`states/*.parquet`, on request only"),
    "FACT_COLUMNS": ("Channels for figures", "`plotdata.channels.channel_facts`"),
    "DEPTH_COLUMNS": ("Linearity by depth", "`plotdata.depth.linearity_by_depth`"),
    "SAMPLE_SPREAD_COLUMNS": ("L of the samples by layer", "the figure sample_spread"),
    "INPUT_COLUMNS": ("Inputs of channels, counted", "the figure channel_portrait"),
    "EXTREME_SAMPLE_COLUMNS": ("Samples at both ends of β", "the figure sample_extremes"),
    "EXTREME_CURVE_COLUMNS": ("A channel's function by sample", "the figure sample_extremes"),
    "RANK_EXAMPLE_COLUMNS": ("Measures that disagree", "the figure measures_disagree"),
    "DENSITY_BAR_COLUMNS": ("Histogram of static β", "the figure beta_distributions"),
    "BETA_STATISTIC_COLUMNS": ("Statistics of β", "`run.beta_summary()`, `acon summary --all`"),
    "REPLACEMENT_COLUMNS": ("Activations replaced", "`acon replace`"),
    "GATE_COLUMNS": ("Interventions on gates", "`acon.gate_use`, `acon gates`"),
    "HEADLINE_COLUMNS": ("What stands out in a run", "the head of `acon report`"),
}

#: Tables whose columns have pages of their own.
_OF_MEASURES = ("LINEARITY_", "NULL_", "SPLIT_")


def _table(name: str) -> tuple[str, tuple[Column, ...]]:
    """Return a table's module and columns; moments and states stand with their merge rules."""
    module = columns if hasattr(columns, name) else fields
    return module.__name__, getattr(module, name)


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


def _column_table(name: str, measures: dict[str, str]) -> Iterator[str]:
    """Yield the lines of a table, its measures linked to their pages."""
    title, where = TITLES[name]
    module, table = _table(name)
    yield f"## {title}\n"
    yield f"{where}; `{module}.{name}`.\n"
    yield "| column | type | unit | meaning |\n|---|---|---|---|"
    for column in table:
        text = f"`{column.name}`"
        if name.startswith(_OF_MEASURES) and column.name in measures:
            text = f"[{text}](../measures/{measures[column.name]}.md)"
        yield f"| {text} | {column.dtype} | {cell(column.unit)} | {cell(column.meaning)} |"
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
    for name in TITLES:
        parts += _column_table(name, measures)
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
