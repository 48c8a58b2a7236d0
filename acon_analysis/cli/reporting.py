"""The command that puts a run into one page."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from acon_analysis.cli.application import app
from acon_analysis.cli.options import read_table, say
from acon_analysis.errors import UsageError


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="folder of a captured run, or of two to compare", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="the page; one of this name is replaced")] = Path(
        "report.html"
    ),
    title: Annotated[
        str | None, typer.Option(help="of the page; by default the model and the data")
    ] = None,
    blocks: Annotated[
        Path | None,
        typer.Option(help="a table of `acon blocks --out FILE` (csv, json, parquet) to draw too"),
    ] = None,
) -> None:
    """Put a run, or two compared, into one HTML page that can be mailed."""
    from acon_figures.report import write_report

    if len(runs) > 2:
        raise UsageError(f"a report is of one run or of two; got {len(runs)}")
    table = None if blocks is None else read_table(blocks)
    path = write_report(
        runs[0], out, second=runs[1] if len(runs) > 1 else None, title=title, blocks=table,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser")
