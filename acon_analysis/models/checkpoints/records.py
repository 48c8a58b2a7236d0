"""What the gate knows of a file's content without loading it: storages, tensors, contents."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from acon_analysis.models.checkpoints.dtypes import DType


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements in the file.

    Parameters
    ----------
    key : str
        Its name in the file; only ever looked up, never part of a path.
    dtype : DType
        Type of its elements.
    start : int
        First element, counted from the beginning of the data under `key`.
    count : int
        Number of elements.
    """

    key: str
    dtype: DType
    start: int
    count: int


@dataclass(frozen=True, slots=True)
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
        if self.count == 0:
            return True
        expected = 1
        for stride, size in sorted(zip(self.strides, self.shape, strict=True)):
            if size > 1:
                if stride != expected:
                    return False
                expected *= size
        return True


@dataclass(frozen=True, slots=True)
class Inert:
    """A value that is no part of the weights and is not looked at any further."""

    kind: str
    detail: str = ""


class Ordered(dict[object, object]):
    """Stands for a collections.OrderedDict."""

    __slots__ = ()


@dataclass(frozen=True)
class Contents:
    """A file that passed the gate.

    Parameters
    ----------
    format : str
        ``"torch zip"``, ``"torch legacy"`` or ``"safetensors"``.
    root : object
        What the file holds: containers, numbers, `TensorRecord`.
    data : dict of str to (int, int)
        Per storage key the offset and the number of its bytes in the file.
    """

    format: str
    root: object
    data: dict[str, tuple[int, int]]

    def byte_range(self, record: TensorRecord) -> tuple[int, int]:
        """Return the offset and the number of bytes of a dense tensor in the file."""
        itemsize = record.storage.dtype.itemsize
        first = record.storage.start + record.offset
        return self.data[record.storage.key][0] + first * itemsize, record.count * itemsize


def walk(root: object, limit: int) -> Iterator[tuple[object, int]]:
    """Yield every value once with its depth, in a loop rather than by recursion.

    Containers that are reached again are not entered again, so that a small file cannot ask for
    an exponential walk; nothing below depth `limit` is entered.
    """
    pending: list[tuple[object, int]] = [(root, 0)]
    seen: set[int] = set()
    while pending:
        value, depth = pending.pop()
        yield value, depth
        if isinstance(value, (dict, list, tuple)) and depth < limit and id(value) not in seen:
            seen.add(id(value))
            inner = value.values() if isinstance(value, dict) else value
            pending.extend((child, depth + 1) for child in inner)
