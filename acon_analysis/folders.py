"""Folders that stay the same ones while files in them are written and removed."""

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import IO, cast

#: Neither follow a link instead of a file, nor wait for the other end of a pipe.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

#: Open a folder and nothing else; what systems say of a link or a file in its place.
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NO_FOLDER = (errno.ELOOP, errno.ENOTDIR)

#: Whether the system reaches files through an open folder; Windows does not.
_BY_HANDLE = os.open in os.supports_dir_fd


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` and ``~user`` replaced; as it is for a user there is not."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises a RuntimeError


class Folder:
    """An open folder: the same one, whatever somebody puts where it was.

    Where a system reaches no file through an open folder, its path stands for it. The folder is
    made if need be; a link is refused unless it may be ``linked``.
    """

    def __init__(self, path: Path, *, linked: bool = False, make: bool = True) -> None:
        self.path = path
        self.handle: int | None = None
        if make:
            make_folder(path)
        if not linked and path.is_symlink():
            raise self._no_folder()
        if _BY_HANDLE:
            try:
                self.handle = os.open(path, _FOLDER if linked else _FOLDER | os.O_NOFOLLOW)
            except OSError as error:
                raise (self._no_folder() if error.errno in _NO_FOLDER else error) from None

    def _no_folder(self) -> OSError:
        text = f"{str(self.path)!r} is a link or a file where a folder belongs; remove it"
        return NotADirectoryError(errno.ENOTDIR, text)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            os.close(self.handle)

    def _at(self, name: str) -> str:
        return name if self.handle is not None else str(self.path / name)

    def names(self) -> list[str]:
        """Return the names of what lies in it."""
        with os.scandir(self.path if self.handle is None else self.handle) as entries:
            return [entry.name for entry in entries]

    def open(self, name: str, mode: str, *, private: bool = False) -> IO[bytes]:
        """Open a file for writing; an OSError where there is a link, a pipe or a folder."""

        def opener(_: str, flags: int) -> int:
            mask = 0o600 if private else 0o666
            return os.open(self._at(name), flags | _PLAIN, mask, dir_fd=self.handle)

        path = self.path / name
        try:
            return cast("IO[bytes]", open(path, mode, opener=opener))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                error.filename = str(path)
                raise
            text = f"{str(path)!r} is a link, a pipe or a folder where a file belongs; remove it"
            raise OSError(error.errno, text) from error

    def holds(self, name: str, file: IO[bytes]) -> bool:
        """Say whether a name is that of an open file."""
        try:
            found = os.stat(self._at(name), dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(file.fileno()))

    def move(self, name: str, target: "Folder", new: str) -> None:
        """Rename a file to another, which it replaces."""
        old, handles = self._at(name), (self.handle, target.handle)
        os.replace(old, target._at(new), src_dir_fd=handles[0], dst_dir_fd=handles[1])

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self.handle)

    def sync(self) -> None:
        """Flush the names in it to the disk."""
        if self.handle is not None:
            os.fsync(self.handle)


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it, whose names survive a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
