"""Constants of the moments: fixed on the first batch, the same in every process.

The first process to write ``references.parquet`` decides, per layer, call and channel; all others
read it, so that parts of one run merge whoever wrote them.

The reference β is the mean of the logit-normal that the last BatchNorm before β imposes, where
there is one: it follows from the weights alone. Otherwise it is the mean of β over the first batch.
Whether rows of a layer are samples is fixed with it. Nothing else is learned from a batch: moments
are summed about each sample's own values.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from acon_analysis.errors import StoreError
from acon_analysis.files import store_errors
from acon_analysis.screen import counted
from acon_analysis.statistics.gaussian import logit_normal_moments
from acon_analysis.store.folder import RunFolder
from acon_analysis.store.parquet import read_table
from acon_hooks.errors import HookError
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.kernels import Gate
from acon_hooks.readings.batch import Key
from acon_hooks.readings.layer_tables import last_norm

#: Name of the table in the run's folder.
REFERENCES = "references"

#: Kinds of layers whose output is f(x) = m·x + (d·x/2)·tanh(β·d·x/2), known from x and β.
GATED_KINDS = ("meta_acon", "acon")

#: Columns that versions had which summed in float32, about constants of the first batch.
_OUTDATED = ("slope", "offset_x", "offset_w", "offset_r", "offset_t")

_COLUMN, _BY_SAMPLE = "beta_reference", "by_sample"
_IDENTITY = b"acon_identity"


@dataclass(frozen=True)
class Constants:
    """Constants of one call of a layer."""

    channels: int
    # None outside the ACON family.
    gate: Gate | None
    # Whether a row of its input is a sample.
    by_sample: bool = True

    def reference(self) -> npt.NDArray[np.float64]:
        """Return the constant β of the counterfactual, (C,); NaN where there is none."""
        if self.gate is None or self.gate.reference is None:
            return np.full(self.channels, np.nan)
        return np.asarray(self.gate.reference.double().cpu())


def learn(layer: Layer, x: Tensor, beta: Tensor | None) -> Constants:
    """Settle the constants of a settled layer from one batch, as handed to an observer."""
    channels = x.shape[layer.axis]
    return Constants(channels, _gate(layer, channels, beta, None))


def stored(layer: Layer, x: Tensor, beta: Tensor | None, rows: pd.DataFrame) -> Constants:
    """Rebuild the constants of one call from its rows in the run's table, by channel."""
    channels = x.shape[layer.axis]
    if set(_OUTDATED) & set(rows.columns):
        raise StoreError(
            "the run was begun by a version whose moments were rounded to float32: go on with that "
            "version, or capture into another folder"
        )
    if len(rows) != channels:
        raise HookError(
            f"layer {layer.name!r} has {counted(channels, 'channel')}, {REFERENCES}.parquet of the "
            "run has "
            f"{len(rows)}: the run's folder holds constants of another network"
        )
    reference = torch.tensor(rows[_COLUMN].to_numpy(), device=x.device)
    by_sample = bool(rows.get(_BY_SAMPLE, pd.Series([True])).iloc[0])
    return Constants(channels, _gate(layer, channels, beta, reference), by_sample)


def _gate(
    layer: Layer, channels: int, beta: Tensor | None, reference: Tensor | None
) -> Gate | None:
    p1, p2 = layer.p1, layer.p2
    if layer.kind not in GATED_KINDS or p1 is None or p2 is None or beta is None:
        return None
    first, second = (p.double().reshape(-1).expand(channels) for p in (p1, p2))
    if layer.granularity == "static":
        reference = None
    elif reference is None:
        reference = _reference(layer, beta, channels)
    return Gate((first - second) / 2, (first + second) / 2, reference)


def _reference(layer: Layer, beta: Tensor, channels: int) -> Tensor:
    scale, shift = last_norm(layer)
    if scale is not None and shift is not None:
        both = (t.double().cpu().numpy().reshape(-1) for t in (shift, scale))
        mean, _ = logit_normal_moments(*both)
        found = torch.tensor(np.asarray(mean), device=beta.device)
    else:
        wide = beta.double()
        found = torch.where(wide.isfinite(), wide, torch.nan).nanmean((0, 2)).nan_to_num()
    return found.float().double().expand(channels)


def reference_table(constants: Mapping[Key, Constants]) -> pd.DataFrame:
    """Return the constants by layer and call as a table, one row a channel."""
    frames = [
        pd.DataFrame(
            {
                "layer": name,
                "call": call,
                "channel": np.arange(own.channels),
                _COLUMN: own.reference(),
                _BY_SAMPLE: own.by_sample,
            }
        )
        for (name, call), own in constants.items()
    ]
    return pd.concat(frames, ignore_index=True).astype({"layer": "str"})


def write_references(folder: RunFolder, frame: pd.DataFrame, identity: str) -> pd.DataFrame:
    """Write the constants, instead of those of another identity; return another process's."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _IDENTITY: identity.encode()}
    )
    where = repr(str(folder.path))
    with store_errors(f"writing to {where}"), folder.lock("manifest"):
        found = read_references(folder, identity)
        if found is not None:
            return found
        begun = folder.read_manifest() if folder.manifest_path.is_file() else None
        if begun is not None and not identity.startswith(str(begun["run_id"])):
            raise StoreError(
                f"out: another capture has begun in {where} meanwhile; choose another folder"
            )
        folder.write_table(REFERENCES, table)
    return frame


def read_references(folder: RunFolder, identity: str) -> pd.DataFrame | None:
    """Return the constants of a run; None where there are none, or of another identity."""
    path = folder.path / f"{REFERENCES}.parquet"
    if not path.is_file():
        return None
    table = read_table(path)
    if (table.schema.metadata or {}).get(_IDENTITY) != identity.encode():
        return None
    frame: pd.DataFrame = table.to_pandas()
    return frame
