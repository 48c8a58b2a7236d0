"""What the gate knows of a file's content without loading it: storages, tensors, contents."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch

from acon_analysis.models.checkpoints.errors import Refusal, show


@dataclass(frozen=True)
class Storage:
    """A run of elements: `count` from `start` on, of the data that the file has under `key`."""

    key: str
    dtype: torch.dtype
    start: int
    count: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the file declares it: where it lies, its shape and strides (elements)."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def dense(self) -> bool:
        """Whether the elements fill one run of the storage, in whatever order of dimensions."""
        expected = 1
        for stride, size in sorted(zip(self.strides, self.shape, strict=True)):
            if size > 1 and stride != expected:
                return self.count == 0
            expected *= max(size, 1)
        return True


@dataclass(frozen=True)
class Inert:
    """A value that is no part of the weights and is not looked at any further."""

    kind: str
    detail: str = ""


class Dictionary(dict[object, object]):
    """Takes keys that are hashed fast and occur once, as in real checkpoints."""

    __slots__ = ()

    def __setitem__(self, key: object, value: object) -> None:
        if not (key is None or isinstance(key, (str, int))):
            raise Refusal(f"a dictionary has a key of type {type(key).__name__}, expected a name")
        if isinstance(key, int) and abs(key) >= 2**48:  # larger ones can all have one hash
            raise Refusal(f"a dictionary has the key {show(key)}, expected a name")
        if key in self:
            raise Refusal(f"the key {show(key)} occurs twice in one dictionary")
        super().__setitem__(key, value)


class Ordered(Dictionary):
    """Stands for a collections.OrderedDict."""

    __slots__ = ()


@dataclass(frozen=True)
class Contents:
    """A file that passed the gate: its format, what it holds, each storage's offset and bytes."""

    format: str
    root: object
    data: dict[str, tuple[int, int]]

    def byte_range(self, record: TensorRecord) -> tuple[int, int]:
        """Return the offset and the number of bytes of a dense tensor in the file."""
        itemsize = record.storage.dtype.itemsize
        first = record.storage.start + record.offset
        return self.data[record.storage.key][0] + first * itemsize, record.count * itemsize


def walk(root: object, limit: int) -> Iterator[tuple[object, int]]:
    """Yield every value with its depth, no container twice and none below `limit`."""
    pending: list[tuple[object, int]] = [(root, 0)]
    seen: set[int] = set()
    while pending:
        value, depth = pending.pop()
        yield value, depth
        if isinstance(value, (dict, list, tuple)) and depth < limit and id(value) not in seen:
            seen.add(id(value))
            inner = value.values() if isinstance(value, dict) else value
            pending.extend((child, depth + 1) for child in inner)
