"""Which tensors depend on the input of a network: their storages are marked."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from acon_hooks.engine.outputs import tensors_in

_weak: Any = StorageWeakRef
_is_wrapper: Any = is_traceable_wrapper_subclass


class Marks:
    """The storages that hold values computed from the input."""

    # Storages and not tensors: views, `Tensor.data` and ``out=`` share them. A mark holds the
    # storage weakly, so that its memory can be freed, but its address is not used again.
    def __init__(self) -> None:
        self._storages: dict[int, StorageWeakRef] = {}
        self._tensors: dict[int, Tensor] = {}  # those without a storage

    def mark(self, value: Any) -> None:
        """Mark every tensor in a value."""
        for tensor in _dense(value):
            try:
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = _weak(storage)
            except (NotImplementedError, RuntimeError):  # an opaque layout
                self._tensors[id(tensor)] = tensor

    def on(self, value: Any) -> bool:
        """Return whether any tensor in a value is marked, or a storage itself."""
        if isinstance(value, torch.UntypedStorage):
            return value._cdata in self._storages
        return any(map(self._marked, _dense(value)))

    def _marked(self, tensor: Tensor) -> bool:
        try:
            return tensor.untyped_storage()._cdata in self._storages
        except (NotImplementedError, RuntimeError):
            return id(tensor) in self._tensors


def _dense(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value that hold memory of their own."""
    for tensor in tensors_in(value):
        if _is_wrapper(tensor):
            wrapper: Any = tensor
            for name in wrapper.__tensor_flatten__()[0]:
                yield from _dense(getattr(tensor, name))
        elif tensor.layout is torch.sparse_coo:
            yield from (tensor._indices(), tensor._values())
        elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
            yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
        else:
            yield tensor
