"""Mergeable counts of β: what figures need of millions of values, in a few kilobytes a layer."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import boost_histogram as bh
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from acon_analysis.columns import HISTOGRAM_BINS, HISTOGRAM_COLUMNS, names
from acon_analysis.errors import StoreError

Counts = npt.NDArray[np.int64]

_ROW = HISTOGRAM_BINS + 3


def bin_edges() -> npt.NDArray[np.float64]:
    """Return the edges of the bins, float64 (257,), from 0 to 1."""
    return np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)


def count_betas(values: npt.NDArray[np.floating]) -> Counts:
    """Count β (samples, channels): int64 (channels, 259), below 0, the 256 bins, above 1, NaN."""
    samples, channels = values.shape
    result = np.zeros((channels, _ROW), dtype=np.int64)
    if not samples:
        return result
    axis = bh.axis.Regular(HISTOGRAM_BINS, 0.0, 1.0)
    number = bh.axis.Integer(0, channels, underflow=False, overflow=False)
    histogram = bh.Histogram(number, axis, storage=bh.storage.Int64())
    own = np.broadcast_to(np.arange(channels, dtype=np.int32), values.shape)
    histogram.fill(own.reshape(-1), values.reshape(-1))
    counts = histogram.view(flow=True)
    invalid, ones = np.isnan(values).sum(axis=0), (values == 1).sum(axis=0)
    result[:, :-1] = counts
    result[:, -1] = invalid
    # boost-histogram counts both with what is above; 1, a saturated sigmoid, is in the last bin.
    result[:, -2] -= invalid + ones
    result[:, -3] += ones
    return result


def histogram_table(counted: Sequence[tuple[str, int, Counts]]) -> pa.Table:
    """Return the part of a unit, a row a layer, call and channel, from counts of `count_betas`."""
    every = [counts for _, _, counts in counted]
    counts = np.concatenate(every) if every else np.zeros((0, _ROW), dtype=np.int64)
    widths = [len(own) for own in every]
    inner = np.ascontiguousarray(counts[:, 1:-2], dtype=np.int32)
    return pa.table(
        {
            "layer": np.repeat(np.array([name for name, _, _ in counted], dtype=object), widths),
            "call": np.repeat(np.array([call for _, call, _ in counted], dtype=np.int64), widths),
            "channel": np.concatenate([np.arange(w) for w in widths] or [np.zeros(0, np.int64)]),
            "count": pa.FixedSizeListArray.from_arrays(pa.array(inner.reshape(-1)), HISTOGRAM_BINS),
            "below": counts[:, 0],
            "above": counts[:, -2],
            "invalid": counts[:, -1],
        }
    )


def merged(parts: Iterable[tuple[Path, pa.Table]]) -> pa.Table | None:
    """Return the sum of `histogram_table` of many units of a run, int64; None without any."""
    keys, total = None, None
    for path, part in parts:  # one at a time: a part may have 4 MB, and a run hundreds of them
        own = part.select(["layer", "call", "channel"])
        if keys is None or total is None:
            keys, total = own, _counts(part)
        elif not own.equals(keys):
            raise StoreError(f"{str(path)!r} cannot be used: its rows are not those of other units")
        else:
            total += _counts(part)
    if keys is None or total is None:
        return None
    return (
        keys.append_column(
            "count",
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(total[:, 1:-2]).reshape(-1)), HISTOGRAM_BINS
            ),
        )
        .append_column("below", pa.array(total[:, 0]))
        .append_column("above", pa.array(total[:, -2]))
        .append_column("invalid", pa.array(total[:, -1]))
    )


def _counts(table: pa.Table) -> Counts:
    """Return the counts of a table, int64 (rows, below + bins + above + invalid)."""
    counts = np.empty((table.num_rows, _ROW), dtype=np.int64)
    listed = table["count"].combine_chunks()
    counts[:, 1:-2] = listed.flatten().to_numpy().reshape(-1, HISTOGRAM_BINS)
    for column, name in ((0, "below"), (-2, "above"), (-1, "invalid")):
        counts[:, column] = table[name].to_numpy()
    return counts


def histogram_frame(table: pa.Table | None, *, by_channel: bool) -> pd.DataFrame:
    """Return counts as `columns.HISTOGRAM_COLUMNS`, a row a channel, or a layer (channel -1)."""
    if table is None:
        return pd.DataFrame(columns=names(HISTOGRAM_COLUMNS))
    labels: pd.DataFrame = table.select(["layer", "call", "channel"]).to_pandas()
    total = _counts(table)
    if not by_channel:
        keys = labels.groupby(["layer", "call"], sort=False).ngroup().to_numpy()
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        total = np.add.reduceat(total, starts) if len(starts) else total
        labels = labels.iloc[starts].assign(channel=-1).reset_index(drop=True)
    frame: pd.DataFrame = labels.assign(
        count=pd.Series(list(total[:, 1:-2]), dtype=object),
        below=total[:, 0],
        above=total[:, -2],
        invalid=total[:, -1],
    )
    return frame
