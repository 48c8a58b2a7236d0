"""The sums of `moment_kernels` in C++ (``moment_sums.cpp``), compiled once for this machine.

Any GCC or Clang will do (``CXX``, or else ``c++``, ``g++`` or ``clang++``). The library is kept in
the user's cache folder under a name that tells source, compiler and processor apart, and is
compared with torch's operators every time it is loaded.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from acon_analysis.placing import place, user_cache
from acon_hooks.moment_kernels import Gate, Guards, over, rows_of, sums, unguarded

SOURCE = Path(__file__).with_name("moment_sums.cpp")

#: Without regard to NaN and infinity, which `NativeSums` hands over to torch.
_FLAGS = (
    "-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math",
    "-fno-signed-zeros", "-ffinite-math-only", "-w",
)  # fmt: skip

#: For this machine's processor: first that a compiler takes.
_TARGETS = (("-march=native",), ("-mcpu=native",), ())

#: Values for each thread below which more threads are not worth their start.
_WORTH = 1 << 17

#: Largest difference from torch's operators, relative to the largest sum of its row.
_TOLERANCE = 1e-5

#: By compiler: the kernel of this process, or why there is none.
_kept: "dict[str, NativeSums | NativeError]" = {}

_POINTER, _INTEGER, _CHOICE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class NativeError(Exception):
    """The compiled kernel cannot be had; the text says why."""


class Prepared:
    """Constants of one call as the compiled kernel reads them.

    Parameters
    ----------
    gate : Gate or None
        None outside the ACON family.
    guards : Guards
        Slope and offsets.
    """

    def __init__(self, gate: Gate | None, guards: Guards) -> None:
        self.rows = len(rows_of(gate))
        self.kind = 0 if gate is None else 1 if gate.reference is None else 2
        offsets = guards.offsets
        zero = torch.zeros_like(guards.slope)
        if gate is None:
            parts = [guards.slope, *offsets, zero, zero]
        else:
            scaled = [offsets[0], *(over(offsets[i], gate.half) for i in (1, 2)), offsets[3]]
            steep = zero if gate.reference is None else gate.reference * gate.half
            parts = [over(gate.middle - guards.slope, gate.half), *scaled, gate.half, steep]
        self.table = torch.stack([part.float() for part in parts]).contiguous()
        self.pointer = self.table.data_ptr()


class NativeSums:
    """The loaded library.

    Parameters
    ----------
    path : Path
        Of the library.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._sums = library.acon_moment_sums
        self._sums.restype = _CHOICE
        self._sums.argtypes = [
            *(_CHOICE, _CHOICE), *(_POINTER,) * 4, *(_INTEGER,) * 4, _POINTER, *(_INTEGER,) * 4,
        ]  # fmt: skip
        self._pieces = library.acon_moment_pieces
        self._pieces.restype = _INTEGER
        self._pieces.argtypes = [_INTEGER, _INTEGER, _CHOICE]

    def sums(
        self, x: Tensor, y: Tensor, beta: Tensor | None, axis: int, constants: Prepared
    ) -> Tensor | None:
        """Sum over the pixels of each sample and channel, as `moment_kernels.sums` does.

        Parameters
        ----------
        x, y : Tensor
            Input and output on the CPU, samples on axis 0, channels on `axis`.
        beta : Tensor or None
            (N or 1, C or 1, 1); for the ACON family.
        axis : int
            Channel axis.
        constants : Prepared
            Of the call.

        Returns
        -------
        Tensor or None
            (`rows_of(gate)`, N, C), float64; None where the compiled kernel does not apply
            (float64, one pixel a sample, β of every pixel) or a sum is not finite.
        """
        samples, channels = x.shape[0], x.shape[axis]
        pixels = x.numel() // max(samples * channels, 1)
        if pixels < 2 or x.dtype == torch.float64 or x.device.type != "cpu":
            return None
        if beta is not None and beta.shape[2] > 1:
            return None
        last = x.stride(axis) == 1 and channels > 1
        x = _laid_out(x, axis, last=last)
        y = _laid_out(y, axis, last=last) if constants.kind == 0 else x
        beta_pointer, steps = None, (0, 0)
        if beta is not None and constants.kind:
            beta = beta[:, :, 0].float()
            steps = (
                beta.stride(0) if beta.shape[0] > 1 else 0,
                beta.stride(1) if beta.shape[1] > 1 else 0,
            )
            beta_pointer = beta.data_ptr()
        out = torch.empty((constants.rows, samples, channels), dtype=torch.float64)
        given = (
            constants.kind, last, x.data_ptr(), y.data_ptr(), constants.pointer, beta_pointer,
            *steps, channels, pixels, out.data_ptr(), samples * channels, channels,
        )  # fmt: skip
        pieces = self._pieces(samples, channels, last)
        parts = min(torch.get_num_threads(), x.numel() // _WORTH, pieces)
        if parts < 2:
            return out if self._sums(*given, 0, pieces) else None
        cuts = [pieces * part // parts for part in range(parts + 1)]
        found = _pool(parts).map(lambda span: self._sums(*given, *span), pairwise(cuts))
        return out if all(list(found)) else None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "moments")


def _laid_out(x: Tensor, axis: int, *, last: bool) -> Tensor:
    """Return (N, C, ...) or, with `last`, (N, ..., C) without gaps in float32."""
    if x.ndim > 2 and axis != (x.ndim - 1 if last else 1):
        x = x.movedim(axis, -1 if last else 1)
    return x.float().contiguous()


def native(announce: Callable[[str], None] | None = None) -> NativeSums:
    """Return the compiled kernel; compile it if this machine has not yet.

    Parameters
    ----------
    announce : callable, optional
        Gets one sentence before it is compiled.

    Raises
    ------
    NativeError
        If it cannot be compiled, loaded, or sums otherwise than torch does.
    """
    compiler = _compiler()
    if compiler not in _kept:
        try:
            if not compiler:
                raise NativeError("there is no C++ compiler (CXX, c++, g++ or clang++)")
            _kept[compiler] = _load(_library(compiler, announce))
        except NativeError as error:
            _kept[compiler] = error
    found = _kept[compiler]
    if isinstance(found, NativeError):
        raise NativeError(str(found))
    return found


def _compiler() -> str:
    """Return the path of a compiler; empty if there is none."""
    given = os.environ.get("CXX", "").split()
    for name in given[:1] or ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path:
            return path
    return ""


def _library(compiler: str, announce: Callable[[str], None] | None) -> Path:
    """Return the library's place in the cache; compile it if it is not there."""
    source = SOURCE.read_bytes()
    about = "\0".join((compiler, _output([compiler, "--version"]), _processor(), *_FLAGS))
    digest = hashlib.sha256(source + about.encode()).hexdigest()[:16]
    path = user_cache() / f"moments-{digest}.so"
    if path.is_file():
        return path
    if announce is not None:
        announce("compiling the kernel of moments, once on this machine (some seconds)")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        for target in _TARGETS:
            command = [compiler, *_FLAGS, *target, "-o", str(made), str(SOURCE)]
            try:
                _output(command)
                break
            except NativeError:
                if target == _TARGETS[-1]:
                    raise
        library = made.read_bytes()

    def write(file: IO[bytes]) -> None:
        file.write(library)

    try:
        place(path, write)
    except OSError as error:
        raise NativeError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    return path


def _output(command: list[str]) -> str:
    """Run a compiler; return what it prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeError(f"{command[0]!r} does not run: {error}") from error
    if done.returncode:
        said = next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        raise NativeError(f"{command[0]!r} failed: {said[:200]}")
    return done.stdout


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^(?:flags|Features)\s*:.*$", text, re.MULTILINE)
    return f"{platform.machine()} {platform.processor()} {found[0] if found else ''}"


def _load(path: Path) -> NativeSums:
    """Load the library and compare it with torch's operators."""
    try:
        kernel = NativeSums(path)
    except (OSError, AttributeError) as error:
        raise NativeError(f"{str(path)!r} cannot be loaded: {error}") from error
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        x = torch.randn(2, 21, 90, generator=generator)
        half, beta = (torch.rand(*s, generator=generator) + 0.1 for s in ((21,), (2, 21, 1)))
        flat = unguarded(21, x.device)
        guards = Guards(flat.slope + 0.3, flat.offsets + 0.2, torch.arange(21))
        for gate in (None, Gate(half, half, None), Gate(half, half, half + 0.5)):
            expected = sums(x.double(), x.double().relu(), beta.double(), 1, gate, guards)
            scale = expected.abs().amax((1, 2), keepdim=True)
            for data in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
                found = kernel.sums(data, data.relu(), beta, 1, Prepared(gate, guards))
                if found is None or float(((found - expected) / scale).abs().max()) > _TOLERANCE:
                    raise NativeError("the compiled kernel sums otherwise than torch does")
    return kernel
