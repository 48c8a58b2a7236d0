"""Room for the sums of a batch as the compiled kernel writes and merges them.

All calls of a family side by side: every hook lets C++ write into its columns, and one more call at
the end of the batch merges them all into the blocks. Where the compiled sums do not apply, torch's
are copied into the same place; where they are not finite, torch merges them, too.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acon_hooks.errors import HookError
from acon_hooks.moments.kernels import PLAIN
from acon_hooks.moments.native.sums import FamilyArgument, NativeSums, Prepared
from acon_hooks.moments.states import TOTALS, Family, Merged, tell

#: Columns of a call begin at multiples of this: the vectors of every processor fit in.
ALIGN = 16


class Room:
    """Sums of one batch of one family.

    Parameters
    ----------
    family : Family
        On the CPU, its columns aligned to `ALIGN`.
    kernel : NativeSums
        What writes and merges.
    pools : bool
        Whether the means of the inputs are wanted.
    """

    def __init__(self, family: Family, kernel: NativeSums, *, pools: bool) -> None:
        self.family, self.kernel, self.pools = family, kernel, pools
        self.rows = len(family.rows) + (family.rows != PLAIN)  # and β
        self.samples = self._capacity = 0
        # Rows that lie a power of two apart would share their places in the cache.
        sizes = np.diff(family.first)
        self._row: list[int] = (sizes + ALIGN * (1 - sizes // ALIGN % 2)).tolist()
        self._rows = np.array(self._row, dtype=np.int64)
        self._raw: list[Tensor] = []
        self._address = self._rows
        self._full = [False] * len(family.calls)
        self._finite = True
        self._prepared = [Prepared(c.constants.gate, c.constants.guards) for c in family.calls]
        self._first = np.array(family.first, dtype=np.int64)
        self._pixels = np.array([call.pixels for call in family.calls], dtype=np.float64)
        half = torch.zeros_like(family.slope) if family.half is None else family.half
        parts = [family.slope, *family.offsets, half.double()]
        self._constants = torch.stack(parts).contiguous()

    def _begin(self, samples: int) -> None:
        """Make room for a batch of so many samples, or refuse another number within one."""
        if any(self._full):
            raise HookError(
                f"layers of one batch saw {self.samples} and {samples} rows: moments of samples "
                "cannot be told apart"
            )
        self.samples = samples
        if samples > self._capacity:
            shapes = [(samples, self.rows, row) for row in self._row]
            self._raw = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
            self._address = np.array([raw.data_ptr() for raw in self._raw], dtype=np.int64)
            self._capacity = samples

    def put(self, index: int, x: Tensor, y: Tensor, beta: Tensor | None, axis: int) -> bool:
        """Have the sums of one call written; return whether they are there.

        Parameters
        ----------
        index : int
            Place of the call in its family.
        x, y, beta, axis
            As in `NativeSums.sums`.
        """
        if x.shape[0] != self.samples or self._full[index]:
            self._begin(x.shape[0])
        row = self._row[index]
        place = int(self._address[index]), row, self.rows * row
        prepared = self._prepared[index]
        self._full[index] = self.kernel.into(x, y, beta, axis, prepared, place)
        return self._full[index]

    def copy(self, index: int, found: Tensor, beta: Tensor | None) -> None:
        """Take sums of one call from elsewhere.

        Parameters
        ----------
        index : int
            Place of the call in its family.
        found : Tensor
            (rows, N, C), from `kernels.sums` or `NativeSums.sums`.
        beta : Tensor or None
            (N, C).
        """
        if found.shape[1] != self.samples or self._full[index]:
            self._begin(found.shape[1])
        here = self._raw[index][: self.samples, :, : found.shape[2]].movedim(1, 0)
        here[: len(found)] = found
        if len(found) < self.rows and beta is not None:
            here[-1] = beta
        self._finite = self._finite and bool(here.isfinite().all())
        self._full[index] = True

    def sums(self) -> tuple[Tensor, Tensor | None]:
        """Return the batch's sums (rows, N, columns) and β (N, columns), None without."""
        sizes = np.diff(self.family.first).tolist()
        parts = zip(self._raw, sizes, strict=True)
        raw = torch.cat([part[: self.samples, :, :size] for part, size in parts], 2).movedim(1, 0)
        known = len(self.family.rows)
        return raw[:known], raw[known] if self.rows > known else None

    def merge(self, samples: npt.NDArray[np.int64]) -> Merged:
        """Merge the batch into the family's blocks, and make room for the next one.

        Parameters
        ----------
        samples : ndarray
            sample_ids, int64 (N,), ascending.

        Returns
        -------
        Merged
            Of the batch.

        Raises
        ------
        HookError
            If a layer has not run, or on another number of samples.
        """
        self.require(len(samples))
        finite, self._finite = self._finite, True
        self._full = [False] * len(self._full)
        family, store = self.family, self.family.store
        if not finite:
            rows = family.states(*self.sums())
            family.merge(rows, torch.from_numpy(samples))
            return tell([rows], [self.pools])[0]
        totals = np.full((len(TOTALS), len(samples), len(family.calls)), np.nan)
        inputs = np.empty((len(samples), family.columns)) if self.pools else None
        blocks = samples % family.blocks
        held = store.samples.numpy()
        before = np.empty(len(samples))
        for index, block in enumerate(blocks.tolist()):
            before[index] = held[block]
            held[block] += 1
        arrays = (store.means, store.moments, store.within, store.low, store.high)
        self.kernel.merge(
            FamilyArgument(
                self._prepared[0].kind, len(family.calls), family.columns, len(samples),
                self._first.ctypes.data, self._pixels.ctypes.data, self._constants.data_ptr(),
                self._address.ctypes.data, self._rows.ctypes.data, self.rows,
                blocks.ctypes.data, before.ctypes.data,
                *(array.data_ptr() for array in arrays), family.blocks * family.columns,
                totals.ctypes.data, None if inputs is None else inputs.ctypes.data,
            )
        )  # fmt: skip
        return Merged(totals, None if inputs is None else inputs.astype(np.float32))

    def require(self, samples: int) -> None:
        """Raise unless every layer of the batch has run on so many samples."""
        if self.samples == samples and all(self._full):
            return
        absent = [
            c.key[0] for c, full in zip(self.family.calls, self._full, strict=True) if not full
        ]
        if absent:
            raise HookError(f"layer {absent[0]!r} has not run in this batch")
        raise HookError(
            f"layer {self.family.calls[0].key[0]!r} saw {self.samples} rows for a batch of "
            f"{samples} images"
        )
