"""Moments of what goes into and comes out of activation layers, gathered while a network runs.

An `Accumulator` observes a `Tap`: it sums every call of every layer over the pixels inside the
hook, merges the sums of a batch into float64 states on the device, and returns them as a table, or
as the parts of a unit of a capture. What is stored is listed in `acon_analysis.moments.fields`.
"""

import shutil
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from acon_analysis.columns import MOMENT_KEY_COLUMNS, names
from acon_analysis.errors import StoreError
from acon_analysis.moments.fields import BLOCKS
from acon_analysis.moments.frames import disk_space, to_frame
from acon_analysis.moments.gram import EPS32
from acon_analysis.moments.state import empty
from acon_analysis.screen import counted
from acon_analysis.store.folder import RunFolder
from acon_hooks.engine.rows import Rows, mean_of
from acon_hooks.errors import HookError
from acon_hooks.layers.reading import Factors, fold
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.constants import (
    Constants,
    learn,
    read_references,
    reference_table,
    stored,
    write_references,
)
from acon_hooks.moments.kernels import (
    PRODUCT,
    CallSums,
    Gate,
    product_by_pairs,
    rows_of,
    sums,
)
from acon_hooks.moments.layer_groups import Call, LayerGroup, PerSample
from acon_hooks.moments.masked import (
    masked_sums,
    mean_beta,
    misfit,
    samples_first,
    unpadded,
    valid_positions,
)
from acon_hooks.moments.merging import MergedGroups, WholeBatches
from acon_hooks.moments.native.sums import Prepared, native
from acon_hooks.moments.options import KINDS, MomentOptions, settle
from acon_hooks.moments.tables import arrow, block_frame, means_of_inputs, pooled_table, total_frame
from acon_hooks.moments.triton_sums import TritonSums
from acon_hooks.readings.batch import Key, to_host

#: Bytes of moments that are worth a word.
MUCH_SPACE = 1_000_000_000

FloatArray = npt.NDArray[np.float64]


class UnmeasuredLayerWarning(UserWarning):
    """Moments of a layer cannot be taken."""


class Accumulator:
    """Gathers moments, batch by batch; float64 inputs in float64.

    ``Tap(model, observe=accumulator.observe)``; after every forward pass ``batch(ids)``; in the end
    ``frame()``, or ``unit(columns)`` for each unit of a capture. The first batch settles the
    constants (see `constants`) as it is summed. With a folder they are shared by all processes of a
    run: where they are `learning`, a process whose first batch is not that of the data set runs the
    network on the latter before, and calls ``learned(samples)``. `identity` is the SHA-256 of the
    run's; `quiet` leaves `warn` to whoever asks for results.
    """

    def __init__(
        self,
        options: MomentOptions | None = None,
        folder: RunFolder | None = None,
        identity: str = "",
        kinds: Collection[str] = KINDS,
        *,
        quiet: bool = False,
    ) -> None:
        self.options = options = options or MomentOptions()
        if options.kernel != "triton":
            self.options, _ = settle(options, torch.device("cpu"))
        self.blocks = self.options.blocks or BLOCKS
        self.folder, self.identity, self.kinds = folder, identity, kinds
        self.quiet = quiet
        self.constants: dict[Key, Constants] = {}
        self.unmeasured: dict[Key, str] = {}
        self.rowless: dict[Key, str] = {}  # calls whose rows are no samples, and why
        self.tensor_rows = Rows()  # where the samples of the batch that runs lie
        self._table = None if folder is None else read_references(folder, identity)
        self._rows: dict[Key, pd.DataFrame] | None = None
        self.learning = folder is not None and self._table is None
        kernel = self.options.kernel
        self._native = native() if kernel == "compiled" else None
        self._kernel = TritonSums() if kernel == "triton" else self._native
        self._merged = MergedGroups(self._native, self.blocks, full=self.options.full)
        self._whole_batches = WholeBatches(self.blocks)
        self._begun = False  # whether a batch has been merged
        # Sums that `activated` has taken, None where the buffers hold them.
        self._written: dict[Key, Tensor | None] = {}
        self._seen: dict[Key, CallSums] = {}
        self._warned: set[Key] = set()
        self._pooling: set[Key] = set()  # calls whose β comes from the means of the inputs
        self._whole: dict[Key, Tensor] = {}  # these means, where the sums do not have them
        self._wholes: dict[Key, list[npt.NDArray[np.float32]]] = {}
        self._ids: list[int] = []
        self._unnumbered = 0  # samples of batches without sample_ids
        self._kept: list[list[PerSample]] = []  # by batch and group

    @property
    def has_constants(self) -> bool:
        """Whether some layer is measured, with constants that the run's folder keeps."""
        return self._table is not None

    @property
    def compiled(self) -> bool:
        """Whether the compiled kernel sums, which computes some outputs itself."""
        return self._native is not None

    def observe(
        self, layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | Factors | None
    ) -> None:
        """Take in one call of a layer; see `acon_hooks.readings.batch.Observer`."""
        key = layer.name, call
        slot = self._merged.slots.get(key)
        if slot is not None and key in self._written:
            del self._written[key]
            return
        # As `observe_input` sums it, whichever of the two sees a call.
        known = "" if self._native is None else layer.known
        if self.tensor_rows.axis:
            layer, x, y, beta = samples_first(self.tensor_rows, layer, x, y, beta)
            known = ""
        own = None if isinstance(beta, Factors) else beta
        if slot is not None:
            slot[0].write(slot[1], x, y, own, layer.axis, known)
        elif self._measures(layer, key, x, y):
            valid = valid_positions(self.tensor_rows, layer, x)
            if key not in self.constants:
                with torch.no_grad():
                    self.constants[key] = self._settle(layer, key, x, unpadded(own, valid))
            self._sum(key, x, y, beta, layer.axis, valid, known)
        elif key in self._pooling:
            exact = torch.promote_types(x.dtype, torch.float32)
            valid = valid_positions(self.tensor_rows, layer, x)
            self._whole[key] = mean_of(fold(x, layer.axis), valid, exact)

    def activated(self, layer: str, gate: Gate, x: Tensor, beta: Tensor) -> Tensor | None:
        """Return the output of a layer of the ACON family, and take its sums in the same pass.

        None where the kernel does not apply. Sums are taken from the second batch on, of layers
        that run once: `observe` takes others. Channels are on axis 1 of x; β is (N, C, 1).
        """
        key, kernel = (layer, 0), self._kernel
        once = self._begun and (layer, 1) not in self.constants
        slot = self._merged.slots.get(key) if once else None
        own = self.constants.get(key) if once else None
        if kernel is None:
            return None
        if slot is None:
            known = gate if own is None or own.gate is None else own.gate
            y, raw = kernel.activated(x, beta, 1, Prepared(known)) or (None, None)
        else:
            y, raw = slot[0].activated(slot[1], x, beta, 1), None
        if y is not None and own is not None:
            self._written[key] = raw
        return y

    def observe_input(self, layer: Layer, call: int, x: Tensor) -> bool:
        """Sum a call before it runs, of an output that is known; False where `observe` has to."""
        slot = None if self.tensor_rows.axis else self._merged.slots.get((layer.name, call))
        return slot is not None and slot[0].put(slot[1], x, layer.known, None, layer.axis)

    def _sum(
        self,
        key: Key,
        x: Tensor,
        y: Tensor,
        beta: Tensor | Factors | None,
        axis: int,
        valid: Tensor | None,
        known: str,
    ) -> None:
        """Sum a call and keep the sums until the batch ends."""
        gate, raw, own = self.constants[key].gate, None, None
        lengths: int | FloatArray = x.numel() // max(x.shape[0] * x.shape[axis], 1)
        if not len(x) and not isinstance(beta, Factors):  # an expert that no token has chosen
            raw = x.new_zeros((len(rows_of(gate)), 0, x.shape[axis]), dtype=torch.float64)
        elif valid is not None:
            raw, lengths = masked_sums(x, y, beta, axis, gate, valid)
        elif isinstance(beta, Factors):
            same: Any = {"beta": None, "axis": axis, "constants": Prepared(None)}
            pair = None if self._kernel is None else partial(self._kernel.sums, **same)
            raw = product_by_pairs(x, y, beta, axis, pair)
        elif key in self._written:
            raw = self._written.pop(key)
        elif known and self._native is not None:
            raw = self._native.sums(x, known, beta, axis, Prepared(gate))
        elif self._kernel is not None:
            raw = self._kernel.sums(x, y, beta, axis, Prepared(gate))
        if not isinstance(beta, Factors):
            raw = sums(x, y, beta, axis, gate) if raw is None else raw
            own = mean_beta(beta, gate, raw, valid)
        assert raw is not None
        rows = PRODUCT if isinstance(beta, Factors) else rows_of(gate)
        eps = max(EPS32, torch.finfo(y.dtype).eps)
        self._seen[key] = CallSums(rows, raw, own, lengths, eps)

    def _measures(self, layer: Layer, key: Key, x: Tensor, y: Tensor) -> bool:
        """Return whether moments of a call can be taken; keep why not, and whose inputs pool."""
        if layer.granularity == "channel" and layer.kind != "gate":
            self._pooling.add(key)
        if layer.kind not in self.kinds or key in self.unmeasured:
            return False
        if key not in self.constants:
            reason = _unfit(x, y) or misfit(self.tensor_rows, layer, x)
            if reason:
                self.unmeasured[key] = reason
                return False
        return True

    def _settle(self, layer: Layer, key: Key, x: Tensor, beta: Tensor | None) -> Constants:
        """Return the constants of a call: the run's, or learned here."""
        if self._table is None:
            return learn(layer, x, beta)
        if self._rows is None:
            groups: Any = self._table.groupby(["layer", "call"], sort=False)
            self._rows = {(str(k[0]), int(k[1])): rows for k, rows in groups}
        if key not in self._rows:
            raise HookError(f"the run's constants lack layer {key[0]!r}, call {key[1]}")
        return stored(layer, x, beta, self._rows[key])

    def batch(self, samples: list[int] | None = None, mixed: Collection[str] = ()) -> None:
        """Merge what the last forward pass has shown, with the ascending sample_ids of the batch.

        Without them every row that a layer saw counts as a sample of its own, and nothing is kept
        of single samples. `mixed`: layers whose rows are known to be no samples, or others; of the
        first batch.
        """
        if not self._begun and samples is not None:
            self._settle_rows(len(samples), mixed)
        seen, self._seen = self._seen, {}
        whole, self._whole = self._whole, {}
        if not self._begun:
            self._group(seen)
        if samples is None:
            counts = self._merged.rows(seen)
            self._merged.merge(seen, [self._unnumbered + np.arange(count) for count in counts])
            self._unnumbered += max(counts, default=0)
            return
        ids = np.asarray(samples, dtype=np.int64)
        self._whole_batches.merge(seen, samples[0])
        self._kept.append(self._merged.merge(seen, [ids] * len(self._merged.groups)))
        self._ids += samples
        for key, values in to_host(whole).items():
            self._wholes.setdefault(key, []).append(values.astype(np.float32, copy=False))

    def forget(self) -> None:
        """Forget what has been summed since the last `batch`: the forward pass has failed."""
        for held in (self._seen, self._whole, self._written):
            held.clear()
        self._merged.forget()
        if not self._begun:
            self.constants.clear()

    def _settle_rows(self, samples: int, mixed: Collection[str]) -> None:
        """Settle of which layers a row is a sample, and keep all constants of the first batch."""
        if self._table is not None:
            return
        for key, seen in self._seen.items():
            rows = seen.sums.shape[1]
            if rows != samples:
                self.rowless[key] = (
                    f"it saw {counted(rows, 'row')} for a batch of {counted(samples, 'sample')}"
                )
            own = rows == samples and key[0] not in mixed
            self.constants[key] = replace(self.constants[key], by_sample=own)
        if self.folder is not None and self.constants:
            own_table = reference_table(self.constants)
            self._table = write_references(self.folder, own_table, self.identity)
            if not self._table.equals(own_table):
                raise StoreError(
                    f"out: another process has begun the run in {str(self.folder.path)!r} at the "
                    "same moment, with other numbers in its first batch; start this one again"
                )

    def _group(self, seen: dict[Key, CallSums]) -> None:
        """Sort the calls of the first batch into groups; keep apart those without samples."""
        self._begun, self.learning = True, False
        found: dict[tuple[tuple[str, ...], int], list[Call]] = {}
        for key, value in seen.items():
            _, count, channels = value.sums.shape
            own = self.constants[key]
            call = Call(key, channels, own.gate, value.eps)
            if own.by_sample:
                found.setdefault((value.rows, count), []).append(call)
            else:
                self._whole_batches.add(call, value.rows, value.sums.device)
        if not self.quiet:
            self.warn()
        device = next((value.sums.device for value in seen.values()), torch.device("cpu"))
        for (rows, _), calls in found.items():
            pools = any(call.key in self._pooling for call in calls)
            self._merged.add(rows, calls, seen, device, pools=pools)

    def require_some(self) -> None:
        """Raise if no layer could be measured in the first forward pass."""
        if not self.constants and not self.has_constants:
            unmeasured = self.unmeasured.items()
            reasons = "; ".join(f"layer {name!r}: {reason}" for (name, _), reason in unmeasured)
            raise HookError(f"none of the layers found can be measured: {reasons or 'none ran'}")

    def learned(self, samples: int, mixed: Collection[str]) -> None:
        """Keep the constants of a first batch of N samples, whose sums are forgotten."""
        self._settle_rows(samples, mixed)
        self.learning = False
        self._seen.clear()
        self._whole.clear()
        if not self.quiet:
            self.warn()

    def warn(self) -> None:
        """Warn of layers that have no moments, or no values by sample; of each once."""
        both = (("moments", self.unmeasured), ("values by sample", self.rowless))
        for lacking, reasons in both:
            for (name, call), reason in reasons.items():
                if (name, call) not in self._warned:
                    self._warned.add((name, call))
                    text = f"no {lacking} of layer {name!r}, call {call}: {reason}"
                    warnings.warn(text, UnmeasuredLayerWarning, stacklevel=4)

    def frame(self) -> pd.DataFrame:
        """Return `fields.MOMENT_COLUMNS` gathered so far, as `Run.moments`, and begin anew."""
        frame = self._frame()
        order = {key: index for index, key in enumerate(self.constants)}
        ranks = [order[key] for key in zip(frame["layer"], frame["call"], strict=True)]
        return frame.iloc[np.argsort(ranks, kind="stable")].reset_index(drop=True)

    def _all_groups(self) -> list[LayerGroup]:
        return [*self._merged.groups, *self._whole_batches.groups.values()]

    def _frame(self) -> pd.DataFrame:
        """Take the rows of ``moments/`` of all groups."""
        frames = [block_frame(group) for group in self._all_groups()]
        if not frames:
            return to_frame(empty(0), **dict.fromkeys(names(MOMENT_KEY_COLUMNS), np.empty(0)))
        return pd.concat(frames, ignore_index=True)

    def unit(self, columns: Mapping[Key, tuple[str, int]]) -> dict[str, pa.Table]:
        """Return the parts of the unit that has just ended, by name, and begin the next one.

        They are ``moments`` and ``totals``; ``states`` if asked for; ``pooled``, with the columns
        of ``betas/`` (`columns`, by layer and call) and the means of the inputs in them. Empty
        where nothing could be measured.
        """
        ids, self._ids = np.asarray(self._ids, dtype=np.int64), []
        kept, self._kept = self._kept, []
        states, self._merged.states = self._merged.states, []
        wholes, self._wholes = self._wholes, {}
        parts: dict[str, pa.Table] = {}
        if len(ids) and self._all_groups():
            parts["moments"] = arrow(self._frame())
        if len(ids) and self._merged.groups:
            parts["totals"] = arrow(total_frame(self._merged.groups, ids, kept))
        if states:
            parts["states"] = arrow(pd.concat(states, ignore_index=True))
        pooled = {key: np.concatenate(values) for key, values in wholes.items()}
        pooled |= means_of_inputs(self._merged.groups, kept, self._pooling)
        if pooled:
            parts["pooled"] = pooled_table(ids, pooled, columns)
        return parts

    def space(self, samples: int, unit_size: int) -> int:
        """Return the bytes, before compression, that moments of a run will take."""
        calls = [call for group in self._all_groups() for call in group.calls]
        pooled = sum(call.channels for call in calls if call.key in self._pooling)
        space = disk_space(
            channels=sum(call.channels for call in calls),
            layers=len(calls),
            samples=samples,
            units=-(-samples // unit_size),
            full=self.options.full,
            blocks=self.blocks,
            products=any(group.rows == PRODUCT for group in self._merged.groups),
        )
        return space + 4 * pooled * samples

    def space_text(self, samples: int, unit_size: int) -> str:
        """Say how much disk space moments take, if that is much or a good part of what is free."""
        needed = self.space(samples, unit_size)
        free = 0 if self.folder is None else shutil.disk_usage(self.folder.path).free
        if self.folder is None or needed < min(MUCH_SPACE, free / 10):
            return ""
        return (
            f"moments take up to {needed / 1e6:,.0f} MB before compression in "
            f"{str(self.folder.path)!r} ({free / 1e6:,.0f} MB free)"
        )


def _unfit(x: Tensor, y: Tensor) -> str:
    """Say why a call cannot be measured; empty if it can."""
    if x.ndim < 2:
        return f"its input has {x.ndim} axis; samples and channels are needed"
    if x.shape != y.shape:
        return f"its input is {tuple(x.shape)}, its output {tuple(y.shape)}"
    if not x.is_floating_point():
        return f"its input is {x.dtype}"
    return ""
