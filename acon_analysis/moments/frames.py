"""Moments as tables: states to frames and back, data to frames, rows merged, disk space."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.columns import TOTAL_COLUMNS
from acon_analysis.errors import AconError
from acon_analysis.moments.fields import (
    FIELD,
    FIELDS,
    GROUPS,
    MOMENT_COLUMNS,
    PRODUCT_COLUMNS,
    STATE_COLUMNS,
)
from acon_analysis.moments.gram import Gram
from acon_analysis.moments.state import NEUTRAL, FloatArray, Moments, group, merge_all, merge_arrays
from acon_analysis.selection import require_columns

CHANNEL_KEYS = ("layer", "call", "channel")


def to_frame(state: Moments, **keys: npt.ArrayLike) -> pd.DataFrame:
    """Write a state of any shape as rows; states that no sample belongs to are left out.

    Key columns (layer, call, channel, block or sample) broadcast to the shape: for a state (blocks,
    channels) ``channel=np.arange(C), block=np.arange(B)[:, None]``. NaN (0 for counts) stands in
    the groups that the state lacks, so that all layers share one schema; only
    `fields.PRODUCT_COLUMNS` are missing where no product is gated.
    """
    seen = (state["n"] > 0).ravel()
    if "n_left_out" in state:
        seen |= (state["n_left_out"] > 0).ravel()
    rows = slice(None) if seen.all() else seen
    columns: dict[str, object] = {}
    for name, values in keys.items():
        given, index = np.asarray(values), None
        if given.dtype.kind == "U":
            words, index = np.unique(given, return_inverse=True)
        flat = np.broadcast_to(given if index is None else index, state.shape).ravel()[rows]
        columns[name] = flat if index is None else pd.array(words, dtype="str").take(flat)
    for field in FIELDS:
        if field.name in state:
            values = state[field.name].ravel()[rows]
            columns[field.name] = values.astype(field.dtype, copy=False)
        elif field.group != "product":
            columns[field.name] = np.full(int(seen.sum()), _blank(field.name), dtype=field.dtype)
    return pd.DataFrame(columns, copy=False)


def _blank(name: str) -> float:
    """Return what stands in a field that a layer lacks."""
    return 0.0 if FIELD[name].dtype == "int64" else np.nan


def moment_frame(x: npt.ArrayLike, y: npt.ArrayLike, layer: str = "layer") -> pd.DataFrame:
    """Return the moments of inputs and outputs (N, C) or (N, C, ...), as those of a capture.

    Columns of `Run.moments` without ``block``, one row a channel: all of ``"base"`` and
    ``"within"``, NaN in the groups that need the parameters of ACON.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim < 2:
        raise AconError(
            f"x and y need one shape, samples and channels first: x is {xs.shape}, y is {ys.shape}"
        )
    shape = *xs.shape[:2], math.prod(xs.shape[2:])
    xs, ys = xs.reshape(shape), ys.reshape(shape)
    each = Gram.of(np.stack([xs, ys], -1), axis=2)
    state = Moments(
        {
            "n": each.n,
            "mean_x": each.mean[..., 0],
            "mean_y": each.mean[..., 1],
            "cxx": each.C[..., 0, 0],
            "cxy": each.C[..., 0, 1],
            "cyy": each.C[..., 1, 1],
            "min_x": xs.min(-1, initial=np.inf),
            "max_x": xs.max(-1, initial=-np.inf),
            "n_positive": (xs > 0).sum(-1),
            "n_samples": each.n > 0,
            "sse_within": each.residual(1, [0]),
        }
    )
    channels = np.arange(xs.shape[1])
    return to_frame(merge_all(state), layer=layer, call=0, channel=channels)


def from_frame(frame: pd.DataFrame) -> Moments:
    """Read a state (rows,) from rows of moments; the groups that no row has are left out."""
    arrays: dict[str, FloatArray] = {}
    for name in GROUPS:
        fields = [f.name for f in FIELDS if f.group == name]
        if name == "base":
            require_columns(frame, fields, "the table of moments")
        if not set(fields) <= set(frame.columns):
            continue
        block = {f: frame[f].to_numpy(dtype=np.float64) for f in fields}
        if name == "left_out":
            block = {f: np.nan_to_num(values) for f, values in block.items()}
            stored = bool(block[fields[0]].any())
        else:
            stored = name == "base" or not bool(np.isnan(block[fields[-1]]).all())
            stored = stored or (name == "within" and bool(block["n_samples"].any()))
        arrays |= block if stored else {}
    if "mean_beta" in arrays and "n_samples" not in arrays:
        raise AconError("moments of β need the number of samples: column 'n_samples' is missing")
    return Moments(arrays)


def merge_rows(frame: pd.DataFrame, by: Sequence[str] = CHANNEL_KEYS) -> pd.DataFrame:
    """Merge rows with equal keys; keys in order of first appearance."""
    codes, keys = channel_codes(frame, by)
    merged = group(from_frame(frame), codes, len(keys))
    return to_frame(merged, **{name: keys[name].to_numpy() for name in by})


class MergedRows:
    """Rows of moments, one a key, into which the rows of further tables are merged.

    Nothing but the sums is kept: a table's rows may be given a part at a time. Keys are in order
    of first appearance. `merge_rows` of all tables' rows is the same.
    """

    def __init__(self) -> None:
        self._by = [*CHANNEL_KEYS, "block"]
        self._keys = pd.DataFrame(columns=self._by)
        self._names: list[str] = []
        self._sums = np.empty((0, 0))  # in one piece, which is given back when it is freed

    def add(self, keys: pd.DataFrame, parts: Iterable[Mapping[str, npt.ArrayLike]]) -> None:
        """Merge a table: its keys, all of them different, and its rows, in parts of any size."""
        before, start = len(self._keys), 0
        rows = self._rows(keys[self._by].reset_index(drop=True))
        for part in parts:
            new = {name: np.asarray(part[name], np.float64) for name in FIELD if name in part}
            self._fit(new, before)
            own = rows[start : start + len(new["n"])]
            start += len(own)
            consecutive = len(own) and (np.diff(own) == 1).all()
            self._merge(slice(own[0], own[-1] + 1) if consecutive else own, new)

    def _rows(self, keys: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Return the rows of a table's keys among the known ones, to which new ones are added."""
        if len(self._keys) and not keys.equals(self._keys):
            codes, known = channel_codes(pd.concat([self._keys, keys], ignore_index=True), self._by)
            rows, self._keys = codes[len(self._keys) :], known
            return rows
        self._keys = keys
        return np.arange(len(keys))

    def _fit(self, new: Mapping[str, FloatArray], before: int) -> None:
        """Make room for all keys and fields; N rows are of earlier tables."""
        wanted = [name for name in FIELD if name in new or name in self._names]
        if self._sums.shape == (len(wanted), len(self._keys)):
            return
        sums = np.empty((len(wanted), len(self._keys)))
        for name, values in zip(wanted, sums, strict=True):
            known = name in self._names
            values[:before] = self._sums[self._names.index(name)] if known else _blank(name)
            values[before:] = NEUTRAL.get(FIELD[name].rule, 0.0)
        self._names, self._sums = wanted, sums

    def _merge(self, rows: Any, new: Mapping[str, FloatArray]) -> None:
        """Merge fields into some of the rows."""
        own = dict(zip(self._names, self._sums, strict=True))
        lacking = {name: np.full(len(new["n"]), _blank(name)) for name in own if name not in new}
        old = {name: values[rows] for name, values in own.items()}
        for name, values in merge_arrays(old, {**new, **lacking}).items():
            own[name][rows] = values

    def frame(self) -> pd.DataFrame:
        """Return the keys and the merged fields, without a copy of the sums."""
        columns: dict[str, Any] = {name: self._keys[name] for name in self._by}
        for name, values in zip(self._names, self._sums, strict=True):
            columns[name] = values.astype(FIELD[name].dtype, copy=False)
        return pd.DataFrame(columns, copy=False)


def channel_codes(
    frame: pd.DataFrame, by: Sequence[str] = CHANNEL_KEYS
) -> tuple[npt.NDArray[np.int64], pd.DataFrame]:
    """Return the number of each row's key, in order of appearance, and the distinct keys."""
    require_columns(frame, by, "the table of moments")
    keys = frame.loc[:, list(by)]  # what groups refers to itself, so that it is freed late
    codes = np.asarray(keys.groupby(list(by), sort=False, dropna=False).ngroup(), dtype=np.int64)
    return codes, keys.drop_duplicates(ignore_index=True)


def line_variance(state: Moments, m: npt.ArrayLike) -> FloatArray:
    """Return Cyy of the counterfactual y = m·x + r: m²·Cxx + 2·m·Cxr + Crr, at least 0."""
    slope = np.asarray(m, dtype=np.float64)
    total = slope * slope * state["cxx"] + 2 * slope * state["cxr"] + state["crr"]
    return np.asarray(np.maximum(total, 0.0))


def disk_space(
    *, channels: int, layers: int, samples: int, units: int, full: bool, blocks: int, products: bool
) -> int:
    """Return how many bytes the moments of a run take, uncompressed: 8 a number, without keys.

    ``channels`` are those of all hooked layers together, ``units`` the parts that samples are
    written in, with ``blocks`` each; ``full`` adds the states of every sample and channel,
    ``products`` the fields of gated products.
    """
    per_unit = min(blocks, -(-samples // max(units, 1)))
    more = len(PRODUCT_COLUMNS) if products else 0
    numbers, each = len(MOMENT_COLUMNS) - 4 + more, len(STATE_COLUMNS) - 4 + more
    held = numbers * channels * per_unit * units
    totals = (len(TOTAL_COLUMNS) - 3) * layers * samples
    return 8 * (held + totals + (each * channels * samples if full else 0))
