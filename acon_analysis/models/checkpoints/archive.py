"""Reads the directory of a torch zip archive, strictly: what torch writes and nothing else.

Two readers that disagree about an archive are how a checked file turns into another one. So there
is one directory, at the end, without gaps; every local header says what the directory says; names
are unique even without regard to case; nothing is compressed and nothing overlaps. (Python's
zipfile compares nothing but names, and follows a 64-bit directory that says something else.)
"""

import struct
from typing import Any, NamedTuple

from acon_analysis.models.checkpoints.errors import Refusal, show
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.source import Source

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_HAS_DESCRIPTOR = 1 << 3


class Entry(NamedTuple):
    """A stored file: where its local header and its bytes begin, their number, their CRC-32."""

    header: int
    offset: int
    size: int
    crc: int


def read_directory(source: Source, limits: Limits) -> dict[str, Entry]:
    """Return the entries of a torch zip archive by name, without the folder all share."""
    start, size, count = _find_directory(source, limits)
    directory = source.read(start, size)
    position, entries = 0, list[tuple[str, Entry]]()
    for _ in range(count):
        if position + _CENTRAL.size > size:
            raise Refusal("its zip directory is cut off")
        fields = _CENTRAL.unpack_from(directory, position)
        begin = position + _CENTRAL.size
        position = begin + sum(fields[10:13])  # name, extra field, comment
        entries.append(_entry(source, start, fields, directory[begin : begin + fields[10]]))
    if position != size:
        raise Refusal("its zip directory does not hold as many entries as it says")
    _require_apart(entries)
    return _named(entries)


def _find_directory(source: Source, limits: Limits) -> tuple[int, int, int]:
    """Return offset, size and number of entries of the directory."""
    end = source.size - _END.size
    if end < 0:
        raise Refusal("its zip archive is cut off; download it again")
    fields = _END.unpack(source.read(end, _END.size))
    magic, disk, first_disk, here, count, size, start, comment = fields
    if magic != b"PK\x05\x06" or comment:
        raise Refusal(
            "its zip archive has no directory at the end: it is cut off or has something appended; "
            "download it again"
        )
    finish = _require_same_in_zip64(source, end, (count, size, start))
    if disk or first_disk or here != count:
        raise Refusal("its zip archive is split over several files")
    if count > limits.tensors or size > limits.header_bytes:
        raise Refusal(f"its zip archive has {count:,} entries ({size:,} bytes of names), too many")
    if count == 0 or start + size != finish:
        raise Refusal("its zip directory is not where it says")
    return start, size, count


def _require_same_in_zip64(source: Source, end: int, expected: tuple[int, int, int]) -> int:
    """Return where the directory has to end; torch repeats its offset in a 64-bit record."""
    at = end - _LOCATOR64.size
    if at < 0 or source.read(at, 4) != b"PK\x06\x07":
        return end
    _, disk, offset, disks = _LOCATOR64.unpack(source.read(at, _LOCATOR64.size))
    if disk or disks > 1 or offset != at - _END64.size or offset < 0:
        raise Refusal("its zip archive has a 64-bit directory that is not where it says")
    record = _END64.unpack(source.read(offset, _END64.size))
    if record[:2] != (b"PK\x06\x06", _END64.size - 12) or record[4:6] != (0, 0):
        raise Refusal("its zip archive has a damaged 64-bit directory")
    if record[6] != record[7] or record[7:] != expected:
        raise Refusal("its two zip directories contradict each other")
    return int(offset)


def _entry(
    source: Source, directory: int, fields: tuple[Any, ...], raw: bytes
) -> tuple[str, Entry]:
    """Check an entry of the directory against its local header."""
    magic, _, _, flags, method, _, _, crc, packed, size, *_, header = fields
    if magic != b"PK\x01\x02":
        raise Refusal("its zip directory is damaged")
    name = _safe_name(raw)
    if flags & _ENCRYPTED:
        raise Refusal(f"its zip entry {show(name)} is encrypted")
    if method != 0 or packed != size:
        raise Refusal(
            f"its zip entry {show(name)} is compressed ({packed:,} bytes for {size:,}); "
            "torch stores entries as they are"
        )
    if header + _LOCAL.size + len(raw) + size > directory:
        raise Refusal(f"its zip entry {show(name)} reaches beyond the archive ({size:,} bytes)")
    local = _LOCAL.unpack(source.read(header, _LOCAL.size))
    offset = header + _LOCAL.size + local[9] + local[10]
    # Where a descriptor follows the data, the local header has zeros for checksum and sizes.
    written = {(crc, size, size)} | ({(0, 0, 0)} if flags & _HAS_DESCRIPTOR else set())
    if (
        local[0] != b"PK\x03\x04"
        or (local[2], local[3], local[9]) != (flags, 0, len(raw))
        or local[6:9] not in written
        or source.read(header + _LOCAL.size, len(raw)) != raw
        or offset + size > directory
    ):
        raise Refusal(f"its zip entry {show(name)} is not what the directory says")
    return name, Entry(header, offset, size, crc)


def _safe_name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("its zip archive has an entry whose name is no text") from None
    parts = name.split("/")
    absolute = name.startswith("/") or ":" in parts[0]
    if absolute or ".." in parts or "\\" in name or not name.isprintable() or len(raw) > 1024:
        raise Refusal(
            f"its zip archive has an entry named {show(name)}; such a path reaches outside the "
            "archive, which no checkpoint needs"
        )
    return name


def _require_apart(entries: list[tuple[str, Entry]]) -> None:
    """Refuse entries that overlap, and bytes before the first one."""
    end = 0
    for name, entry in sorted(entries, key=lambda item: item[1]):
        if entry.header < end:
            raise Refusal(f"its zip entry {show(name)} overlaps another one")
        end = entry.offset + entry.size
    if min(entry.header for _, entry in entries) != 0:
        raise Refusal("something stands before its zip archive")


def _named(entries: list[tuple[str, Entry]]) -> dict[str, Entry]:
    """Return entries by name; torch looks below the folder of the first one, ignoring case."""
    folder, slash, _ = entries[0][0].partition("/")
    found: dict[str, Entry] = {}
    folded: set[str] = set()
    for name, entry in entries:
        if not slash or not name.startswith(folder + "/"):
            raise Refusal(
                "it is a zip archive, but not one that torch wrote: its entries "
                f"({show(entries[0][0])}, {show(name)}) share no folder"
            )
        if name.casefold() in folded:
            raise Refusal(f"its zip archive has two entries named {show(name)}")
        folded.add(name.casefold())
        found[name[len(folder) + 1 :]] = entry
    return found
