"""The C++ of the moments, compiled once for this machine.

Any GCC or Clang will do (``CXX``, or else ``c++``, ``g++`` or ``clang++``). The library is kept in
the user's cache folder under a name that tells source, compiler and processor apart.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from acon_analysis.files import atomic_write, user_cache

#: What is compiled, and what it includes.
UNITS = tuple(Path(__file__).with_name(f"{name}.cpp") for name in ("sums", "merge"))
SOURCES = (
    *UNITS,
    *(Path(__file__).with_name(f"{name}.h") for name in ("rows", "vectors")),
)

#: Without regard to NaN and infinity, which the callers hand over to torch.
_FLAGS = (
    "-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math",
    "-fno-signed-zeros", "-ffinite-math-only", "-w",
)  # fmt: skip

#: For this machine's processor: first that a compiler takes.
_TARGETS = (("-march=native",), ("-mcpu=native",), ())


class NativeError(Exception):
    """The compiled kernel cannot be had; the text says why."""


def compiler_path() -> str:
    """Return the path of a compiler; empty if there is none."""
    given = os.environ.get("CXX", "").split()
    for name in given[:1] or ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path:
            return path
    return ""


def library(compiler: str, announce: Callable[[str], None] | None) -> Path:
    """Return the library's path in the cache; compile it if it is not there."""
    source = b"\0".join(path.read_bytes() for path in SOURCES)
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
            command = [compiler, *_FLAGS, *target, "-o", str(made), *map(str, UNITS)]
            try:
                _output(command)
                break
            except NativeError:
                if target == _TARGETS[-1]:
                    raise
        library = made.read_bytes()

    try:
        atomic_write(path, library)
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
