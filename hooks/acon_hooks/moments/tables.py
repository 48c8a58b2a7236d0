"""Groups of layers as the tables of a unit."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from acon_analysis.columns import TOTAL_COLUMNS, names
from acon_analysis.moments.frames import to_frame
from acon_analysis.moments.state import Moments
from acon_hooks.moments.layer_groups import TOTALS, LayerGroup, PerSample
from acon_hooks.readings.batch import Key


def keys_of(group: LayerGroup) -> dict[str, npt.NDArray[Any]]:
    """Return layer, call and channel of a group's columns."""
    widths = [call.channels for call in group.calls]
    return {
        "layer": np.repeat([call.key[0] for call in group.calls], widths),
        "call": np.repeat([call.key[1] for call in group.calls], widths),
        "channel": np.concatenate([np.arange(width) for width in widths]),
    }


def block_frame(group: LayerGroup) -> pd.DataFrame:
    """Take rows of ``moments/`` out of a group: by layer, channel and block."""
    blocks, state = group.take()
    turned = Moments({name: array.T for name, array in state.arrays.items()})
    keys = {name: values[:, None] for name, values in keys_of(group).items()}
    return to_frame(turned, **keys, block=blocks)


def total_frame(
    groups: Sequence[LayerGroup],
    samples: npt.NDArray[np.int64],
    merged: Sequence[Sequence[PerSample]],
) -> pd.DataFrame:
    """Return rows of ``totals/``, from one item a batch, with one a group in it."""
    frames = []
    for index, group in enumerate(groups):
        values = np.concatenate([batch[index].totals for batch in merged], axis=1)
        count, layers = values.shape[1:]
        each = {
            "layer": np.array([call.key[0] for call in group.calls]),
            "call": np.array([call.key[1] for call in group.calls]),
            "channels": np.array([call.channels for call in group.calls]),
        }
        columns = {name: np.repeat(value, count) for name, value in each.items()}
        columns["sample"] = np.tile(samples, layers)
        sizes = [
            np.broadcast_to(batch[index].pixels, batch[index].totals.shape[1:]) for batch in merged
        ]
        pixels = np.concatenate(sizes).T.ravel().astype(np.int64)
        columns["n"] = columns["channels"] * pixels
        numbers = dict(zip(TOTALS, values.transpose(0, 2, 1), strict=True))
        columns |= {name: value.ravel() for name, value in numbers.items()}
        frames.append(pd.DataFrame({name: columns[name] for name in names(TOTAL_COLUMNS)}))
    return pd.concat(frames, ignore_index=True)


def arrow(frame: pd.DataFrame) -> pa.Table:
    """Return a frame with a column ``layer`` as an Arrow table."""
    return pa.Table.from_pandas(frame.astype({"layer": "str"}), preserve_index=False)


def means_of_inputs(
    groups: Sequence[LayerGroup], merged: Sequence[Sequence[PerSample]], wanted: Collection[Key]
) -> dict[Key, npt.NDArray[np.float32]]:
    """Return the means of the inputs over the pixels, (N, C), of the calls that are wanted."""
    found = {}
    for index, group in enumerate(groups):
        known = [means for batch in merged if (means := batch[index].inputs) is not None]
        for at, call in zip(group.first, group.calls, strict=False):
            if call.key in wanted and known:
                span = slice(at, at + call.channels)
                found[call.key] = np.concatenate([values[:, span] for values in known])
    return found


def pooled_table(
    samples: npt.NDArray[np.int64],
    pooled: Mapping[Key, npt.NDArray[np.float32]],
    columns: Mapping[Key, tuple[str, int]],
) -> pa.Table:
    """Return pooled inputs as a table: sample_id, and one list of float32 a layer and call."""
    arrays: dict[str, pa.Array] = {"sample_id": pa.array(samples)}
    for key in (key for key in columns if key in pooled):
        values = pooled[key]
        flat = pa.array(values.reshape(-1))
        arrays[columns[key][0]] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(arrays)
