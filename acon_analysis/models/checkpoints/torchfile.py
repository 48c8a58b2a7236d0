"""The gate for files written by torch.save: everything is checked before anything is loaded."""

import io
import tarfile

from acon_analysis.models.checkpoints.allowed import STORAGES
from acon_analysis.models.checkpoints.archive import Entry, read_directory
from acon_analysis.models.checkpoints.dtypes import name_of
from acon_analysis.models.checkpoints.errors import Refusal, show
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.machine import Global, Machine
from acon_analysis.models.checkpoints.records import Contents, Storage, walk
from acon_analysis.models.checkpoints.source import Source
from acon_analysis.screen import counted

ZIP_MAGIC = b"PK\x03\x04"
#: A pickle of protocol 2 that holds torch's magic number.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PROTOCOL = 1001


def read_zip(source: Source, limits: Limits) -> Contents:
    """Return what a checkpoint in torch's zip format (since 1.6) holds."""
    entries = read_directory(source, limits)
    if "constants.pkl" in entries or any(name.startswith("code/") for name in entries):
        raise Refusal(
            "it is a TorchScript archive, which holds code; save the module's `state_dict()` "
            "where you trust the file"
        )
    if "data.pkl" not in entries:
        raise Refusal(
            "it is a zip archive, but not one that torch wrote (no data.pkl in it); expected the "
            "output of `torch.save`"
        )
    _require_little_endian(source, entries)
    _require_intact(source, entries)
    pickled = entries["data.pkl"]
    if pickled.size > limits.pickle_bytes:
        raise Refusal(f"its pickle has {pickled.size:,} bytes; names and shapes need far less")
    data: dict[str, tuple[int, int]] = {}
    known: dict[str, Storage] = {}

    def storage(described: tuple[object, ...]) -> Storage:
        result = _root_storage(described, 5)
        entry = entries.get(f"data/{result.key}")
        if not (result.key.isascii() and result.key.isdigit()) or entry is None:
            raise Refusal(f"its tensor data {show(result.key)} are not in the archive")
        if entry.size != result.count * result.dtype.itemsize:
            raise Refusal(
                f"its tensor data {show(result.key)} have {entry.size:,} bytes, declared are "
                f"{counted(result.count, 'element')} of {name_of(result.dtype)}"
            )
        if entry.offset % result.dtype.itemsize:
            raise Refusal("its tensor data are not aligned; write it again with `torch.save`")
        data[result.key] = (entry.offset, entry.size)
        return _same(known, result)

    stream = io.BytesIO(source.read(pickled.offset, pickled.size))
    root = Machine(stream, limits, storage).load()
    if stream.tell() != pickled.size:
        raise Refusal("something follows its pickle")
    _require_shallow(root, limits)
    return Contents("torch zip", root, data)


def _require_little_endian(source: Source, entries: dict[str, Entry]) -> None:
    order = entries.get("byteorder")
    if order is not None and source.read(order.offset, min(order.size, 16)) != b"little":
        raise Refusal("it was written on a big-endian machine; write it again on a usual one")
    for name in (".format_version", ".storage_alignment", "version"):
        entry = entries.get(name)
        text = source.read(entry.offset, min(entry.size, 16)).strip() if entry else b"1"
        if not text.isdigit():
            raise Refusal(f"its entry {show(name)} is no number; the file is damaged")


def _require_intact(source: Source, entries: dict[str, Entry]) -> None:
    if all(entry.crc == 0 for entry in entries.values()):
        return  # torch.serialization.set_crc32_options(False) writes none
    for name, entry in entries.items():
        if source.crc32(entry.offset, entry.size) != entry.crc:
            raise Refusal(f"its entry {show(name)} is damaged (wrong checksum); download it again")


def read_legacy(source: Source, limits: Limits) -> Contents:
    """Return what a checkpoint in torch's format before 1.6 holds: five pickles, then the data."""
    if source.size > limits.legacy_bytes:
        raise Refusal(
            f"it has {source.size:,} bytes in torch's old format, of which {limits.legacy_bytes:,} "
            "are read; load and save it once with a torch of today"
        )
    # torch tries this format first, so that a file can be both.
    if is_tar(source.head):
        raise Refusal("it is also a tar archive, which no checkpoint of today is")
    known: dict[str, Storage] = {}

    def storage(described: tuple[object, ...]) -> Storage:
        view = described[-1] if described else None
        result = _same(known, _root_storage(described, 6))
        return result if view is None else _view(result, view)

    stream = io.BytesIO(source.read(0, min(source.size, limits.pickle_bytes)))
    machine = Machine(stream, limits, storage)
    machine.load()  # the magic number, compared before
    if machine.load() != _LEGACY_PROTOCOL:
        raise Refusal(f"it is not of protocol {_LEGACY_PROTOCOL}, the only one torch ever wrote")
    system = machine.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refusal("it was written on a big-endian machine; write it again on a usual one")
    root = machine.load()
    _require_shallow(root, limits)
    keys = machine.load()
    return Contents("torch legacy", root, _legacy_data(source, stream.tell(), keys, known))


def _legacy_data(
    source: Source, position: int, keys: object, known: dict[str, Storage]
) -> dict[str, tuple[int, int]]:
    """Find each storage's bytes: they follow the pickles, each after its number of elements."""
    names = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    if sorted(names) != sorted(known) or not isinstance(keys, list) or len(keys) != len(names):
        raise Refusal("its list of tensor data is not the list of those it uses; it is damaged")
    data: dict[str, tuple[int, int]] = {}
    for name in names:
        storage = known[name]
        size = storage.count * storage.dtype.itemsize
        if position + 8 + size > source.size:
            raise Refusal(
                f"it ends before its tensor data do ({size:,} bytes at {position:,}, the file has "
                f"{source.size:,}); download it again"
            )
        if int.from_bytes(source.read(position, 8), "little", signed=True) != storage.count:
            raise Refusal(f"its tensor data {show(name)} have another size than declared")
        data[name] = (position + 8, size)
        position += 8 + size
    if position != source.size:
        raise Refusal(f"{source.size - position:,} bytes follow its tensor data; it is damaged")
    return data


def _root_storage(described: tuple[object, ...], length: int) -> Storage:
    """Read ("storage", class, key, location, number of elements[, view])."""
    if len(described) != length or described[0] != "storage":
        raise Refusal("it refers to something outside its pickle that is no tensor data")
    kind, key, location, count = described[1:5]
    if not isinstance(kind, Global) or kind.name not in STORAGES:
        raise Refusal("its tensor data are of a type that no model here has")
    if not isinstance(key, str) or len(key) > 32:
        raise Refusal("its tensor data have a name that torch does not give")
    if not isinstance(location, str) or len(location) > 32:
        raise Refusal("its tensor data have a device that torch does not know")
    if type(count) is not int or not 0 <= count < 2**48:
        raise Refusal(f"its tensor data declare {show(count)} elements")
    return Storage(key, STORAGES[kind.name], 0, count)


def _same(known: dict[str, Storage], storage: Storage) -> Storage:
    if known.setdefault(storage.key, storage) != storage:
        raise Refusal(f"its tensor data {show(storage.key)} are declared in two ways")
    return storage


def _view(root: Storage, view: object) -> Storage:
    match view:
        case (str(), int() as start, int() as count) if min(start, count) >= 0:
            if start + count <= root.count:
                return Storage(root.key, root.dtype, start, count)
    raise Refusal("a part of its tensor data lies outside of them")


def _require_shallow(root: object, limits: Limits) -> None:
    for _, depth in walk(root, limits.depth + 1):
        if depth > limits.depth:
            raise Refusal(f"its containers are nested more than {limits.depth} deep")


def is_tar(head: bytes) -> bool:
    """Whether a file begins with the header of a tar archive, checksum included."""
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        return False
    return True
