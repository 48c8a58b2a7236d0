"""The safetensors format: a strict reader of its header, and a header made from scratch."""

import json
import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import torch

from acon_analysis.models.checkpoints.dtypes import BY_CODE, CODES
from acon_analysis.models.checkpoints.errors import Refusal, show
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.records import Contents, Storage, TensorRecord
from acon_analysis.models.checkpoints.source import Source

_METADATA = "__metadata__"


class Declared(NamedTuple):
    """A tensor as a header declares it: name, type and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return prod(self.shape) * self.dtype.itemsize


def looks_like(head: bytes, size: int) -> bool:
    """Whether a file may be in the safetensors format, by its first bytes."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(source: Source, limits: Limits) -> Contents:
    """Return what a safetensors file holds; its tensors fill it without overlap or gaps."""
    length = int.from_bytes(source.head[:8], "little")
    if length > min(limits.header_bytes, source.size - 8):
        raise Refusal(f"its safetensors header declares {length:,} bytes, more than it can have")
    header = _parse(source.read(8, length))
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Refusal("its safetensors metadata are not texts")
    if len(header) > limits.tensors:
        raise Refusal(f"it holds {len(header):,} tensors, more than {limits.tensors:,}")
    base = 8 + length
    root: dict[object, object] = {}
    data: dict[str, tuple[int, int]] = {}
    ranges = [(0, 0)]
    for name, entry in header.items():
        declared, begin, end = _entry(name, entry)
        if not 0 <= begin <= end <= source.size - base:
            raise Refusal(
                f"its tensor {show(name)} lies at {begin:,} to {end:,}, but the file has "
                f"{source.size - base:,} bytes of data; download it again"
            )
        if end - begin != declared.size:
            raise Refusal(
                f"its tensor {show(name)} of shape {declared.shape} has {end - begin:,} bytes, "
                f"expected {declared.size:,}"
            )
        storage = Storage(name, declared.dtype, 0, prod(declared.shape))
        root[name] = TensorRecord(storage, 0, declared.shape, _strides(declared.shape))
        data[name] = (base + begin, end - begin)
        ranges.append((begin, end))
    ranges.append((source.size - base, source.size - base))
    if any(left[1] != right[0] for left, right in pairwise(sorted(ranges))):
        raise Refusal("its tensors overlap or leave gaps in the file")
    return Contents("safetensors", root, data)


def _parse(raw: bytes) -> dict[str, object]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_int=_natural)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"its safetensors header is damaged ({show(str(error))})") from None
    if not isinstance(header, dict):
        raise Refusal("its safetensors header is no JSON object")
    return header


def _natural(text: str) -> int:
    """Return a number; the library refuses -0, which to Python is 0."""
    if text == "-0":
        raise ValueError("-0 is no size")
    return int(text)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refusal("its safetensors header has a name twice")
    return found


def _entry(name: str, entry: object) -> tuple[Declared, int, int]:
    match entry:
        case {
            "dtype": str() as code, "shape": list() as shape, "data_offsets": [begin, end], **rest
        } if not rest and len(shape) <= 16 and _counts([*shape, begin, end]):  # fmt: skip
            if code not in BY_CODE:
                raise Refusal(f"its tensor {show(name)} has the type {show(code)}, not read")
            return Declared(name, BY_CODE[code], tuple(shape)), begin, end
    raise Refusal(f"its safetensors header does not describe the tensor {show(name)} properly")


def _counts(values: Sequence[object]) -> bool:
    return all(type(value) is int and 0 <= value < 2**48 for value in values)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def in_file_order(tensors: Sequence[Declared]) -> list[Declared]:
    """Return tensors as they are written: wide types first, which keeps all aligned, then names."""
    return sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))


def make_header(tensors: Sequence[Declared], metadata: Mapping[str, str]) -> bytes:
    """Return the first bytes of a safetensors file of `tensors`, always the same for the same."""
    header: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.size],
        }
        position += tensor.size
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw
