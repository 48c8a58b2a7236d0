"""Files that are written whole or not at all, locks between processes, the cache folder.

A writer holds a lock on its temporary file while it writes. The kernel releases the locks of a
killed process, so a stale temporary file is one that can be locked. Where a file system knows no
locks, age decides.
"""

import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import platformdirs

from acon_analysis.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

#: Seconds after which a temporary file that nobody has locked is stale.
GRACE = 10.0

#: The same where the file system knows no locks.
GRACE_WITHOUT_LOCKS = 3600.0

#: Text that begins so is a formula for a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(frame: "pd.DataFrame", float_format: str | None = None) -> str:
    """Return a frame as CSV.

    Parameters
    ----------
    frame : DataFrame
        Its index is left out.
    float_format : str, optional
        Such as ``"%.7g"``; by default all digits.

    Returns
    -------
    str
        Text that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    safe = frame.copy()
    for name in safe.columns:
        if safe[name].dtype.kind not in "biufc":
            safe[name] = [_inert(value) for value in safe[name]]
    return safe.to_csv(index=False, float_format=float_format, lineterminator="\n")


def _inert(value: Any) -> Any:
    """Put an apostrophe before a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def user_cache() -> Path:
    """Return this project's cache folder; it need not exist.

    ``ACON_CACHE`` if it is set, otherwise ``acon-analysis`` in the user's cache folder
    (``XDG_CACHE_HOME``, or the system's own).
    """
    own = os.environ.get("ACON_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    return platformdirs.user_cache_path("acon-analysis", appauthor=False, opinion=False)


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Convert an OSError (disk full, read-only, no permission) to a StoreError of one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{what}: {reason}; what is finished stays valid") from error


def atomic_write(
    path: Path, content: bytes | Callable[[IO[bytes]], object], scratch: Path | None = None
) -> str:
    """Write a file so that it is there whole or not at all, even after a power cut.

    Parameters
    ----------
    path : Path
        The file; its folder is created, an existing file is replaced.
    content : bytes or callable
        What to write, or a function that writes it to an open file.
    scratch : Path, optional
        Folder on the same file system for the temporary file; by default the file's own.

    Returns
    -------
    str
        SHA-256 of what was written.
    """
    _make_folder(path.parent)
    temporary = (scratch or path.parent) / f".{path.stem}-{secrets.token_hex(8)}.part"
    try:
        with _opened(temporary, "x+b") as file:
            _try_lock(file)
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(cast("BufferedRandom", file), "sha256").hexdigest()
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return digest


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes and threads; the lock of a killed process is free.

    Where the file system knows no locks, nothing is held: work may then be done twice, so it must
    do no harm to do it twice.

    Parameters
    ----------
    path : Path
        Name of the lock: a file that is created, and removed afterwards.
    """
    while True:
        with _opened(path, "ab") as file:
            _try_lock(file, wait=True)
            if not _names(path, file):  # the holder before has removed what this lock is on
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def remove_stale_files(folder: Path, grace: float = GRACE) -> None:
    """Remove the temporary files and locks of killed processes.

    Parameters
    ----------
    folder : Path
        Folder of temporary files; removed if it ends empty.
    grace : float
        Age in seconds below which every file stays.
    """
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            age = time.time() - entry.stat().st_mtime
            if age >= grace:
                with entry.open("r+b") as file:
                    held = _try_lock(file)
                    if held or (held is None and age >= GRACE_WITHOUT_LOCKS):
                        entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


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


def _names(path: Path, file: IO[bytes]) -> bool:
    """Say whether a path is that of an open file."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _opened(path: Path, mode: str) -> IO[bytes]:
    """Open a file in a folder that other processes may remove while it is empty."""
    for _ in range(100):
        _make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):
            return cast("IO[bytes]", path.open(mode))
    return cast("IO[bytes]", path.open(mode))


def _make_folder(folder: Path) -> None:
    """Create a folder whose name survives a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
