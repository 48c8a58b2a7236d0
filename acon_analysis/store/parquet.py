"""Columns of Parquet parts, read in threads."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acon_analysis.errors import StoreError
from acon_analysis.files import open_regular

Matrix = npt.NDArray[np.float32]


def read_lists(paths: Sequence[Path], column: str) -> Matrix | None:
    """Return a column fixed_size_list<float32> of several files, one below the other.

    float32 (rows, length of a list), read-only where it needed no copy; None where there are no
    files, or the first has no such column.
    """
    if not paths:
        return None
    with _opened(paths[0]) as file:
        schema = file.schema_arrow
    if column not in schema.names:
        return None
    if len(paths) == 1:
        return _matrix(paths[0], column)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        ends = np.cumsum([0, *pool.map(_rows, paths)])
        whole = np.empty((ends[-1], schema.field(column).type.list_size), dtype=np.float32)

        def fill(number: int) -> None:
            # Copied here, not joined at the end: in threads, and every file's memory is given
            # back before the next one needs as much.
            whole[ends[number] : ends[number + 1]] = _matrix(paths[number], column)

        for _ in pool.map(fill, range(len(paths))):
            pass
    return whole


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file, or some of its columns, as a table; `StoreError` if that fails."""
    with _opened(path) as file:
        wanted = None if columns is None else list(columns)
        table = file.read(columns=wanted)
        for name in set(wanted or ()) - set(table.column_names):  # which Arrow passes over
            raise KeyError(f"it has no column {name!r}")
        facts = table.schema.metadata or {}  # those of pandas are texts that it evaluates
        return table.replace_schema_metadata({k: facts[k] for k in facts if k != b"pandas"})


def read_frame(path: Path, most: int | None = None) -> pd.DataFrame:
    """Return a whole Parquet file; `StoreError` if that fails or it has too many columns."""
    if most is not None:
        with _opened(path) as file:
            if file.metadata.num_columns > most:
                raise ValueError(f"it has more than {most} columns")
    table = read_table(path)
    with _readable(path):
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame


def _rows(path: Path) -> int:
    """Return the number of rows of a file."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def _matrix(path: Path, column: str) -> Matrix:
    """Read one column of lists as (rows, width), without a copy where it lies in one piece."""
    with _opened(path) as file:
        chunked = file.read(columns=[column], use_threads=False)[column]
    width = chunked.type.list_size
    parts = [chunk.flatten().to_numpy().reshape(-1, width) for chunk in chunked.chunks]
    if not parts:
        return np.zeros((0, width), dtype=np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; Arrow itself reads one whose name is UTF-8, which is faster."""
    with _readable(path), open_regular(path) as raw:
        name = str(path)
        with pq.ParquetFile(name if name.isprintable() else raw) as file:
            for field in file.schema_arrow:
                _refuse_extension(field)
            yield file


def _refuse_extension(field: pa.Field) -> None:
    """Raise ValueError for a field of an extension type, whose meaning is that of other code."""
    extended = isinstance(field.type, pa.BaseExtensionType)
    if extended or b"ARROW:extension:name" in (field.metadata or {}):
        raise ValueError(f"its column {field.name!r:.100} is of an extension type")
    if pa.types.is_dictionary(field.type):
        _refuse_extension(pa.field(field.name, field.type.value_type))
    for number in range(field.type.num_fields):
        _refuse_extension(field.type.field(number))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Convert what a damaged file raises to one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{str(path)!r} is missing; `acon verify` reports what else is") from error
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise StoreError(f"{str(path)!r} cannot be read: {why}") from error
