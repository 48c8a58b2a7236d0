"""The C++ of the moments, compiled once for this machine.

Any GCC or Clang will do (``CXX``, or else ``c++``, ``g++`` or ``clang++``). The library is kept in
the user's cache folder, if that is the user's alone, under a name that differs between sources,
compilers and processors.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from acon_analysis.files import is_own_file, keep_private, private_cache, shared_by

#: What is compiled, and what it includes.
UNITS = tuple(Path(__file__).with_name(f"{name}.cpp") for name in ("sums", "merge"))
_HEADERS = ("rows", "vectors", "tangent", "functions", "results", "threads")
SOURCES = (*UNITS, *(Path(__file__).with_name(f"{name}.h") for name in _HEADERS))


def _source() -> bytes:
    return b"\0".join(path.read_bytes() for path in SOURCES)


#: What the Python that was imported with it can call.
_SOURCE = _source()

#: Without regard to NaN and infinity, which the callers hand over to torch.
_FLAGS = (
    "-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math",
    "-fno-signed-zeros", "-ffinite-math-only", "-w",
)  # fmt: skip

#: For this machine's processor: first that a compiler takes.
_TARGETS = (("-march=native",), ("-mcpu=native",), ())


class NativeError(Exception):
    """The compiled kernel cannot be had; the text says why."""


def compiler_path() -> str:
    """Return the absolute path of a compiler, or ""; relative folders of ``PATH`` do not count."""
    given = os.environ.get("CXX", "").split()
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if Path(folder).is_absolute())
    for name in given[:1] or ("c++", "g++", "clang++"):
        if found := shutil.which(name, path=path):
            return str(Path(found).absolute())
    return ""


@contextmanager
def library(compiler: str, announce: Callable[[str], None] | None) -> Iterator[Path]:
    """Yield the library's path: cached, if its name holds its SHA-256, or compiled now."""
    folder, name = private_cache(), f"moments-{_digest(compiler)}"
    kept = () if folder is None else (p for p in folder.glob(f"{name}-*.so") if _is_sound(p))
    path = next(iter(kept), None)
    if path is not None:
        yield path
        return
    if _source() != _SOURCE:  # its functions may take other arguments
        raise NativeError("the package was changed while this process ran: start it again")
    if announce is not None:
        often = "once on this machine" if folder is not None else "for this process"
        announce(f"compiling the kernel of moments, {often} (some seconds)")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / f"{name}.so"
        if why := shared_by(made.parent):
            raise NativeError(f"the temporary folder {scratch!r} is not safe: {why}")
        _compile(compiler, made)
        content = made.read_bytes()
        if folder is not None:
            path = folder / f"{name}-{hashlib.sha256(content).hexdigest()}.so"
        yield path if path is not None and keep_private(path, content) else made


def _digest(compiler: str) -> str:
    """Return what differs between libraries of other sources, compilers and processors."""
    about = "\0".join((compiler, _output([compiler, "--version"]), _processor(), *_FLAGS))
    return hashlib.sha256(_SOURCE + about.encode()).hexdigest()[:16]


def _is_sound(path: Path) -> bool:
    """Whether a kept library is this user's and holds what its name says."""
    own = is_own_file(path)
    return own and path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest())


def _compile(compiler: str, made: Path) -> None:
    """Compile the library, for this machine's processor if the compiler can."""
    for target in _TARGETS:
        command = [compiler, *_FLAGS, *target, "-o", str(made), *map(str, UNITS)]
        try:
            _output(command)
            return
        except NativeError:
            if target == _TARGETS[-1]:
                raise


def _output(command: list[str]) -> str:
    """Run a compiler, outside the working folder; return what it prints."""
    own = Path(__file__).parent  # where relative folders of CPATH and the like lead
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, cwd=own
        )
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
