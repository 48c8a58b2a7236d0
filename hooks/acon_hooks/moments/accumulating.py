"""Moments of what goes into and comes out of activation layers, gathered while a run is captured.

An `Accumulator` observes a `Tap`: it sums every call of every layer over the pixels inside the
hook, merges the sums of a batch into float64 states on the device, and hands over a unit's parts
of the store in one copy to the host. What is stored is said in `acon_analysis.moments.fields`.
"""

import shutil
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from acon_analysis.columns import MOMENT_KEY_COLUMNS, names
from acon_analysis.moments.fields import BLOCKS, STATE_COLUMNS
from acon_analysis.moments.frames import disk_space, to_frame
from acon_analysis.moments.state import empty
from acon_analysis.store.folder import RunFolder
from acon_hooks.errors import HookError
from acon_hooks.layers.reading import fold
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.constants import Constants, learn, read_references, stored, write_references
from acon_hooks.moments.kernels import rows_of, sums
from acon_hooks.moments.native.sums import NativeSums, Prepared, native
from acon_hooks.moments.options import KINDS, MomentOptions, settle
from acon_hooks.moments.states import Call, Family, Merged, Rows, tell
from acon_hooks.moments.sum_buffers import ALIGN, Room
from acon_hooks.moments.tables import (
    arrow,
    block_frame,
    keys_of,
    means_of_inputs,
    pooled_table,
    total_frame,
)
from acon_hooks.readings.batch import Key, to_host


class UnmeasuredLayerWarning(UserWarning):
    """Moments of a layer cannot be taken."""


@dataclass
class _Seen:
    """Sums of one call in the current batch."""

    sums: Tensor
    beta: Tensor | None
    pixels: int


class Accumulator:
    """Gathers moments, batch by batch.

    ``Tap(model, observe=accumulator.observe)``; after every forward pass ``batch(ids)``;
    in the end ``frame()``, or ``unit(columns)`` for each unit of a capture.
    Float64 inputs are summed in float64.

    With a folder the constants that moments are taken about are shared by all processes of a run:
    while `learning`, a forward pass only settles them, and is followed by
    ``accumulator.learned()``. Without a folder the first batch settles them as it is summed.

    Parameters
    ----------
    options : MomentOptions
        What to gather.
    folder : RunFolder, optional
        Where the constants are kept, for all processes of a run; None keeps them in memory.
    identity : str
        SHA-256 of the run's identity.
    kinds : collection of str
        Kinds of layers that are measured.
    """

    def __init__(
        self,
        options: MomentOptions | None = None,
        folder: RunFolder | None = None,
        identity: str = "",
        kinds: Collection[str] = KINDS,
    ) -> None:
        self.options, _ = settle(options or MomentOptions(), torch.device("cpu"))
        self.blocks = self.options.blocks or BLOCKS
        self._native: NativeSums | None = None
        if self.options.kernel == "compiled":
            self._native = native()
        self.rooms: list[Room] = []
        self._places: dict[Key, tuple[Room, int]] = {}
        self.folder, self.identity, self.kinds = folder, identity, kinds
        self.constants: dict[Key, Constants] = {}
        self.unmeasured: dict[Key, str] = {}
        self.families: list[Family] = []
        self._table = None if folder is None else read_references(folder, identity)
        self._rows: dict[Key, pd.DataFrame] | None = None
        self.learning = folder is not None and self._table is None
        self._seen: dict[Key, _Seen] = {}
        self._merged: list[list[Merged]] = []  # by batch and family
        self._states: list[pd.DataFrame] = []
        self._pooling: set[Key] = set()  # whose β comes from the means of the inputs
        self._pools: list[bool] = []  # by family: whether these means are taken from the sums
        self._whole: dict[Key, Tensor] = {}  # these means, where the sums do not tell them
        self._wholes: dict[Key, list[npt.NDArray[np.float32]]] = {}
        self._ids: list[int] = []
        self._warned: set[Key] = set()
        self._rows_seen = 0

    @property
    def has_constants(self) -> bool:
        """Whether some layer is measured, about constants that the run's folder keeps."""
        return self._table is not None

    def observe(self, layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        """Take in one call of a layer; see `acon_hooks.readings.tap.Observer`."""
        key = layer.name, call
        place = self._places.get(key)
        axis = layer.axis
        measures = place is not None or self._measures(layer, key, x, y)
        if key in self._pooling and not measures:
            exact = torch.promote_types(x.dtype, torch.float32)
            self._whole[key] = fold(x, axis).mean(2, dtype=exact)
        if not measures:
            return
        if place is not None:
            room, index = place
            if room.put(index, x, y, beta, axis):
                return
        if place is None and key not in self.constants:
            with torch.no_grad():
                self.constants[key] = self._settle(layer, key, x, y, beta)
        if self.learning:
            return
        constants = self.constants[key]
        raw = None
        if place is None and self._native is not None:
            prepared = Prepared(constants.gate, constants.guards)
            raw = self._native.sums(x, y, beta, axis, prepared)
        if raw is None:
            raw = sums(x, y, beta, axis, constants.gate, constants.guards)
        mean = None
        if beta is not None and constants.gate is not None:
            mean = (beta[:, :, 0] if beta.shape[2] == 1 else beta.mean(2)).double()
            mean = mean.expand(raw.shape[1], raw.shape[2])
        if place is None:
            pixels = x.numel() // max(raw.shape[1] * raw.shape[2], 1)
            self._seen[key] = _Seen(raw, mean, pixels)
        else:
            room, index = place
            room.copy(index, raw, mean)

    def _measures(self, layer: Layer, key: Key, x: Tensor, y: Tensor) -> bool:
        """Whether moments of a call can be taken; says why not, and whose inputs are pooled."""
        if layer.granularity == "channel" and layer.kind != "gate":
            self._pooling.add(key)
        if layer.kind not in self.kinds or key in self.unmeasured:
            return False
        if key not in self.constants:
            reason = _unfit(x, y)
            if reason:
                self.unmeasured[key] = reason
                return False
        return True

    def _settle(
        self, layer: Layer, key: Key, x: Tensor, y: Tensor, beta: Tensor | None
    ) -> Constants:
        if self._table is None:
            return learn(layer, x, y, beta, layer.axis)
        if self._rows is None:
            groups: Any = self._table.groupby(["layer", "call"], sort=False)
            self._rows = {(str(k[0]), int(k[1])): rows for k, rows in groups}
        if key not in self._rows:
            raise HookError(f"the run's constants lack layer {key[0]!r}, call {key[1]}")
        return stored(layer, x, beta, layer.axis, self._rows[key])

    def batch(self, samples: list[int] | None = None) -> None:
        """Merge what the last forward pass has shown.

        Parameters
        ----------
        samples : list of int, optional
            sample_ids of the batch, ascending. Without them every row that a layer saw counts as a
            sample of its own, and nothing is kept of single samples.
        """
        seen, self._seen = self._seen, {}
        whole, self._whole = self._whole, {}
        if not self.families:
            self._found(seen, None if samples is None else len(samples))
        merged = self._merge(seen, None if samples is None else np.asarray(samples, dtype=np.int64))
        if samples is None:
            return
        self._merged.append(merged)
        self._ids += samples
        for key, values in to_host(whole).items():
            self._wholes.setdefault(key, []).append(values.astype(np.float32, copy=False))

    def _merge(self, seen: dict[Key, _Seen], ids: npt.NDArray[np.int64] | None) -> list[Merged]:
        """Merge the sums of a batch into the blocks; return what is kept of single samples."""
        rows: list[Rows] = []
        merged: list[Merged] = []
        most = 0
        for index, family in enumerate(self.families):
            own = ids
            if own is None:
                first = family.calls[0].key
                count = self.rooms[index].samples if self.rooms else seen[first].sums.shape[1]
                own = self._rows_seen + np.arange(count)
                most = max(most, count)
            if self.rooms:
                merged.append(self._from_room(self.rooms[index], own))
            else:
                rows.append(self._from_sums(family, seen, own))
        self._rows_seen += most
        return merged or (tell(rows, self._pools) if rows and ids is not None else [])

    def _from_room(self, room: Room, ids: npt.NDArray[np.int64]) -> Merged:
        if not self.options.full:
            return room.merge(ids)
        room.require(len(ids))
        raw, beta = room.sums()
        self._keep_states(room.family, room.family.states(raw, beta), beta, ids)
        return room.merge(ids)

    def _from_sums(
        self, family: Family, seen: dict[Key, _Seen], ids: npt.NDArray[np.int64]
    ) -> Rows:
        """Merge by torch's operators."""
        rows = family_rows(family, seen)
        family.merge(rows, torch.from_numpy(ids))
        if self.options.full:
            self._keep_states(family, rows, _betas(family, seen), ids)
        return rows

    def learned(self) -> None:
        """Keep the constants, or those that another process was first to keep."""
        self.learning = False
        self._whole.clear()
        self._warn()
        if self.folder is not None and self.constants:
            self._table = write_references(self.folder, self.constants, self.identity)
            self.constants.clear()  # rebuilt from the table, as every other process does

    def _warn(self) -> None:
        for (name, call), reason in self.unmeasured.items():
            if (name, call) in self._warned:
                continue
            self._warned.add((name, call))
            text = f"no moments of layer {name!r}, call {call}: {reason}"
            warnings.warn(text, UnmeasuredLayerWarning, stacklevel=4)

    def _found(self, seen: dict[Key, _Seen], samples: int | None) -> None:
        """Sort the calls into families; leave out those whose rows are not the samples."""
        groups: dict[tuple[tuple[str, ...], int], list[Call]] = {}
        for key, value in seen.items():
            count = value.sums.shape[1]
            if samples is not None and count != samples:
                self.unmeasured[key] = f"it saw {count} rows for a batch of {samples} images"
                continue
            constants = self.constants[key]
            call = Call(key, value.sums.shape[2], value.pixels, constants)
            groups.setdefault((rows_of(constants.gate), count), []).append(call)
        self._warn()
        device = next((value.sums.device for value in seen.values()), torch.device("cpu"))
        align = 1 if self._native is None else ALIGN
        self.families = [
            Family(rows, calls, device, self.blocks, align) for (rows, _), calls in groups.items()
        ]
        self._pools = [
            any(c.key in self._pooling for c in family.calls) for family in self.families
        ]
        if self._native is None:
            return
        self.rooms = [
            Room(family, self._native, pools=pools)
            for family, pools in zip(self.families, self._pools, strict=True)
        ]
        for room in self.rooms:
            for index, call in enumerate(room.family.calls):
                self._places[call.key] = room, index
                room.copy(index, seen[call.key].sums, seen[call.key].beta)

    def _keep_states(
        self, family: Family, rows: Rows, beta: Tensor | None, ids: npt.NDArray[np.int64]
    ) -> None:
        frame = to_frame(family.take_rows(rows), sample=ids[:, None], **keys_of(family))
        frame["beta"] = np.nan
        if beta is not None:
            frame["beta"] = family.own(beta.cpu().numpy()).ravel()
        self._states.append(frame[names(STATE_COLUMNS)])

    def frame(self) -> pd.DataFrame:
        """Return the moments gathered so far, and begin anew.

        Returns
        -------
        DataFrame
            Columns `fields.MOMENT_COLUMNS`: a row a layer, call, channel and block of samples that
            holds data, as `Run.moments`.
        """
        frames = [block_frame(family) for family in self.families]
        if not frames:
            return to_frame(empty(0), **{c.name: np.empty(0) for c in MOMENT_KEY_COLUMNS})
        return pd.concat(frames, ignore_index=True)

    def unit(self, columns: Mapping[Key, tuple[str, int]]) -> dict[str, pa.Table]:
        """Return the parts of the unit that has just ended, and begin the next one.

        Parameters
        ----------
        columns : mapping
            Column of each layer and call that has β per sample, as in ``betas/``.

        Returns
        -------
        dict of str to pyarrow.Table
            ``moments`` and ``totals``; ``states`` if asked for; ``pooled``, with the columns of
            ``betas/`` and the means of the inputs in them. Empty where nothing could be measured.
        """
        ids, self._ids = np.asarray(self._ids, dtype=np.int64), []
        merged, self._merged = self._merged, []
        states, self._states = self._states, []
        wholes, self._wholes = self._wholes, {}
        parts: dict[str, pa.Table] = {}
        if len(ids) and self.families:
            parts["moments"] = arrow(self.frame())
            parts["totals"] = arrow(total_frame(self.families, ids, merged))
        if states:
            parts["states"] = arrow(pd.concat(states, ignore_index=True))
        pooled = {key: np.concatenate(values) for key, values in wholes.items()}
        pooled |= means_of_inputs(self.families, merged, self._pooling)
        if pooled:
            parts["pooled"] = pooled_table(ids, pooled, columns)
        return parts

    def space(self, samples: int, unit_size: int) -> int:
        """Return the bytes, before compression, that moments of a run will take.

        Parameters
        ----------
        samples : int
            Images of the run.
        unit_size : int
            Images a unit.
        """
        calls = [call for family in self.families for call in family.calls]
        pooled = sum(call.channels for call in calls if call.key in self._pooling)
        space = disk_space(
            channels=sum(call.channels for call in calls),
            layers=len(calls),
            samples=samples,
            units=-(-samples // unit_size),
            full=self.options.full,
            blocks=self.blocks,
        )
        return space.blocks + space.totals + space.states + 4 * pooled * samples

    def space_text(self, samples: int, unit_size: int) -> str:
        """Say in one sentence what `space` returns, and how much room there is."""
        text = (
            f"moments take up to {self.space(samples, unit_size) / 1e6:,.1f} MB before compression"
        )
        if self.folder is None:
            return text
        free = shutil.disk_usage(self.folder.path).free
        return f"{text} in {str(self.folder.path)!r} ({free / 1e6:,.0f} MB free)"


def family_rows(family: Family, seen: dict[Key, _Seen]) -> Rows:
    """Return the states of the samples of one batch for a family's columns."""
    found = [seen[call.key].sums for call in family.calls]
    wide = any(t.dtype == torch.float64 for t in found)
    raw = torch.cat([t.double() for t in found] if wide else found, 2)
    return family.states(raw, _betas(family, seen))


def _betas(family: Family, seen: dict[Key, _Seen]) -> Tensor | None:
    betas = [seen[call.key].beta for call in family.calls]
    some = [beta for beta in betas if beta is not None]
    return torch.cat(some, 1) if len(some) == len(betas) and some else None


def _unfit(x: Tensor, y: Tensor) -> str:
    """Say why a call cannot be measured; empty if it can."""
    if x.ndim < 2:
        return f"its input has {x.ndim} axis; samples and channels are needed"
    if x.shape != y.shape:
        return f"its input is {tuple(x.shape)}, its output {tuple(y.shape)}"
    if not x.is_floating_point():
        return f"its input is {x.dtype}"
    return ""
