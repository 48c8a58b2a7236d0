"""Layers in groups of the same sums, into which batches are merged."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from acon_analysis.columns import names
from acon_analysis.moments.fields import PRODUCT_COLUMNS, STATE_COLUMNS
from acon_analysis.moments.frames import to_frame
from acon_hooks.errors import HookError
from acon_hooks.moments.kernels import PRODUCT, CallSums
from acon_hooks.moments.layer_groups import (
    Call,
    LayerGroup,
    PerSample,
    States,
    other_rows,
    per_sample,
)
from acon_hooks.moments.masked import lengths_of
from acon_hooks.moments.native.sums import NativeSums
from acon_hooks.moments.sum_buffers import ALIGN, SumBuffers
from acon_hooks.moments.tables import keys_of
from acon_hooks.readings.batch import Key

Ids = npt.NDArray[np.int64]


class MergedGroups:
    """The groups of a network's layers; the compiled kernel sums from the second batch on."""

    def __init__(self, kernel: NativeSums | None, blocks: int, *, full: bool) -> None:
        self.kernel, self.blocks, self.full = kernel, blocks, full
        self.groups: list[LayerGroup] = []
        # Where the compiled kernel writes the sums of a call: buffers and index.
        self.slots: dict[Key, tuple[SumBuffers, int]] = {}
        self.states: list[pd.DataFrame] = []  # of single samples, where they are asked for
        self._buffers: list[SumBuffers | None] = []  # one a group that the compiled kernel sums

    def add(
        self,
        rows: tuple[str, ...],
        calls: list[Call],
        seen: dict[Key, CallSums],
        device: torch.device,
        *,
        pools: bool,
    ) -> None:
        """Begin a group of calls with the sums of the first batch."""
        kernel = None if rows == PRODUCT else self.kernel
        align = 1 if kernel is None else ALIGN
        group = LayerGroup(rows, calls, device, self.blocks, align, pools=pools)
        buffers = None if kernel is None else SumBuffers(group, kernel)
        self.groups.append(group)
        self._buffers.append(buffers)
        if buffers is None:
            return
        for index, call in enumerate(calls):
            self.slots[call.key] = buffers, index
            first = seen[call.key]
            buffers.copy(index, first.sums, first.beta, int(first.pixels))

    def forget(self) -> None:
        """Forget the sums of a batch that has failed."""
        for buffers in self._buffers:
            if buffers is not None:
                buffers.forget()

    def rows(self, seen: dict[Key, CallSums]) -> list[int]:
        """Return the number of rows that the layers of each group saw in this batch."""
        return [
            _of(seen, group.calls[0].key).sums.shape[1] if buffers is None else buffers.samples
            for group, buffers in zip(self.groups, self._buffers, strict=True)
        ]

    def merge(self, seen: dict[Key, CallSums], ids: list[Ids]) -> list[PerSample]:
        """Merge a batch, `ids` for each group; return what is kept of its samples."""
        found: dict[int, PerSample] = {}
        merged: dict[int, tuple[States, Tensor]] = {}
        for index, own in enumerate(ids):
            buffers = self._buffers[index]
            if buffers is None:
                merged[index] = self._merge_seen(self.groups[index], seen, own)
            else:
                found[index] = self._merge_buffers(buffers, own)
        if merged:
            groups = [self.groups[index] for index in merged]
            rest = per_sample(groups, *zip(*merged.values(), strict=True))
            found |= dict(zip(merged, rest, strict=True))
        return [found[index] for index in range(len(ids))]

    def _merge_seen(
        self, group: LayerGroup, seen: dict[Key, CallSums], ids: Ids
    ) -> tuple[States, Tensor]:
        """Merge a batch of one group by torch; return states and totals of its samples."""
        calls = [_of(seen, call.key) for call in group.calls]
        for call, known in zip(calls, group.calls, strict=True):
            if call.sums.shape[1] != len(ids):
                raise other_rows(known.key[0], call.sums.shape[1], len(ids))
        raw = torch.cat([call.sums for call in calls], 2)
        betas = [call.beta for call in calls if call.beta is not None]
        beta = torch.cat(betas, 1) if len(betas) == len(calls) else None
        group.measure(lengths_of([call.pixels for call in calls]))
        states, totals = group.states(raw, beta)
        group.merge(states, torch.from_numpy(ids))
        self._keep_states(group, states, beta, ids)
        return states, totals

    def _merge_buffers(self, buffers: SumBuffers, ids: Ids) -> PerSample:
        """Merge a batch with the compiled kernel."""
        if self.full:
            buffers.require(len(ids))
            raw, beta = buffers.sums()
            buffers.measure()
            self._keep_states(buffers.group, buffers.group.states(raw, beta)[0], beta, ids)
        return buffers.merge(ids)

    def _keep_states(
        self, group: LayerGroup, states: States, beta: Tensor | None, ids: Ids
    ) -> None:
        """Keep the states of single samples, where they are asked for."""
        if not self.full:
            return
        own = np.nan if beta is None else group.own(beta.cpu().numpy())
        keys = keys_of(group) | {"sample": ids[:, None], "beta": own}
        frame = to_frame(group.take_states(states), **keys)
        more = [name for name in names(PRODUCT_COLUMNS) if name in frame]
        self.states.append(frame[names(STATE_COLUMNS) + more])


class WholeBatches:
    """Layers whose rows are no samples (nodes, tokens): a batch is in its first one's block."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.groups: dict[Key, LayerGroup] = {}  # one a call: each has its own number of rows

    def add(self, call: Call, rows: tuple[str, ...], device: torch.device) -> None:
        """Begin to sum a call, given the names of its sums and its device."""
        self.groups[call.key] = LayerGroup(rows, [call], device, self.blocks)

    def merge(self, seen: dict[Key, CallSums], sample: int) -> None:
        """Merge what the calls of a batch have summed by row into the block of a sample."""
        for key, group in self.groups.items():
            found = seen.get(key)
            if found is None or not found.sums.shape[1]:  # an expert may be given no rows
                continue
            group.measure(lengths_of([found.pixels]))
            states, _ = group.states(found.sums, found.beta)
            group.merge_whole(states, sample)


def _of(seen: dict[Key, CallSums], key: Key) -> CallSums:
    """Return the sums of a call in this batch."""
    if key not in seen:
        raise HookError(f"layer {key[0]!r} has not run in this batch")
    return seen[key]
