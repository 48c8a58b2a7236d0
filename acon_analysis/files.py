"""Files that are written whole or not at all, locks between processes, the cache folder.

A writer holds a lock on its temporary file while it writes. The kernel releases the locks of a
killed process, so a stale temporary file is one that can be locked. Where a file system knows no
locks, age decides.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import platformdirs

from acon_analysis.errors import StoreError, UsageError
from acon_analysis.folders import Folder, expanded, sync_folder

if TYPE_CHECKING:
    import pandas as pd

#: Age in seconds from which a temporary file is stale where the file system knows no locks.
GRACE_WITHOUT_LOCKS = 3600.0

#: Seconds that a process waits for a lock before it says so.
SILENCE = 5.0

#: Endings of temporary files and of locks; no other file is ever taken for one.
PART, LOCK = ".part", ".lock"

#: Text that begins so is a formula for a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

#: Controls, the ends of lines and paragraphs, what turns the direction of writing, half characters.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class CacheWarning(UserWarning):
    """The cache folder is not used; the text says why."""


class WaitingWarning(UserWarning):
    """Another process holds a lock for long."""


def write_csv(folder: Path, tables: "Mapping[str, pd.DataFrame]") -> list[Path]:
    """Write each table to ``NAME.csv`` in a folder, which is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        atomic_write(folder / f"{name}.csv", csv_text(table).encode())
    return [folder / f"{name}.csv" for name in tables]


def csv_text(frame: "pd.DataFrame", float_format: str | None = None) -> str:
    """Return a frame as CSV, without its index.

    Text, names of columns too, that a spreadsheet would take for a formula is preceded by an
    apostrophe. ``float_format`` is such as ``"%.7g"``; by default all digits.
    """
    safe = frame.copy()
    for name in safe.columns:
        if safe[name].dtype.kind not in "biufc":
            safe[name] = [_inert(value) for value in safe[name]]
    safe.columns = [_inert(str(name)) for name in safe.columns]
    return safe.to_csv(index=False, float_format=float_format, lineterminator="\n")


def _inert(value: Any) -> Any:
    """Put an apostrophe before a formula, and spell what would begin a row or move a cursor."""
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(FORMULA) else "") + spelled(value)


def spelled(text: str) -> str:
    """Return a text with its control characters, but line breaks and tabs, as their codes."""
    return _CONTROLS.sub(lambda found: _code(ord(found[0])), text)


def _code(number: int) -> str:
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def user_cache() -> Path:
    """Return this project's cache folder; it need not exist.

    ``ACON_CACHE`` if it is set, otherwise ``acon-analysis`` in the user's cache folder
    (``XDG_CACHE_HOME``, or the system's own). `private_cache` refuses a relative one.
    """
    own = os.environ.get("ACON_CACHE")
    if own:
        return expanded(own)
    return platformdirs.user_cache_path("acon-analysis", appauthor=False, opinion=False)


def private_cache(name: str = "") -> Path | None:
    """Return the cache folder, or a folder in it, made if need be.

    None, after a `CacheWarning`, where it cannot be made, or where somebody else could put
    something into it or exchange it: what is in a cache is believed. A relative one could lie in
    a folder that somebody else has filled.
    """
    folder = user_cache() / name
    try:
        relative = "" if folder.is_absolute() else "its path is relative, not absolute"
        why = relative or _make_private(folder) or shared_by(folder)
    except OSError as error:
        why = f"it cannot be made ({error.strerror or error})"
    if why:
        warn_of_cache(folder, why)
        return None
    return folder


def warn_of_cache(folder: Path, why: str) -> None:
    """Warn, once for each reason, that a cache folder is not used."""
    text = f"the cache folder {str(folder)!r} is not used: {why}; ACON_CACHE names another one"
    warnings.warn(text, CacheWarning, stacklevel=1)


def keep_private(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> bool:
    """Write a file of a private cache; False, after a `CacheWarning`, where that is refused."""
    try:
        atomic_write(path, content, private=True)
    except OSError as error:
        warn_of_cache(path.parent, f"it cannot be written to ({error.strerror or error})")
        return False
    return True


def is_own_file(path: Path) -> bool:
    """Whether a path is a regular file, no link, that this user owns and nobody else can write."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and not _not_mine(state)


def shared_by(folder: Path) -> str:
    """Say who else could write to a folder or exchange it; empty if only this user could.

    Every folder above must belong to this user or to root and be writable by nobody else; in one
    with the sticky bit (``/tmp``) others cannot exchange what is not theirs.
    """
    return _not_mine(folder.stat()) or _exchangeable(folder)


def _make_private(folder: Path) -> str:
    """Create a folder, and those above it, each in one that others cannot exchange; say why not."""
    if folder.is_dir():
        return _exchangeable(folder / "new")
    why = _make_private(folder.parent)
    if not why:
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
        why = _exchangeable(folder / "new")
    return why


def _exchangeable(path: Path) -> str:
    """Say who else could exchange a path, or a folder or link on the way; empty if nobody."""
    if sys.platform == "win32":
        return ""
    for step in _steps(path):
        state = step.lstat()
        link, sticky = stat.S_ISLNK(state.st_mode), state.st_mode & stat.S_ISVTX
        if state.st_uid not in (0, os.geteuid()):
            return f"{str(step)!r} belongs to another user"
        if state.st_mode & 0o022 and not (link or sticky or _of_own_group(step, state)):
            return f"others can write to {str(step)!r}"
    return ""


def _not_mine(state: os.stat_result) -> str:
    """Say why a file or folder is not this user's alone; empty if it is."""
    if sys.platform == "win32":  # profiles are private there
        return ""
    if state.st_uid != os.geteuid():
        return "it belongs to another user"
    return "others can write to it (chmod go-w forbids that)" if state.st_mode & 0o022 else ""


def _steps(path: Path) -> Iterator[Path]:
    """Yield the folders above a path and the links on the way, those behind links too."""
    for step in (path, *path.parents):
        if step != path or step.is_symlink():
            yield step
        if step.is_symlink():
            yield from _steps(Path(os.path.normpath(step.parent / step.readlink())))


def _of_own_group(path: Path, state: os.stat_result) -> bool:
    """Whether a folder is writable for a group of the same name as its owner, alone in it."""
    try:
        return not state.st_mode & 0o002 and path.owner() == path.group()
    except KeyError:
        return False


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Convert an OSError (disk full, read-only, no permission) to a StoreError of one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{what}: {reason}; what is finished stays valid") from error


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; an OSError where there is a pipe or a device, which could wait.

    A file of no size reads as empty: those of ``/proc`` have none, and may wait or never end.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb")
    state = os.fstat(handle)
    if stat.S_ISREG(state.st_mode) and state.st_size:
        return file
    file.close()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return Path(os.devnull).open("rb")


def read_regular(path: Path, most: int = 2**28) -> bytes:
    """Return the bytes of a regular file; a StoreError for more than ``most``."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise StoreError(f"{str(path)!r} has more than {most:,} bytes")
    return content


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a temporary folder, gone afterwards; a UsageError where others could exchange it."""
    with tempfile.TemporaryDirectory() as folder:
        if why := shared_by(Path(folder)):
            raise UsageError(f"the temporary folder {folder!r} is not safe: {why}; set TMPDIR")
        yield Path(folder)


def atomic_write(
    path: Path,
    content: bytes | Callable[[IO[bytes]], object],
    scratch: Path | None = None,
    *,
    private: bool = False,
) -> str:
    """Write a file so that it is there whole or not at all, even after a power cut; return SHA-256.

    ``content`` is bytes, or a function that writes to an open file. ``scratch`` is a folder next to
    the file or to its folder, for the temporary file; then neither folder may be a link. By default
    the temporary file lies next to the file. Others may neither read nor write a ``private`` file,
    whatever the umask says.
    """
    linked = scratch is None or path.parent == scratch.parent
    with (
        Folder(path.parent, linked=linked) as target,
        _temporary(scratch or path.parent, path.stem, scratch is None, private) as opened,
    ):
        folder, name, file = opened
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = hashlib.file_digest(cast("BufferedRandom", file), "sha256").hexdigest()
        folder.move(name, target, path.name)
        target.sync()
    return digest


def remove_file(path: Path) -> None:
    """Remove a file, if there is one, in a folder that may not be a link."""
    with contextlib.suppress(FileNotFoundError), Folder(path.parent, make=False) as folder:
        folder.remove(path.name)


@contextlib.contextmanager
def _temporary(
    path: Path, stem: str, linked: bool, private: bool
) -> Iterator[tuple[Folder, str, IO[bytes]]]:
    """Open a new file, locked; it is removed unless it has been renamed by then."""
    while True:
        name = f".{stem[:20]}-{secrets.token_hex(8)}{PART}"
        with _opened(path, name, "x+b", linked=linked, private=private) as (folder, file):
            try:
                _try_lock(file)
                if folder.holds(name, file):  # otherwise taken for stale before it was locked
                    yield folder, name, file
                    return
            finally:
                folder.remove(name)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, a file, between processes and threads; the lock of a killed process is free.

    Where the file system knows no locks, nothing is held: work may then be done twice, so it must
    do no harm to do it twice. Its folder may not be a link.
    """
    while True:
        with _opened(path.parent, path.name, "ab") as (folder, file):
            _wait_for(path, file)
            if not folder.holds(path.name, file):  # the holder before has removed this lock's file
                continue
            try:
                yield
            finally:
                folder.remove(path.name)
            return


def _wait_for(path: Path, file: IO[bytes]) -> None:
    """Lock an open file; warn if another process holds it for long."""
    began = time.monotonic()
    while _try_lock(file) is False:
        if time.monotonic() - began > SILENCE:
            text = f"waiting for another process, which holds {str(path)!r}"
            warnings.warn(text, WaitingWarning, stacklevel=2)
            _try_lock(file, wait=True)
            return
        time.sleep(0.02)


def remove_stale_files(path: Path) -> None:
    """Remove the temporary files and locks of killed processes, and the folder if it ends empty.

    Nothing is removed through a link, nor in a folder that is put there meanwhile.
    """
    with contextlib.suppress(OSError):
        with Folder(path, make=False) as folder:
            for name in folder.names():
                if name.endswith((PART, LOCK)):
                    _remove_stale(folder, name)
        path.rmdir()


def _remove_stale(folder: Folder, name: str) -> None:
    """Remove a file that no process holds."""
    with contextlib.suppress(OSError), folder.open(name, "r+b") as file:
        held = _try_lock(file)
        age = time.time() - os.fstat(file.fileno()).st_mtime
        if held or (held is None and age >= GRACE_WITHOUT_LOCKS):
            folder.remove(name)


def _try_lock(file: IO[bytes], *, wait: bool = False) -> bool | None:
    """Lock an open file; False if another process holds it, None where locks are unknown."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def _opened(
    path: Path, name: str, mode: str, *, linked: bool = False, private: bool = False
) -> Iterator[tuple[Folder, IO[bytes]]]:
    """Open a file in a folder that other processes may remove while it is empty."""
    for last in (*[False] * 100, True):
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(Folder(path, linked=linked))
                file = stack.enter_context(folder.open(name, mode, private=private))
            except FileNotFoundError:
                if last:
                    raise
                continue
            yield folder, file
            return
