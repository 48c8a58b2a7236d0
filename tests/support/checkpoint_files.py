"""Makes checkpoints for the tests: real ones by torch, hostile ones byte by byte."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PROTOCOL = b"\x80\x02M\xe9\x03."
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, protocol=2)

#: name -> (what the message must say, how the file is made); a canary's path is in each attack.
Maker = Callable[[Path, Path], object]
CORPUS: dict[str, tuple[str, Maker]] = {}


def hostile(message: str) -> Callable[[Maker], Maker]:
    """Add a maker of a hostile file to the corpus."""

    def add(maker: Maker) -> Maker:
        name = maker.__name__
        assert name not in CORPUS
        CORPUS[name] = (message, maker)
        return maker

    return add


def of_bytes(files: Mapping[str, tuple[str, Callable[[Path], bytes]]]) -> None:
    """Add files to the corpus: name -> what the message must say, and the content."""
    for name, (message, content) in files.items():

        def make(path: Path, canary: Path, content: Callable[[Path], bytes] = content) -> None:
            path.write_bytes(content(canary))

        make.__name__ = name
        hostile(message)(make)


def net() -> nn.Module:
    """Return a small network with all kinds of state: (4, 3, 3, 3), (4,), () int64, (5, 4)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))


def state(**changes: torch.Tensor | None) -> dict[str, Any]:
    """Return the network's state dict with tensors replaced, or left out (None)."""
    changed = dict(net().state_dict()) | changes
    return {key: tensor for key, tensor in changed.items() if tensor is not None}


def saved(value: object, *, legacy: bool = False) -> bytes:
    """Return what torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def zipped(
    entries: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED, folder: str = "archive/"
) -> bytes:
    """Return a zip archive as Python writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(folder + name), content, compress_type=method)
    return stream.getvalue()


def torch_zip(pickled: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """Return a torch zip archive around a pickle; storages are aligned as torch aligns them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
        for key, content in (storages or {}).items():
            info = zipfile.ZipInfo(f"archive/data/{key}")
            here = stream.tell() + 30 + len(info.filename) + 4
            padding = -here % 64
            info.extra = struct.pack("<HH", 0x4246, padding) + bytes(padding)
            archive.writestr(info, content)
    return stream.getvalue()


def legacy(pickled: bytes, keys: list[str] | None = None, data: bytes = b"") -> bytes:
    """Return a checkpoint in torch's old format around a pickle."""
    return MAGIC + PROTOCOL + SYSTEM + pickled + pickle.dumps(keys or [], protocol=2) + data


def text(value: str) -> bytes:
    """Return the pickle instruction that pushes a text."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """Return the pickle instruction that pushes an integer."""
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def sizes(*values: int) -> bytes:
    """Return the instructions that push a tuple of integers."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: str = "0", count: int = 1, kind: str = "FloatStorage", tail: bytes = b"") -> bytes:
    """Return the instructions that push a storage."""
    parts = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    return b"(" + parts + integer(count) + tail + b"tQ"


def tensor(
    stored: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    """Return the instructions that push a tensor as torch._utils._rebuild_tensor_v2 makes it."""
    arguments = stored + integer(offset) + sizes(*shape) + sizes(*strides)
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + hooks + b"tR"


def dictionary(*items: tuple[bytes, bytes]) -> bytes:
    """Return a whole pickle of a dictionary whose keys and values are given as instructions."""
    return b"\x80\x02}(" + b"".join(key + value for key, value in items) + b"u."


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a safetensors file with any header, or with a wrong length of it."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def one(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    """Return a safetensors header of one tensor."""
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Compare names, types and values."""
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert tensor.is_contiguous(), name
        assert torch.equal(tensor, expected[name]), name
