"""Buffers for the sums of a batch, which the compiled kernel writes and merges.

Every hook has C++ write the sums of its call into a buffer; one more call at the end of the batch
merges those of all calls of a group into the blocks. Where the compiled sums do not apply, torch's
are copied into the buffer; where they are not finite, torch merges them, too.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acon_hooks.errors import HookError
from acon_hooks.moments.kernels import PLAIN, sums
from acon_hooks.moments.layer_groups import TOTALS, LayerGroup, PerSample, other_rows, per_sample
from acon_hooks.moments.masked import mean_beta
from acon_hooks.moments.native.sums import GroupArgument, NativeSums, Prepared, Target, again

#: Columns of a call begin at multiples of this: the vectors of every processor fit in.
ALIGN = 16


class SumBuffers:
    """Sums of one batch of one group of layers, its columns aligned to `ALIGN`, on the CPU."""

    def __init__(self, group: LayerGroup, kernel: NativeSums) -> None:
        self.group, self.kernel = group, kernel
        self.rows = len(group.rows) + (group.rows != PLAIN)  # and β
        self.samples = self._capacity = 0
        # Rows that lie a power of two apart would share lines of the cache.
        sizes = np.diff(group.first)
        self._row = np.asarray(sizes + ALIGN * (1 - sizes // ALIGN % 2), dtype=np.int64)
        self._raw: list[Tensor] = []
        self._targets: list[Target] = []
        self._address = self._row
        self._full = [False] * len(group.calls)
        self._finite = True
        self._prepared = [Prepared(call.gate) for call in group.calls]
        # Values of a sample in each channel, by call: of this batch, and as the group knows them.
        self._pixels = [0] * len(group.calls)
        self._measured: list[int] = []
        self._first = np.array(group.first, dtype=np.int64)
        half = torch.zeros_like(group.slope) if group.half is None else group.half
        self._constants = torch.stack([group.slope, half, group.rounding]).contiguous()
        states = group.blocks_held._asdict()
        self._held, _, values = (counts.numpy() for counts in states.pop("counts"))
        # What is the same in every batch; made once, for `merge` runs after each of them.
        self._given = GroupArgument(
            kind=self._prepared[0].kind,
            layers=len(group.calls),
            columns=group.columns,
            first=self._first.ctypes.data,
            constants=self._constants.data_ptr(),
            raw_row=self._row.ctypes.data,
            rows=self.rows,
            values=values.ctypes.data,
            **{name: array.data_ptr() for name, array in states.items()},
            store_row=group.blocks * group.columns,
        )

    def _begin(self, samples: int, index: int) -> None:
        """Allocate for a batch of this many samples, or refuse another number within one."""
        if any(self._full):
            raise other_rows(self.group.calls[index].key[0], samples, self.samples)
        self.samples = samples
        if samples > self._capacity:
            rows: list[int] = self._row.tolist()
            shapes = [(samples, self.rows, row) for row in rows]
            self._raw = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
            self._targets = [
                Target(raw.data_ptr(), row, self.rows * row)
                for raw, row in zip(self._raw, rows, strict=True)
            ]
            self._address = np.array([target.address for target in self._targets], dtype=np.int64)
            self._given.raw = self._address.ctypes.data
            self._capacity = samples

    def put(self, index: int, x: Tensor, y: Tensor | str, beta: Tensor | None, axis: int) -> bool:
        """Sum a call, y its output or its function's name; return whether the kernel could."""
        target, constants = self._start(index, x, axis)
        # Of no samples there is nothing to sum.
        done = self.kernel.into(x, y, beta, axis, constants, target) if self.samples else True
        if done is False:
            own = self._own(index, x.shape[axis])[: constants.rows]
            again(own, x, y, beta, axis, constants.gate)
            self._finite = self._finite and bool(own.isfinite().all())
        self._full[index] = done is not None
        return self._full[index]

    def write(
        self, index: int, x: Tensor, y: Tensor, beta: Tensor | None, axis: int, known: str
    ) -> None:
        """Sum a call, by torch where the kernel cannot; `known`: what computes y from x, or ""."""
        if not self.put(index, x, known or y, beta, axis):
            gate = self.group.calls[index].gate
            raw = sums(x, y, beta, axis, gate)
            pixels = x.numel() // max(raw.shape[1] * raw.shape[2], 1)
            self.copy(index, raw, mean_beta(beta, gate, raw), pixels)

    def activated(self, index: int, x: Tensor, beta: Tensor, axis: int) -> Tensor | None:
        """Return the output of a call, summed in the same pass; None if `put` has to be called."""
        target, constants = self._start(index, x, axis)
        y = self.kernel.activated_into(x, beta, axis, constants, target)
        self._full[index] = y is not None
        return y

    def _start(self, index: int, x: Tensor, axis: int) -> tuple[Target, Prepared]:
        """Prepare for one call; return where its sums are written, and its constants."""
        if x.shape[0] != self.samples or self._full[index]:
            self._begin(x.shape[0], index)
        self._pixels[index] = x.numel() // max(self.samples * x.shape[axis], 1)
        return self._targets[index], self._prepared[index]

    def _own(self, index: int, channels: int) -> Tensor:
        """Return a view of what the batch holds of one call, (rows, N, C)."""
        return self._raw[index][: self.samples, :, :channels].movedim(1, 0)

    def copy(self, index: int, found: Tensor, beta: Tensor | None, pixels: int) -> None:
        """Take sums (rows, N, C) and β (N, C) of a call, and how many pixels they are of."""
        if found.shape[1] != self.samples or self._full[index]:
            self._begin(found.shape[1], index)
        own = self._own(index, found.shape[2])
        own[: len(found)] = found
        if len(found) < self.rows and beta is not None:
            own[-1] = beta
        self._finite = self._finite and bool(own.isfinite().all())
        self._full[index] = True
        self._pixels[index] = pixels

    def sums(self) -> tuple[Tensor, Tensor | None]:
        """Return the batch's sums (rows, N, columns) and β (N, columns), None without."""
        sizes = np.diff(self.group.first).tolist()
        parts = zip(self._raw, sizes, strict=True)
        raw = torch.cat([part[: self.samples, :, :size] for part, size in parts], 2).movedim(1, 0)
        known = len(self.group.rows)
        return raw[:known], raw[known] if self.rows > known else None

    def measure(self) -> None:
        """Note in the group how many values a sample has in each channel."""
        if self._pixels != self._measured:
            self._measured = self._pixels.copy()
            self.group.measure(self._measured)
            self._given.pixels = self.group.pixels.ctypes.data

    def merge(self, samples: npt.NDArray[np.int64]) -> PerSample:
        """Merge the batch, of ascending sample_ids (N,), into the blocks; begin the next."""
        self.require(len(samples))
        finite = self._finite
        self.forget()
        group = self.group
        self.measure()
        if finite:
            return self._merge_compiled(samples)
        states, totals = group.states(*self.sums())
        group.merge(states, torch.from_numpy(samples))
        return per_sample([group], [states], [totals])[0]

    def _merge_compiled(self, samples: npt.NDArray[np.int64]) -> PerSample:
        group, given, count = self.group, self._given, len(samples)
        totals = np.full((len(TOTALS), count, len(group.calls)), np.nan)
        inputs = np.empty((count, group.columns)) if group.pools else None
        blocks = samples % group.blocks
        before = np.empty((count, len(group.calls)))
        for index, block in enumerate(blocks.tolist()):
            before[index] = self._held[block]
            self._held[block] += 1
        given.samples = count
        given.blocks, given.before = blocks.ctypes.data, before.ctypes.data
        given.totals = totals.ctypes.data
        given.inputs = None if inputs is None else inputs.ctypes.data
        self.kernel.merge(given)
        means = None if inputs is None else inputs.astype(np.float32)
        return PerSample(totals, means, group.pixels)

    def forget(self) -> None:
        """Forget the sums of a batch that has failed."""
        self._full, self._finite = [False] * len(self._full), True

    def require(self, samples: int) -> None:
        """Raise unless every layer of the batch has run on this many samples."""
        if self.samples == samples and all(self._full):
            return
        calls = self.group.calls
        absent = [c.key[0] for c, full in zip(calls, self._full, strict=True) if not full]
        if absent:
            raise HookError(f"layer {absent[0]!r} has not run in this batch")
        raise other_rows(calls[0].key[0], self.samples, samples)
