"""Arguments that several commands share, and how tables are printed."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acon_analysis.errors import StoreError, UsageError
from acon_analysis.files import csv_text, read_regular, spelled
from acon_analysis.screen import UNLIMITED, counted, table_text

if TYPE_CHECKING:
    import pandas as pd


#: Bounds of a table that is read.
_MOST_BYTES, _MOST_COLUMNS = 64_000_000, 200


class By(StrEnum):
    """What a summary is by."""

    layer = "layer"
    channel = "channel"
    sample = "sample"


class TableFormat(StrEnum):
    """How a table is written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def say(text: str = "", *, err: bool = False) -> None:
    """Print a text; names in it that hold control characters cannot steer the terminal."""
    typer.echo(spelled(text), err=err)


def note(text: str) -> None:
    """Print a text that is no result."""
    say(f"acon: {text}", err=True)


Model = Annotated[
    str,
    typer.Argument(
        help="a name of `acon models`, torchvision:NAME, timm:NAME, module:callable or "
        "file.py:callable (the last two run that code)",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="checkpoint file; without it the shipped or random weights")
]
Mask = Annotated[
    str | None,
    typer.Option(
        help="key of the batches, or file.py:callable, that says which positions hold data; "
        "padded ones are left out"
    ),
]
Preprocess = Annotated[
    str | None, typer.Option(help="official, imagenet, none or file.py:callable")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Limit = Annotated[int | None, typer.Option(help="only the first N samples")]
Layers = Annotated[str | None, typer.Option(help="only these layers, by comma")]
BatchSize = Annotated[int, typer.Option(help="samples per forward pass")]
Samples = Annotated[
    str, typer.Option(help="digits, digits:train, cifar10, a folder or file.py:callable")
]
Logits = Annotated[
    bool | None,
    typer.Option("--logits/--no-logits", help="whether it holds class logits; by its shape"),
]
PictureFormats = Annotated[list[str] | None, typer.Option(help="png, pdf, svg")]
Format = Annotated[
    TableFormat | None,
    typer.Option(
        help="how to write; by default a table, and with --out as the file is named", is_eager=True
    ),
]


def _table_file(context: typer.Context, out: Path | None) -> Path | None:
    """Refuse a file whose name asks for another format than there are, before any work is done."""
    known = {"", ".txt", *(f".{one}" for one in TableFormat)}
    if out is not None and context.params.get("format") is None and out.suffix.lower() not in known:
        raise UsageError(
            f"out: a table is written to a file .csv, .json, .parquet or .txt; got {str(out)!r}"
        )
    return out


Out = Annotated[
    Path | None,
    typer.Option(
        help="file (.csv, .json, .parquet, .txt); by default the screen", callback=_table_file
    ),
]
RunPath = Annotated[Path, typer.Argument(help="folder of a captured run", show_default=False)]


def build(model: str, weights: Path | None) -> Any:
    """Build the network that MODEL and --weights name."""
    from acon_analysis.models.registry import build_model

    return build_model(model, "shipped" if weights is None else weights, announce=note)


def parse_moments(
    wanted: bool | None, full: bool, kernel: str = "auto", blocks: int | None = None
) -> Any:
    """Return the moments to gather; None for what suits the other options."""
    from acon_hooks.moments.options import MomentOptions

    special = full or kernel != "auto" or blocks is not None
    if special and wanted is False:
        raise UsageError("--full-moments, --moment-kernel and --moment-blocks go with --moments")
    return MomentOptions(full, kernel, blocks) if special else wanted


def parse_mask(text: str | None) -> Any:
    """Return the key of a batch, or the callable that is named."""
    from acon_analysis.usercode import load_callable

    return load_callable("mask", text, ["batch"])[0] if text is not None and ":" in text else text


def parse_list(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_layers(text: str | None) -> tuple[str, ...] | None:
    """Return layers, separated by commas; None where there are none."""
    if text is None:
        return None
    return tuple(part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip())


def parse_shape(text: str) -> tuple[int, ...]:
    """Return a shape written as C,H,W."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"input shape must be like 3,224,224; got {text!r}") from error
    if not shape or min(shape) < 1:
        raise UsageError(f"input shape must be of positive numbers; got {text!r}")
    return shape


def emit(
    frame: "pd.DataFrame",
    format: TableFormat | None = None,
    out: Path | None = None,
    *,
    columns: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    width: int | None = None,
) -> None:
    """Print a frame, or write it to a file; on the screen only some columns, where given.

    Without a format a file gets that of its name. `labels` are headers for the screen, `width`
    that of a line, by default the terminal's.
    """
    chosen = format or _format_of(out)
    if chosen is TableFormat.table and out is None:
        say(_as_text(frame, columns, labels or {}, width))
        return
    if chosen is TableFormat.parquet:
        if out is None:
            raise UsageError("--format parquet needs --out FILE")
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("wb") as file:  # Arrow takes no name that is not UTF-8
            frame.to_parquet(file, index=False)
        say(f"{out}: {counted(len(frame), 'row')}")
        return
    text = {
        TableFormat.table: lambda: table_text(frame, UNLIMITED),
        TableFormat.csv: lambda: csv_text(frame).rstrip("\n"),
        TableFormat.json: lambda: frame.to_json(orient="records", indent=1),
    }[chosen]()
    if out is None:
        say(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", "utf-8")
        say(f"{out}: {counted(len(frame), 'row')}")


def read_table(path: Path) -> "pd.DataFrame":
    """Return the frame that `emit` wrote to a file."""
    if path.suffix not in (".csv", ".json", ".parquet"):
        raise UsageError(f"a table must end in .csv, .json or .parquet; got {str(path)!r}")
    try:
        frame = _frame(path, read_regular(path, _MOST_BYTES))
        if not frame.columns.is_unique:
            raise ValueError("two of its columns have the same name")
    except (OSError, ValueError, RecursionError, csv.Error, StoreError) as error:
        raise UsageError(f"{str(path)!r} holds no table that can be read: {error}") from error
    return frame


def _frame(path: Path, content: bytes) -> "pd.DataFrame":
    """Return the table in a file; ValueError where it has too many columns."""
    import pandas as pd

    if path.suffix == ".parquet":
        from acon_analysis.store.parquet import read_frame

        return read_frame(path, _MOST_COLUMNS)
    text = content.decode("utf-8-sig")
    if path.suffix == ".csv":
        width = max(map(len, csv.reader(StringIO(text))), default=0)
    else:
        rows = json.loads(text)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it is no list of rows")
        width = len({name for row in rows for name in row})
    if width > _MOST_COLUMNS:
        raise ValueError(f"it has more than {_MOST_COLUMNS} columns")
    read = pd.read_csv if path.suffix == ".csv" else pd.read_json
    return read(StringIO(text))


def on_screen(format: TableFormat | None, out: Path | None) -> bool:
    """Say whether `emit` prints a table, under which there is room for sentences."""
    return out is None and format in (None, TableFormat.table)


def _format_of(out: Path | None) -> TableFormat:
    """Return the format that a file's name says, a table where it says none."""
    ending = "" if out is None else out.suffix.removeprefix(".").lower()
    return TableFormat(ending) if ending in set(TableFormat) else TableFormat.table


def _as_text(
    frame: "pd.DataFrame",
    columns: Sequence[str] | None,
    labels: Mapping[str, str],
    width: int | None,
) -> str:
    """Return a frame for the screen, without columns that say nothing."""
    shown = [name for name in (columns or frame.columns) if name in frame]
    said = [
        name
        for name in shown
        if not (
            frame[name].isna().all()
            or (frame[name] == "").all()
            or (name == "call" and (frame[name] == 0).all())
        )
    ]
    chosen = frame[said] if len(frame) else frame[shown]
    return table_text(chosen.rename(columns=labels), width)
