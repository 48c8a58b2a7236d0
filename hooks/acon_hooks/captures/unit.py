"""One unit of work in memory, the tables that it becomes, and the thread that writes them."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from acon_analysis.columns import SAMPLE_COLUMNS, dtypes
from acon_analysis.store.folder import RunFolder
from acon_analysis.store.histograms import Counts, count_betas, histogram_table
from acon_hooks.engine.feed import Batch

#: (layer name, call) -> column of betas/*.parquet and its width.
Columns = Mapping[tuple[str, int], tuple[str, int]]


def columns_of(manifest: Mapping[str, Any]) -> Columns:
    """Return the columns of ``betas/`` by layer and call, from a run's manifest."""
    return {
        (str(row["layer"]), int(row["call"])): (
            str(row["column"]),
            1 if row["granularity"] == "layer" else int(row["channels"]),
        )
        for row in manifest["layers"]
        if row["column"]
    }


class UnitBuffer:
    """The rows of one unit, gathered batch by batch."""

    def __init__(self, unit: int, paths: "pd.Series[str] | None") -> None:
        self.unit = unit
        self._paths = paths
        self._ids: list[int] = []
        self._errors: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self.more: dict[str, pa.Table] = {}  # parts from the moments
        self._values: dict[tuple[str, int], list[npt.NDArray[Any]]] = {}

    def add(self, batch: Batch, values: Mapping[tuple[str, int], npt.NDArray[Any]]) -> None:
        """Add a batch and the β (N, channels) read from it."""
        self._ids += batch.ids
        self._rows += batch.sample_rows()
        for sample, reason in batch.errors:
            path = "" if self._paths is None else str(self._paths.iloc[sample])
            self._errors.append({"sample_id": sample, "path": path, "reason": reason})
        for key, value in values.items():
            self._values.setdefault(key, []).append(value)

    @property
    def first_error(self) -> str:
        """Why the first bad image of the unit is bad."""
        return str(self._errors[0]["reason"]) if self._errors else "there were no images"

    def tables(self, columns: Columns) -> dict[str, pa.Table]:
        """Return the unit's parts."""
        arrays: dict[str, pa.Array] = {"sample_id": pa.array(self._ids, type=pa.int64())}
        counted: list[tuple[str, int, Counts]] = []
        for key, (name, width) in columns.items():
            parts = self._values.get(key) or [np.zeros((0, width), dtype=np.float32)]
            flat = np.concatenate(parts).astype(np.float32, copy=False).reshape(-1)
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
            counted.append((*key, count_betas(flat.reshape(-1, width))))
        parts_ = {"betas": pa.table(arrays), **self.more}
        if counted:
            parts_["histograms"] = histogram_table(counted)
        if self._errors:
            parts_["errors"] = pa.Table.from_pylist(self._errors)
        if self._rows:
            frame = pd.DataFrame(self._rows).astype(dtypes(SAMPLE_COLUMNS))
            parts_["samples"] = pa.Table.from_pandas(frame, preserve_index=False)
        return parts_


class UnitWriter:
    """Writes units in a thread of its own, at most one waiting, while the network goes on."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="acon-write")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "UnitWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._pool.shutdown(wait=True)

    def write(self, unit: UnitBuffer, columns: Columns) -> None:
        """Queue a unit; raises what went wrong with the one before."""
        self._wait()
        self._pending = self._pool.submit(self._write, unit, columns)

    def _write(self, unit: UnitBuffer, columns: Columns) -> None:
        self._folder.require_manifest()  # which goes with a folder that is removed meanwhile
        self._folder.write_unit(unit.unit, unit.tables(columns))

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()
