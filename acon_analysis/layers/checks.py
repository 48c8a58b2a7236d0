"""Shape checks: a wrong shape is an error that names both shapes, never a silent broadcast."""

import torch
from torch import Tensor, nn

from acon_analysis.errors import AconError
from acon_analysis.screen import counted


class ShapeError(AconError, ValueError):
    """The input's shape does not fit the layer's parameters."""


def require_channels(layer: str, x: Tensor, channels: int) -> None:
    """Raise a ShapeError unless x is (N, C) or (N, C, ...) with the layer's number of channels."""
    shape = tuple(x.shape)
    if len(shape) < 2:
        raise ShapeError(
            f"{layer} takes (N, {channels}) or (N, {channels}, ...), not an input of shape {shape}:"
            " the batch or the channel axis is missing"
        )
    if shape[1] != channels:
        axes = [axis for axis, size in enumerate(shape) if size == channels]
        hint = f"; axis {axes[0]} has {channels}: are the channels there?" if axes else ""
        raise ShapeError(
            f"{layer} has parameters of shape (1, {channels}, 1, 1) and takes (N, {channels}, ...),"
            f" but the input of shape {shape} has {counted(shape[1], 'channel')} on axis 1{hint}"
        )


def require_maps(layer: str, x: Tensor, channels: int) -> None:
    """Raise a ShapeError unless x is (N, C, H, W) with the layer's number of channels."""
    if x.ndim != 4:
        raise ShapeError(
            f"{layer} convolves over height and width and takes (N, {channels}, H, W), "
            f"not an input of shape {tuple(x.shape)}"
        )
    require_channels(layer, x, channels)


def pool(layer: str, x: Tensor, channels: int) -> Tensor:
    """Average over every axis after the second: (N, C) or (N, C, ...) to (N, C, 1, 1)."""
    require_channels(layer, x, channels)
    mean = x.mean(dim=tuple(range(2, x.ndim))) if x.ndim > 2 else x
    return mean.reshape(x.shape[0], channels, 1, 1)


def require_batch(layer: str, x: Tensor, *norms: nn.Module) -> None:
    """Raise a ShapeError where BatchNorm of (N, C, 1, 1) in training mode would get one value."""
    if any(type(norm) is nn.BatchNorm2d and norm.training for norm in norms):
        _require_two(layer, x)


def _require_two(layer: str, x: Tensor) -> None:
    """Raise for a batch of one; see `require_batch`."""
    if x.shape[0] == 1:
        raise ShapeError(
            f"{layer} in training mode normalises β over the batch and needs at least 2 samples, "
            f"but the input of shape {tuple(x.shape)} holds 1: "
            "call eval(), use larger batches, or build the layer with batch_norm=False"
        )


# torch.fx cannot trace through a decision on a shape: such functions are its leaves, declared in
# the module whose code calls them.
torch.fx.wrap("_require_two")
