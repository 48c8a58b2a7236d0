"""The sums of `kernels` and the merging of `layer_groups` in C++ (``sums.cpp``, ``merge.cpp``).

Compiled by `build`, and compared with torch's operators every time it is loaded.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from acon_hooks.moments.kernels import Gate, repeat, rows_of, sums
from acon_hooks.moments.native.build import NativeError, compiler_path, library

#: Summed values that take as long as merging one.
_MERGING = 16

#: Activations whose outputs the kernel computes itself, in the order of functions.h; first those
#: that it is given.
FUNCTIONS = ("", "relu", "hardswish", "silu")

#: Largest difference from torch's operators, relative to the largest sum of its row.
_TOLERANCE = 1e-6

#: By compiler: the kernel of this process, or why there is none.
_kept: "dict[str, NativeSums | NativeError]" = {}

_POINTER, _INTEGER, _CHOICE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int

#: Runs a function on the threads of torch's OpenMP runtime (see threads.h); None without one.
_TEAM = ctypes.cast(getattr(ctypes.CDLL(None), "GOMP_parallel", 0), _POINTER).value

#: Values below which more threads than one are not worth it.
_WORTH = 1 << 15 if _TEAM else 1 << 19


class GroupArgument(ctypes.Structure):
    """``acon_group`` of merge.cpp."""

    _fields_ = (
        *((name, _INTEGER) for name in ("kind", "layers", "columns", "samples")),
        *((name, _POINTER) for name in ("first", "pixels", "constants", "raw", "raw_row")),
        ("rows", _INTEGER),
        *((name, _POINTER) for name in ("blocks", "before", "values")),
        *((name, _POINTER) for name in ("means", "moments", "within", "low", "high")),
        ("store_row", _INTEGER),
        *((name, _POINTER) for name in ("totals", "inputs")),
    )


class Prepared:
    """Constants of one call as the compiled kernel reads them."""

    def __init__(self, gate: Gate | None) -> None:
        self.gate = gate
        self.rows = len(rows_of(gate))
        self.kind = 0 if gate is None else 1 if gate.reference is None else 2
        self.table = torch.zeros(0) if gate is None else gate.table
        self.pointer = self.table.data_ptr()


@dataclass(frozen=True)
class Target:
    """Where the sums of a call are written, as float64."""

    # Of the first number.
    address: int
    # Numbers from one row to the next, and from one sample to the next.
    row: int
    sample: int


class NativeSums:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        self._sums = library.acon_moment_sums
        self._sums.restype = _CHOICE
        self._sums.argtypes = [
            *(_CHOICE,) * 3, *(_POINTER,) * 4, *(_INTEGER,) * 5,
            *(_POINTER, _INTEGER, _INTEGER), *(_CHOICE, _POINTER),
        ]  # fmt: skip
        self._merge = library.acon_moment_merge
        self._merge.restype = None
        self._merge.argtypes = [_POINTER, _CHOICE, _POINTER]

    def sums(
        self, x: Tensor, y: Tensor | str, beta: Tensor | None, axis: int, constants: Prepared
    ) -> Tensor | None:
        """Return `kernels.sums` of tensors on the CPU, (`rows_of(gate)`, N, C), float64.

        None where the compiled kernel does not apply: float64, one pixel a sample in the ACON
        family, β of every pixel.
        """
        samples, channels = x.shape[0], x.shape[axis]
        rows = constants.rows + (constants.kind > 0)  # and β
        out = torch.empty((rows, samples, channels), dtype=torch.float64)
        target = Target(out.data_ptr(), samples * channels, channels)
        done = self.into(x, y, beta, axis, constants, target)
        out = out[: constants.rows]
        if done is False:
            again(out, x, y, beta, axis, constants.gate)
        return None if done is None else out

    def activated(
        self, x: Tensor, beta: Tensor, axis: int, constants: Prepared
    ) -> tuple[Tensor, Tensor] | None:
        """Return an ACON layer's output, laid out as x, and what `sums` returns, in one pass.

        The output is x·(m + (d/2)·tanh((β·d/2)·x)). None where the compiled kernel does not apply,
        or something is not finite.
        """
        samples, channels = x.shape[0], x.shape[axis]
        out = torch.empty((constants.rows + 1, samples, channels), dtype=torch.float64)
        target = Target(out.data_ptr(), samples * channels, channels)
        y = self.activated_into(x, beta, axis, constants, target)
        return None if y is None else (y, out[: constants.rows])

    def activated_into(
        self, x: Tensor, beta: Tensor, axis: int, constants: Prepared, target: Target
    ) -> Tensor | None:
        """Return the output, with the sums written as by `into`."""
        if not _lies_so(x, axis, last=_is_last(x, axis)):
            return None
        y = torch.empty_like(x)
        return y if self.into(x, y, beta, axis, constants, target, write=True) else None

    def into(
        self,
        x: Tensor,
        y: Tensor | str,
        beta: Tensor | None,
        axis: int,
        constants: Prepared,
        target: Target,
        *,
        write: bool = False,
    ) -> bool | None:
        """Write what `sums` returns, and β in a further row, into memory; y, too, if `write`.

        None where `sums` returns None: nothing is written. False where something is not finite: see
        `again`. y is written of the ACON family, for float32 without gaps. Of other activations y
        is the output, or the name in `FUNCTIONS` of what computes it from x.
        """
        shape = x.shape
        samples, channels = shape[0], shape[axis]
        pixels = x.numel() // max(samples * channels, 1)
        kind = constants.kind
        if pixels <= (kind > 0) or x.dtype == torch.float64 or not x.is_cpu:
            return None
        pointer, steps = None, (0, 0)
        if kind and beta is not None:
            if beta.shape[2] > 1:
                return None
            beta = beta.float()
            pointer, (first, second, _), (one, two, _) = beta.data_ptr(), beta.stride(), beta.shape
            steps = (first if one > 1 else 0, second if two > 1 else 0)
        last = _is_last(x, axis)
        x = _laid_out(x, axis, last=last)
        function = FUNCTIONS.index(y) if isinstance(y, str) else 0
        output = None
        if isinstance(y, Tensor) and (write or not kind):
            y = y if kind else _laid_out(y, axis, last=last)
            output = y.data_ptr()
        given = (
            kind, function, last, x.data_ptr(), output, constants.pointer, pointer, *steps,
            samples, channels, pixels, target.address, target.row, target.sample,
        )  # fmt: skip
        return bool(self._sums(*given, _threads(x.numel()), _TEAM))

    def merge(self, group: GroupArgument) -> None:
        """Merge a batch's sums, all finite, into blocks; the addresses outlive the call."""
        threads = _threads(_MERGING * group.columns * group.samples)
        self._merge(ctypes.byref(group), threads, _TEAM)


def again(
    found: Tensor, x: Tensor, y: Tensor | str, beta: Tensor | None, axis: int, gate: Gate | None
) -> None:
    """Overwrite in `found` the moments of channels in which something is not finite, by torch's."""
    y = getattr(functional, y)(x) if isinstance(y, str) else y
    repeat(found, ~found.isfinite().all(0).all(0), x, y, beta, axis, gate)


def _threads(values: int) -> int:
    """Return the number of threads that sum this many values: one, or as many as torch uses."""
    return 1 if values < _WORTH else torch.get_num_threads()


def _is_last(x: Tensor, axis: int) -> bool:
    """Return whether channels lie side by side in memory."""
    return x.stride(axis) == 1 and x.shape[axis] > 1


def _lies_so(x: Tensor, axis: int, *, last: bool) -> bool:
    """Return whether `_laid_out` has nothing to do; the usual cases without an operator."""
    if x.dtype != torch.float32:
        return False
    if axis == 1 and not last:
        return x.is_contiguous()
    if axis == 1 and x.ndim == 4:
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.movedim(axis, -1 if last else 1).is_contiguous()


def _laid_out(x: Tensor, axis: int, *, last: bool) -> Tensor:
    """Return what lies in memory as (N, C, ...) or, with `last`, (N, ..., C): float32, no gaps."""
    if _lies_so(x, axis, last=last):
        return x
    return x.movedim(axis, -1 if last else 1).float().contiguous()


def native(announce: Callable[[str], None] | None = None) -> NativeSums:
    """Return the compiled kernel, compiled now if this machine has not yet, or a NativeError."""
    compiler = compiler_path()
    if compiler not in _kept:
        try:
            if not compiler:
                raise NativeError("there is no C++ compiler (CXX, c++, g++ or clang++)")
            with library(compiler, announce) as path:
                _kept[compiler] = _load(path)
        except NativeError as error:
            _kept[compiler] = error
    found = _kept[compiler]
    if isinstance(found, NativeError):
        raise NativeError(str(found))
    return found


def _load(path: Path) -> NativeSums:
    """Load the library and compare it with torch's operators."""
    try:
        kernel = NativeSums(path)
    except (OSError, AttributeError) as error:
        raise NativeError(f"{str(path)!r} cannot be loaded: {error}") from error
    with torch.inference_mode():
        worst = difference(kernel.sums, torch.device("cpu"), FUNCTIONS)
    if not worst <= _TOLERANCE:
        raise NativeError("the compiled kernel sums otherwise than torch does")
    return kernel


def difference(
    kernel: Callable[..., Tensor | None], device: torch.device, functions: Sequence[str] = ("",)
) -> float:
    """Return the largest difference from torch's sums, relative to the row's largest, or inf."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 21, 9, 10, generator=generator).to(device)
    half, beta = (torch.rand(s, generator=generator) + 0.1 for s in ((21,), (2, 21, 1)))
    half, beta = half.double().to(device), beta.to(device)
    gates, found = (Gate(half, half, None), Gate(half, half, half + 0.5)), []
    for gate, name in [*((None, name) for name in functions), *((gate, "") for gate in gates)]:
        function = getattr(functional, name or "relu")
        expected = sums(x.double(), function(x.double()), beta.double(), 1, gate)
        scale = expected.abs().amax((1, 2), keepdim=True)
        for data in (x, x.contiguous(memory_format=torch.channels_last)):
            own = kernel(data, name or function(data), beta, 1, Prepared(gate))
            if own is None:
                return torch.inf
            found.append(((own - expected) / scale).abs().max())
    return float(torch.stack(found).max())
