"""What the moments of a run are taken about: fixed on the first batch, the same in every process.

Per layer, call and channel: the constant β of the counterfactual, the slope k and the offsets of
`acon_hooks.moments.kernels`. The first process to write ``references.parquet`` decides; all others
read it, so that parts of one run merge whoever wrote them.

The reference β is the mean of the logit-normal that the last BatchNorm before β imposes, where
there is one: it follows from the weights alone. Otherwise it is the mean of β over the first batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from acon_analysis.errors import StoreError
from acon_analysis.files import store_errors
from acon_analysis.statistics.gaussian import logit_normal_moments
from acon_analysis.store.folder import RunFolder
from acon_hooks.errors import HookError
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.kernels import Gate, Guards, Sums, sums
from acon_hooks.readings.batch import Key
from acon_hooks.readings.layer_tables import last_norm

#: Name of the table in the run's folder.
REFERENCES = "references"

#: Kinds of layers whose output is f(x) = m·x + (d·x/2)·tanh(β·d·x/2), known from x and β.
GATED_KINDS = ("meta_acon", "acon")

#: A mean is large against its spread from mean² > SHIFTED·mean square (three deviations) on.
SHIFTED = 0.9

_COLUMNS = ("beta_reference", "slope", "offset_x", "offset_w", "offset_r", "offset_t")
_IDENTITY = b"acon_identity"


@dataclass(frozen=True)
class Constants:
    """Constants of one call of a layer, float64 (C,) each, on the layer's device.

    Parameters
    ----------
    gate : Gate or None
        None outside the ACON family.
    guards : Guards
        Slope and offsets.
    """

    gate: Gate | None
    guards: Guards

    def numbers(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the columns that are stored."""
        slope = self.guards.slope.double().cpu().numpy()
        offsets = self.guards.offsets.double().cpu().numpy()
        reference = None if self.gate is None else self.gate.reference
        beta = np.full(len(slope), np.nan) if reference is None else reference.double().cpu()
        return dict(zip(_COLUMNS, (np.asarray(beta), slope, *offsets), strict=True))


def learn(layer: Layer, x: Tensor, y: Tensor, beta: Tensor | None, axis: int) -> Constants:
    """Settle the constants from one batch.

    Parameters
    ----------
    layer : Layer
        Settled by the first batch.
    x, y, beta : Tensor
        As handed to an observer.
    axis : int
        Channel axis of x and y.
    """
    channels = x.shape[axis]
    gate = _gate(layer, channels, beta, None)
    zero = torch.zeros(channels, dtype=torch.float64, device=x.device)
    start = zero if gate is None else gate.middle
    first = _Fit(sums(x, y, beta, axis, gate, _unshifted(start)), x, axis)
    slope = (start + first.slope).float().double()  # as the float32 kernels will use it
    if gate is not None:
        rest = torch.where(gate.half == 0, 0.0, (gate.middle - slope) / gate.half)
        slope = gate.middle - gate.half * rest.float().double()
    again = _Fit(sums(x, y, beta, axis, gate, _unshifted(slope)), x, axis)
    offsets = torch.where(again.shifted, again.centres, 0.0)
    return Constants(gate, _guards(slope, offsets))


def stored(
    layer: Layer, x: Tensor, beta: Tensor | None, axis: int, rows: pd.DataFrame
) -> Constants:
    """Rebuild the constants of one call from their rows in the run's table.

    Parameters
    ----------
    layer, x, beta, axis
        As in `learn`.
    rows : DataFrame
        Of this layer and call, by channel.
    """
    channels = x.shape[axis]
    if len(rows) != channels:
        raise HookError(
            f"layer {layer.name!r} has {channels} channels, {REFERENCES}.parquet of the run has "
            f"{len(rows)}: the run's folder holds constants of another network"
        )
    table = {name: torch.tensor(rows[name].to_numpy(), device=x.device) for name in _COLUMNS}
    gate = _gate(layer, channels, beta, table["beta_reference"])
    offsets = torch.stack([table[f"offset_{name}"] for name in "xwrt"])
    return Constants(gate, _guards(table["slope"], offsets))


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


def _unshifted(slope: Tensor) -> Guards:
    return Guards(slope, slope.new_zeros((4, len(slope))), None)


def _guards(slope: Tensor, offsets: Tensor) -> Guards:
    some = (offsets != 0).any(0)
    return Guards(slope, offsets, some.nonzero().flatten() if bool(some.any()) else None)


class _Fit:
    """Slope of w on x over a whole batch, and which means are large against their spread."""

    def __init__(self, raw: Tensor, x: Tensor, axis: int) -> None:
        samples = x.shape[0]
        count = max(x.numel() // max(x.shape[axis] * samples, 1), 1)
        mean = Sums(*(raw.double().sum(1) / (samples * count)))
        cxx, cxw = mean.xx - mean.x**2, mean.xw - mean.x * mean.w
        usable = (cxx > 1e-5 * mean.xx) & cxw.isfinite()
        self.slope = torch.where(usable, cxw / torch.where(usable, cxx, 1.0), 0.0)
        nothing = torch.zeros_like(mean.x)
        means, squares = [mean.x, mean.w, nothing, nothing], [mean.xx, mean.ww, nothing]
        if mean.t is not None:
            means[3] = mean.t
        if mean.r is not None and mean.rr is not None:
            means[2], squares[2] = mean.r, mean.rr
        large = [m**2 > SHIFTED * s for m, s in zip(means[:3], squares, strict=True)]
        # A gate's own spread matters less than a saturated gate is frequent.
        self.shifted = torch.stack([*large, torch.stack(large).any(0)])
        ends = Sums(*raw)
        low, high = ends.low_x.double().amin(0), ends.high_x.double().amax(0)
        # About its only value a constant input has no deviation at all, not even by rounding.
        means[0] = torch.where(low == high, low, mean.x)
        self.centres = torch.stack(means).float().double()
        if count == 1:  # summed in float64 anyway
            self.shifted = torch.zeros_like(self.shifted)


def write_references(
    folder: RunFolder, constants: dict[Key, Constants], identity: str
) -> pd.DataFrame:
    """Write the constants unless another process has, and return those that hold.

    Parameters
    ----------
    folder : RunFolder
        The run's.
    constants : dict
        By layer and call.
    identity : str
        SHA-256 of the run's identity; a table of another identity is replaced.
    """
    frames = [
        pd.DataFrame({"layer": name, "call": call, "channel": np.arange(len(v["slope"])), **v})
        for (name, call), v in ((key, c.numbers()) for key, c in constants.items())
    ]
    frame = pd.concat(frames, ignore_index=True).astype({"layer": "str"})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _IDENTITY: identity.encode()}
    )
    where = repr(str(folder.path))
    with store_errors(f"writing to {where}"), folder.lock("manifest"):
        found = read_references(folder, identity)
        if found is not None:
            return found
        if folder.manifest_path.is_file() and _is_of_another(folder.read_manifest(), identity):
            raise StoreError(
                f"out: another capture has begun in {where} meanwhile; choose another folder"
            )
        folder.write_table(REFERENCES, table)
    return frame


def _is_of_another(manifest: Mapping[str, Any], identity: str) -> bool:
    return not identity.startswith(str(manifest["run_id"]))


def read_references(folder: RunFolder, identity: str | None = None) -> pd.DataFrame | None:
    """Return the constants of a run; None where there are none, or of another identity."""
    path = folder.path / f"{REFERENCES}.parquet"
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"{str(path)!r} cannot be read ({type(error).__name__}): bring it back, or capture "
            "into another folder"
        ) from error
    if identity is not None and (table.schema.metadata or {}).get(_IDENTITY) != identity.encode():
        return None
    frame: pd.DataFrame = table.to_pandas()
    return frame
