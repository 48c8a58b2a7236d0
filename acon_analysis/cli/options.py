"""Arguments that several commands share, and how tables are printed."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acon_analysis.errors import UsageError
from acon_analysis.files import csv_text

if TYPE_CHECKING:
    import pandas as pd

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
RunPath = Annotated[Path, typer.Argument(help="folder of a captured run", show_default=False)]


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


def build(model: str, weights: Path | None) -> Any:
    """Build the network that MODEL and --weights name."""
    from acon_analysis.models.registry import build_model

    return build_model(model, weights="shipped" if weights is None else weights)


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

    return load_callable("mask", text)[0] if text is not None and ":" in text else text


def parse_list(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


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
    format: TableFormat,
    out: Path | None,
    *,
    columns: Sequence[str] | None = None,
) -> None:
    """Print a frame, or write it to a file; on the screen only some columns, where given."""
    if format is TableFormat.parquet:
        if out is None:
            raise UsageError("--format parquet needs --out FILE")
        out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(out, index=False)
        return
    text = {
        TableFormat.table: lambda: _as_text(frame, columns if out is None else None),
        TableFormat.csv: lambda: csv_text(frame).rstrip("\n"),
        TableFormat.json: lambda: frame.to_json(orient="records", indent=1),
    }[format]()
    if out is None:
        typer.echo(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", "utf-8")


def read_table(path: Path) -> "pd.DataFrame":
    """Return the frame that `emit` wrote to a file."""
    import pandas as pd

    read = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}
    if path.suffix not in read:
        raise UsageError(f"a table must end in .csv, .json or .parquet; got {str(path)!r}")
    try:
        frame: pd.DataFrame = read[path.suffix](path)  # type: ignore[operator]
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} holds no table that can be read: {error}") from error
    return frame


def _as_text(frame: "pd.DataFrame", columns: Sequence[str] | None = None) -> str:
    """Return a frame for the screen: three digits, without columns that say nothing."""
    silent = [
        name
        for name in frame.columns
        if (columns is not None and name not in columns)
        or frame[name].isna().all()
        or (frame[name] == "").all()
        or (name == "call" and (frame[name] == 0).all())
    ]
    shown = frame.drop(columns=silent) if len(frame) else frame
    return shown.to_string(index=False, float_format=lambda value: f"{value:.3g}", na_rep="-")
