"""Files that are written whole or not at all, locks between processes, stale temporary files.

Every writer keeps an exclusive lock on its temporary file while it writes. The kernel drops the
locks of a killed process, which distinguishes its stale files from those of a living one. Where a
file system has no locks, the age of the file decides.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path
from typing import IO, cast

from acon_analysis.errors import StoreError

#: Seconds after which a temporary file without a living writer is taken for a leftover.
GRACE = 10.0

#: The same where the file system knows no locks.
GRACE_WITHOUT_LOCKS = 3600.0


def user_cache() -> Path:
    """Return this project's cache folder; it need not exist.

    ``ACON_CACHE`` if it is set, otherwise ``acon-analysis`` in the user's cache folder
    (``XDG_CACHE_HOME``, or what the system has for it).
    """
    own = os.environ.get("ACON_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        base = Path(given)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "acon-analysis"


@contextlib.contextmanager
def readable_io(what: str) -> Iterator[None]:
    """Convert OSError (disk full, read-only, no permission) to StoreError, one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{what}: {reason}; what is finished stays valid") from error


def atomic_write(
    path: Path, write: Callable[[IO[bytes]], None], scratch: Path | None = None
) -> str:
    """Write a file so that it is there whole or not at all, even after a power cut.

    Parameters
    ----------
    path : Path
        Of the file.
    write : callable
        Called with an open binary file.
    scratch : Path, optional
        Folder on the same file system for the temporary file; by default the file's own.

    Returns
    -------
    str
        SHA-256 of what was written.
    """
    _make_folder(path.parent)
    with _temporary(path, scratch or path.parent) as (file, temporary):
        write(file)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = hashlib.file_digest(cast("BufferedRandom", file), "sha256").hexdigest()
        temporary.replace(path)
    _sync_folder(path.parent)
    return digest


@contextlib.contextmanager
def _temporary(path: Path, scratch: Path) -> Iterator[tuple[IO[bytes], Path]]:
    for attempt in range(3):
        _make_folder(scratch)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=scratch)
            break
        except FileNotFoundError:  # another process has just tidied the folder away
            if attempt == 2:
                raise
    temporary = Path(name)
    try:
        with os.fdopen(handle, "r+b") as file:
            try_lock(file)
            temporary.chmod(0o666 & ~_UMASK)
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create a folder; its name must survive a power cut as well."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def try_lock(file: IO[bytes], *, wait: bool = False) -> bool | None:
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
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes, by a file of this name; a killed holder's lock is void.

    Where the file system has no locks, nothing is held: callers must then at worst do work twice.

    Parameters
    ----------
    path : Path
        Created, and removed afterwards.
    """
    with contextlib.ExitStack() as stack:
        while True:
            _make_folder(path.parent)
            try:
                file = stack.enter_context(path.open("ab"))
            except FileNotFoundError:
                continue
            try_lock(file, wait=True)
            # The holder before may have removed the file that this lock is on.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    break
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def clear_leftovers(scratch: Path, grace: float = GRACE) -> None:
    """Remove stale temporary files of killed processes; those of living ones stay.

    Parameters
    ----------
    scratch : Path
        Folder of temporary files; removed if it ends empty.
    grace : float
        Seconds for which every file is left alone.
    """
    if not scratch.is_dir():
        return
    for entry in scratch.iterdir():
        with contextlib.suppress(OSError):
            age = time.time() - entry.stat().st_mtime
            if age >= grace:
                with entry.open("r+b") as file:
                    held = try_lock(file)
                    if held or (held is None and age >= GRACE_WITHOUT_LOCKS):
                        entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        scratch.rmdir()


def _read_umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


# Read once: there is no way to ask without setting it, which threads would notice.
_UMASK = _read_umask()
