"""Where the samples of a batch lie in tensors inside a network, and which positions hold data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from acon_analysis.screen import counted

#: Which positions hold data, bool (N, T), by module path; "" is for all layers.
Valid = dict[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """Where the samples of a batch lie in tensors inside a network."""

    # 0 where it is not known.
    count: int = 0
    # In what the network was given, and in tensors inside that have as many samples there.
    axis: int = 0
    # Which positions hold data, bool (N, T), by module path; empty without a mask.
    valid: Valid = field(default_factory=dict)

    def axis_of(self, x: Tensor, channels: int) -> int:
        """Return the axis of the samples of a tensor with its channels on another axis."""
        here = x.ndim > self.axis != channels and x.shape[self.axis] == self.count
        return self.axis if here else 0

    def positions(self, layer: str, shape: Sequence[int], channels: int) -> Tensor | None:
        """Return which positions of an input, samples first, hold data, bool (N, P); None: all.

        A ValueError if those of the mask are none of the input; `channels` is an axis.
        """
        paths = [p for p in self.valid if not p or f"{layer}.".startswith((f"{p}.", f"{p}:"))]
        if not paths:
            return None
        valid = self.valid[max(paths, key=len)]
        if len(shape) < 3 and shape[0] == len(valid):
            return None
        count, length = valid.shape
        others = [size for axis, size in enumerate(shape) if axis not in (0, channels)]
        if shape[0] != count or others.count(length) != 1:
            raise ValueError(
                f"its input is {tuple(shape)}, in which the mask's {counted(count, 'sample')} of "
                f"{length} positions are not to be found"
            )
        sizes = [size if size == length else 1 for size in others]
        return valid.reshape(count, *sizes).expand(count, *others).reshape(count, -1)


def mean_of(values: Tensor, valid: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """Return means over the positions that hold data, (N, C) of (N, C, P)."""
    if valid is None or values.shape[2] == 1:
        return values.mean(2, dtype=dtype)
    kept = torch.where(valid.unsqueeze(1), values, 0)
    return kept.sum(2, dtype=dtype) / valid.sum(1, keepdim=True)
