"""One foreign file, opened once and never by a name that stands in a file."""

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from acon_analysis.errors import closest
from acon_analysis.models.checkpoints.errors import Refusal
from acon_analysis.models.checkpoints.limits import Limits

CHUNK = 4 * 2**20
CHANGED = "it changed while it was read; try again when it is complete"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
#: First bytes of files that are often taken for a checkpoint, with what to do about them.
_FOREIGN = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file it points to; run `git lfs pull`, or download the file",
    ),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it first"),
    (b"7z\xbc\xaf'\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras?); only PyTorch checkpoints can be read"),
    (b"\x93NUMPY", "a NumPy array; only PyTorch checkpoints can be read"),
    (b"PK\x05\x06", "an empty zip archive"),
)


class Source:
    """A regular file that is not too large, open for reading; links are followed."""

    def __init__(self, path: str | os.PathLike[str], limits: Limits) -> None:
        self.path = Path(path)
        # A pipe would block on opening, a device may act on it: look first, open without waiting.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._require_regular(self.path.stat())
            self._file = os.fdopen(os.open(self.path, flags), "rb", buffering=0)
        except (OSError, ValueError) as error:
            raise Refusal(self._why_not(error)) from None
        try:
            self._state = os.fstat(self._file.fileno())
            self._require_regular(self._state)
            self.size = self._state.st_size
            self._require_size(limits)
            self.head = self.read(0, min(self.size, 2048))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @staticmethod
    def _require_regular(state: os.stat_result) -> None:
        if not stat.S_ISREG(state.st_mode):
            kind = next((text for test, text in _KINDS if test(state.st_mode)), "a special file")
            raise Refusal(f"it is {kind}, expected a checkpoint file")

    def _require_size(self, limits: Limits) -> None:
        if self.size == 0:
            raise Refusal("it is empty (0 bytes); the download or the copy probably failed")
        if self.size > limits.file_bytes:
            raise Refusal(
                f"it has {self.size:,} bytes, more than the {limits.file_bytes:,} that are read; "
                "save the state dict alone, without the optimizer"
            )

    def _why_not(self, error: OSError | ValueError) -> str:
        match error:
            case FileNotFoundError():
                return f"there is no such file{self._neighbours()}"
            case PermissionError():
                return "it may not be read (permission denied)"
            case OSError(errno=errno.ELOOP):
                return "its symbolic links lead in a circle"
            case OSError():
                return f"it cannot be opened ({error.strerror or error})"
        return f"this is not a file name ({error})"

    def _neighbours(self) -> str:
        try:
            names = os.listdir(self.path.parent)[:1000]  # noqa: PTH208 - an iterator may stay open
        except (OSError, ValueError):
            return ""
        near = closest(self.path.name, sorted(names))
        return f"; {near}" if near.startswith("did you mean") else ""

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on."""
        parts, left = [], count
        try:
            self._file.seek(offset)
            while left > 0:
                part = self._file.read(left)
                if not part:
                    raise Refusal("it became shorter while it was read")
                parts.append(part)
                left -= len(part)
        except OSError as error:
            raise Refusal(f"it cannot be read ({error.strerror or error})") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self, offset: int, count: int) -> Iterator[bytes]:
        """Yield the bytes of a range, 4 MiB at a time."""
        for start in range(offset, offset + count, CHUNK):
            yield self.read(start, min(CHUNK, offset + count - start))

    def crc32(self, offset: int, count: int) -> int:
        """Return the CRC-32 of a range of bytes."""
        value = 0
        for chunk in self.chunks(offset, count):
            value = zlib.crc32(chunk, value)
        return value

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file, in hexadecimal digits."""
        digest = hashlib.sha256()
        for chunk in self.chunks(0, self.size):
            digest.update(chunk)
        return digest.hexdigest()

    def copy_to(self, path: Path) -> Path:
        """Write the open file, whatever its name leads to by now, to a new file; return that."""
        try:
            with path.open("xb") as file:
                for chunk in self.chunks(0, self.size):
                    file.write(chunk)
        except OSError as error:
            why = error.strerror or error
            raise Refusal(f"it cannot be copied into the cache folder ({why})") from None
        return path

    def require_unchanged(self) -> None:
        """Raise a Refusal if the file was written to, or replaced, since it was opened."""
        try:
            states = (os.fstat(self._file.fileno()), self.path.stat())
        except OSError as error:
            raise Refusal(f"it vanished while it was read ({error.strerror})") from None
        for now in states:
            for field in ("st_dev", "st_ino", "st_size", "st_mtime_ns"):
                if getattr(now, field) != getattr(self._state, field):
                    raise Refusal(CHANGED)


def foreign(head: bytes) -> str | None:
    """Return what a file is that is no checkpoint, by its first bytes; None if unknown."""
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            return what
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return (
            "an HTML page saved under this name, not a checkpoint; the download gave a web page "
            "(a login, a quota or a 'not found' notice), download the file again"
        )
    if text.startswith(b"<?xml"):
        return "an XML answer saved under this name; the download failed, download the file again"
    if text.startswith((b"{", b"[")) and _printable(head):
        return "JSON text, not a checkpoint"
    return "a text file, not a checkpoint" if _printable(head) else None


def _printable(head: bytes) -> bool:
    controls = set(range(32)) - set(b"\t\n\r\f\x1b")
    return not controls.intersection(head)
