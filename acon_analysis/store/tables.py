"""What the tables of a run must be, whoever wrote them: types of columns, and rows that are unique.

A hash says that a file is the one that was written, not that its writer was a capture.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from acon_analysis.columns import (
    CHANNEL_COLUMNS,
    ERROR_COLUMNS,
    HISTOGRAM_BINS,
    HISTOGRAM_COLUMNS,
    LINEARITY_CHANNEL_COLUMNS,
    NONLINEARITY_COLUMNS,
    SAMPLE_COLUMNS,
    TOTAL_COLUMNS,
    Column,
)
from acon_analysis.errors import StoreError
from acon_analysis.moments.fields import MOMENT_COLUMNS, PRODUCT_COLUMNS, STATE_COLUMNS
from acon_analysis.store.parquet import read_batches, read_table

#: Rows of a table that are read at a time: 5 MB of moments.
PART = 20_000

_UNITS = ("layer", "call", "channel")

#: The columns of each table of a run, and those that identify a row.
TABLES: Mapping[str, tuple[Sequence[Column], Sequence[str]]] = {
    "samples": (SAMPLE_COLUMNS, ("sample_id",)),
    "betas": (SAMPLE_COLUMNS[:1], ("sample_id",)),
    "errors": (ERROR_COLUMNS, ()),
    "nonlinearities": (NONLINEARITY_COLUMNS, ()),
    "channels": (CHANNEL_COLUMNS, ("layer", "channel")),
    "references": (
        [c for c in LINEARITY_CHANNEL_COLUMNS if c.name in (*_UNITS, "beta_reference")],
        _UNITS,
    ),
    "histograms": (HISTOGRAM_COLUMNS, _UNITS),
    "moments": ((*MOMENT_COLUMNS, *PRODUCT_COLUMNS), (*_UNITS, "block")),
    "totals": (TOTAL_COLUMNS, ("sample", "layer", "call")),
    "states": (STATE_COLUMNS, ("sample", *_UNITS)),
}

#: Columns of products, and one that earlier versions did not write.
_OPTIONAL = {column.name for column in PRODUCT_COLUMNS} | {"n_left_out"}

_FITS: Mapping[str, Callable[[pa.DataType], bool]] = {
    "int64": pa.types.is_integer,
    "float64": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
    "str": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "bool": pa.types.is_boolean,
    "object": lambda kind: pa.types.is_fixed_size_list(kind) and kind.list_size == HISTOGRAM_BINS,
}


def stored_table(path: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a file of a run as a table of `TABLES`, or some of its columns.

    Raises
    ------
    StoreError
        If it cannot be read, lacks a column, a column has another type, or two rows have the same
        keys.
    """
    expected, keys = TABLES[table]
    found = read_table(path, columns)
    required = {column.name for column in expected} if columns is None else set()
    _require_columns(path, expected, found, required)
    if keys and set(keys) <= set(found.column_names) and not _unique([found[key] for key in keys]):
        raise StoreError(f"{str(path)!r} cannot be used: two rows have the same {', '.join(keys)}")
    return found


def stored_frame(path: Path, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return `stored_table` as a frame."""
    frame: pd.DataFrame = stored_table(path, table, columns).to_pandas(ignore_metadata=True)
    return frame


def stored_parts(path: Path, table: str) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield the columns of a table that are no keys, `PART` rows at a time.

    Each part is refused for what `stored_table` refuses the whole for.
    """
    expected, keys = TABLES[table]
    own = [column for column in expected if column.name not in keys]
    for part in read_batches(path, PART, without=keys):
        _require_columns(path, own, part, {column.name for column in own})
        found = [column.name for column in own if column.name in part.schema.names]
        yield {name: part[name].to_numpy(zero_copy_only=False) for name in found}


def _require_columns(
    path: Path,
    expected: Sequence[Column],
    found: pa.Table | pa.RecordBatch,
    required: Collection[str],
) -> None:
    """Raise StoreError unless a table has the columns that it must, with the right types."""
    for column in expected:
        if found.num_rows and column.name in found.schema.names:
            _require_type(path, column, found[column.name])
    if lacking := sorted(set(required) - _OPTIONAL - set(found.schema.names)):
        raise StoreError(f"{str(path)!r} cannot be read: it has no column {lacking[0]!r}")


def _require_type(path: Path, column: Column, values: pa.ChunkedArray | pa.Array) -> None:
    """Raise StoreError unless a column has the type that `columns` gives it."""
    text_without_any = column.dtype == "str" and pa.types.is_null(values.type)
    if not _FITS[column.dtype](values.type) and not text_without_any:
        kind = f"{values.type}"[:60]
        raise StoreError(
            f"{str(path)!r} cannot be used: its column {column.name!r} is of type {kind}, not "
            f"{'lists of counts' if column.dtype == 'object' else column.dtype}"
        )
    if column.dtype in ("int64", "bool", "object") and values.null_count:
        raise StoreError(f"{str(path)!r} cannot be used: its column {column.name!r} has gaps")


def _unique(keys: Sequence[pa.ChunkedArray]) -> bool:
    """Say whether no two rows have the same keys."""
    codes = [_codes(key) for key in keys]
    sizes = [int(code.max(initial=0)) + 1 for code in codes]
    if math.prod(sizes) >= 2**63 or min(int(code.min(initial=0)) for code in codes) < 0:
        return not pd.DataFrame(dict(enumerate(codes))).duplicated().any()
    whole = np.zeros(len(codes[0]), dtype=np.int64)
    for code, size in zip(codes, sizes, strict=True):
        whole = whole * size + code
    if (np.diff(whole) > 0).all():  # as captures write most tables
        return True
    return not (np.diff(np.sort(whole)) == 0).any()


def _codes(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return whole numbers that are equal where the values are."""
    if not pa.types.is_integer(values.type):
        encoded: Any = pc.dictionary_encode(values.combine_chunks(), null_encoding="encode")
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        values = encoded.indices
    return np.asarray(values.to_numpy(), dtype=np.int64)
