"""Where a layer has overwritten its input, and what that means for a replacement of its output."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Given:
    """A tensor that a layer is given, and what it was before the call."""

    # The tensor itself, which the layer may overwrite, and a copy.
    tensor: Tensor
    before: Tensor
    # PyTorch's count of writes; None for a tensor made in inference mode, which has none.
    version: int | None

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Note a tensor before a call."""
        version = None if tensor.is_inference() else tensor._version
        return cls(tensor, tensor.clone(), version)

    def overwritten(self) -> bool:
        """Return whether the tensor was written to since."""
        # Values are compared as well: a write through `Tensor.data` does not count as a version.
        if self.version is not None and self.tensor._version != self.version:
            return True
        return not same_values(self.tensor, self.before)


def put(new: Any, output: Any, given: Iterable[Given], *, in_place: bool) -> Any:
    """Return what replaces an output, so that every reader of the output sees it.

    A layer that overwrites its input leaves its result there, and a shortcut may read it: the new
    values are then written there too. The input of a layer that only returns it, or a view of it,
    keeps its values. `in_place`: the layer says itself that it overwrites its input, which matters
    where it has written the values that were there before.
    """
    if not isinstance(output, Tensor) or not isinstance(new, Tensor):
        return new
    returned = new
    for one in given:
        if shares_memory(one.tensor, output):
            if in_place or one.overwritten():
                returned = output
        elif one.overwritten() and same_values(one.tensor, output):
            one.tensor.copy_(new)
    return new if returned is new else output.copy_(new)


def shares_memory(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors lie in the same storage."""
    return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def same_values(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same numbers, with NaN in the same entries."""
    if one.shape != other.shape or one.dtype is not other.dtype:
        return False
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
