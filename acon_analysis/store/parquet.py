"""Columns of Parquet parts, read in threads."""

import ctypes
import os
import sys
from collections.abc import Collection, Iterator, Sequence
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

Rows = npt.NDArray[np.int64]

#: Bytes of columns of lists that are read together.
TOGETHER = 2**24

#: Bytes of a file's columns of lists that are decoded at a time: more need more memory only.
PIECE = 2**20


class ListColumns:
    """Columns fixed_size_list<float32> of several files, the rows of one below the other's.

    Small neighbours are read together: to open a file of thousands of columns takes longer than
    to read one of them.

    Parameters
    ----------
    paths : sequence of Path
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._kept: dict[str, Matrix] = {}
        self._sizes: dict[str, int] = {}
        self._rows: list[int] = []
        for path in paths:
            with _opened(path) as file:
                own = {field.name: _list_size(field) for field in file.schema_arrow}
                if self._rows and own != self._sizes:
                    raise ValueError("its columns are not those of the parts before")
                self._sizes = own
                self._rows.append(int(file.metadata.num_rows))
        self.rows = sum(self._rows)

    def read(self, column: str, rows: Rows | None = None) -> Matrix | None:
        """Return a column, or some of its rows in ascending order; None where there is none.

        float32 (rows, length of a list).
        """
        if not self._sizes.get(column):
            return None
        if column not in self._kept:
            columns = self._neighbours(column)
            if rows is not None and len(columns) == 1:
                return self._read(columns, rows)[column]
            self._kept = self._read(columns, np.arange(self.rows))
        found = self._kept.pop(column)
        return found if rows is None else found[rows]

    def _neighbours(self, column: str) -> list[str]:
        """Return a column and those after it that take `TOGETHER` bytes with it."""
        names = [name for name, size in self._sizes.items() if size]
        names = names[names.index(column) :]
        sizes = np.cumsum([4 * self.rows * self._sizes[name] for name in names])
        return names[: max(1, int(np.searchsorted(sizes, TOGETHER, side="right")))]

    def _read(self, columns: list[str], rows: Rows) -> dict[str, Matrix]:
        """Read some rows, ascending, of some columns of all files, in threads."""
        starts = np.cumsum([0, *self._rows])
        found = {name: np.empty((len(rows), self._sizes[name]), np.float32) for name in columns}

        def fill(number: int) -> None:
            for name, start, values in _matrices(self.paths[number], columns):
                first = starts[number] + start
                own = slice(*np.searchsorted(rows, (first, first + len(values))))
                wanted = rows[own] - first
                found[name][own] = values if len(wanted) == len(values) else values[wanted]

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(fill, range(len(self.paths))):
                pass
        release_memory()
        return found


def release_memory() -> None:
    """Give back the freed memory that Arrow and the C library keep: as much as a run takes."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file, or some of its columns, as a table; `StoreError` if that fails."""
    with _opened(path) as file:
        wanted = None if columns is None else list(columns)
        table = file.read(columns=wanted)
        for name in set(wanted or ()) - set(table.column_names):  # which Arrow passes over
            raise KeyError(f"it has no column {name!r}")
        facts = table.schema.metadata or {}  # those of pandas are texts that it evaluates
        return table.replace_schema_metadata({k: facts[k] for k in facts if k != b"pandas"})


def read_batches(path: Path, rows: int, without: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet file without some columns, N rows at a time; `StoreError` if that fails."""
    with _opened(path) as file:
        columns = [name for name in file.schema_arrow.names if name not in without]
        yield from file.iter_batches(rows, columns=columns)


def read_frame(path: Path, most: int) -> pd.DataFrame:
    """Return a whole Parquet file; `StoreError` if that fails or it has too many columns."""
    with _opened(path) as file:
        if file.metadata.num_columns > most:
            raise ValueError(f"it has more than {most} columns")
    table = read_table(path)
    with _readable(path):
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame


def _matrices(path: Path, columns: list[str]) -> Iterator[tuple[str, int, Matrix]]:
    """Yield columns of lists, some rows at a time: name, first row, values (rows, width)."""
    with _opened(path) as file:
        widths = {name: _list_size(file.schema_arrow.field(name)) for name in columns}
        rows, start = max(1, PIECE // (4 * sum(widths.values()))), 0
        for part in file.iter_batches(rows, columns=columns, use_threads=False):
            for name, width in widths.items():
                yield name, start, part[name].flatten().to_numpy().reshape(len(part), width)
            start += len(part)


def _list_size(field: pa.Field) -> int:
    """Return the length of a column's lists, 0 for sample_id; ValueError for another column."""
    if field.name == "sample_id" and pa.types.is_integer(field.type):
        return 0
    if not pa.types.is_fixed_size_list(field.type) or field.type.value_type != pa.float32():
        raise ValueError(f"its column {field.name!r:.100} holds no lists of float32 of one length")
    return int(field.type.list_size)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; Arrow itself reads it where it can, which is faster."""
    with _readable(path), open_regular(path) as raw:
        opened = f"/dev/fd/{raw.fileno()}"  # the file itself, whatever its path comes to mean
        with pq.ParquetFile(opened if Path(opened).exists() else raw) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise ValueError("two of its columns have one name")
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
