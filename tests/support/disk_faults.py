"""A disk that fails at an open, write, fsync, rename or new folder, for tests."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from unittest import mock

from acon_analysis.folders import Folder

CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES)


class Disk:
    """Counts what is asked of it, and fails at one, or from it on; None: never."""

    def __init__(self, at: int | None, code: int = errno.ENOSPC, *, forever: bool = False) -> None:
        self.at, self.code, self.forever = at, code, forever
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def request(self, what: str) -> None:
        """Note a request; raise where it is to fail."""
        with self._lock:
            number = len(self.asked)
            self.asked.append(what)
        if self.at is not None and (number == self.at or (self.forever and number > self.at)):
            raise OSError(self.code, os.strerror(self.code))


class _File:
    """A file whose writes can fail."""

    def __init__(self, file: IO[bytes], disk: Disk) -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        """Write, or fail."""
        self._disk.request("write")
        return self._file.write(content)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def failing(disk: Disk) -> Iterator[Disk]:
    """Let this project's own writing go through a disk."""
    opened, fsync = Folder.open, os.fsync
    move, mkdir = Folder.move, Path.mkdir

    def open_file(folder: Folder, name: str, mode: str, *, private: bool = False) -> Any:
        disk.request("open")
        return _File(opened(folder, name, mode, private=private), disk)

    def sync(handle: int) -> None:
        disk.request("fsync")
        fsync(handle)

    def rename(folder: Folder, name: str, target: Folder, new: str) -> None:
        disk.request("rename")
        move(folder, name, target, new)

    def make(path: Path, *args: Any, **options: Any) -> None:
        disk.request("mkdir")
        mkdir(path, *args, **options)

    with (
        mock.patch.object(Folder, "open", open_file),
        mock.patch.object(os, "fsync", sync),
        mock.patch.object(Folder, "move", rename),
        mock.patch.object(Path, "mkdir", make),
    ):
        yield disk
