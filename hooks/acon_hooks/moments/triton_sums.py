"""The sums of `kernels` on accelerators, by a Triton kernel: one pass over memory.

All is in float64, gates too, whatever the dtype of the data; otherwise as in `kernels`. The same
pass writes the output of an ACON layer where that is asked for. Compared with torch's operators
when it is first used on a device.
"""

from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from acon_hooks.layers.reading import fold
from acon_hooks.moments.native.build import NativeError
from acon_hooks.moments.native.sums import Prepared, difference

#: Values that one program holds at a time, a power of two; and channels among them, at most, where
#: channels lie side by side.
_TILE, _WIDE = 512, 32

#: Largest difference from torch's operators, relative to the largest value of its row.
_TOLERANCE = 1e-9


class TritonSums:
    """The kernel, called as `NativeSums` is."""

    def sums(
        self, x: Tensor, y: Tensor, beta: Tensor | None, axis: int, constants: Prepared
    ) -> Tensor | None:
        """Sum over the pixels of each sample and channel; see `NativeSums.sums`."""
        return _run(x, y, beta, axis, constants, write=False)

    def activated(
        self, x: Tensor, beta: Tensor, axis: int, constants: Prepared
    ) -> tuple[Tensor, Tensor] | None:
        """Return an ACON layer's output, laid out as x, and what `sums` returns."""
        y = torch.empty_like(x)
        found = _run(x, y, beta, axis, constants, write=True)
        return None if found is None else (y, found)


def _run(
    x: Tensor, y: Tensor, beta: Tensor | None, axis: int, constants: Prepared, *, write: bool
) -> Tensor | None:
    """Launch the kernel; None where it does not apply: no pixels, or β of every pixel."""
    from acon_hooks.moments.triton_kernel import take

    xs, ys = fold(x, axis), fold(y, axis)
    samples, channels, pixels = xs.shape
    kind, table = constants.kind, constants.table
    if kind == 0 or beta is None:
        beta, table = x, x  # not read
    elif beta.shape[2] > 1:
        return None
    if not xs.numel() or (write and ys.data_ptr() != y.data_ptr()):
        return None
    out = torch.empty((constants.rows, samples, channels), dtype=torch.float64, device=x.device)
    steps = (beta.stride(i) if beta.shape[i] > 1 else 0 for i in (0, 1))
    side = xs.stride(1) == 1 and channels > 1
    wide = min(_WIDE, _power(channels)) if side else _TILE // min(_TILE, _power(pixels))
    where: Any = nullcontext() if x.is_cpu else torch.accelerator.device_index(x.device.index)
    with where:
        take[samples, -(-channels // wide)](
            xs, ys, table, beta, out, channels, pixels, samples * channels,
            *xs.stride(), *ys.stride(), *steps,
            kind=kind, write=write, wide=wide, long=_TILE // wide,
        )  # fmt: skip
    return out


def _power(count: int) -> int:
    """Return the next power of two."""
    return 1 << (count - 1).bit_length()


@cache
def triton_sums(device: torch.device) -> TritonSums:
    """Return the kernel, compared with torch's operators on a device; a NativeError if it fails."""
    kernel = TritonSums()
    try:
        worst = difference(kernel.sums, device)
    except Exception as error:  # whatever a compiler or a driver raises
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NativeError(f"Triton's kernel does not run on {device}: {said[:200]}") from error
    if not worst <= _TOLERANCE:
        raise NativeError(f"Triton's kernel sums otherwise than torch does on {device}")
    return kernel
