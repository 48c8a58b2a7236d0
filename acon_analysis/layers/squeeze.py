"""Squeeze-and-excitation: the paper's per-sample rival of Meta-ACON."""

import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_analysis.layers.checks import pool
from acon_analysis.layers.formula import match_rank


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: x times a gate per sample and channel.

    gate = σ(fc2(ReLU(fc1(mean of x over the pixels)))).

    Parameters
    ----------
    channels : int
        C, the size of the input's second axis.
    r : int
        Reduction; the inner width is max(1, C // r).

    Attributes
    ----------
    fc1, activation, fc2, scale_activation : Module
        Named as in torchvision; the gate, (N, C, 1, 1), is the output of scale_activation.

    References
    ----------
    Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507.
    """

    def __init__(self, channels: int, *, r: int = 16) -> None:
        super().__init__()
        if r < 1:
            raise UsageError(f"the reduction r of SqueezeExcitation must be at least 1, not {r}")
        self.channels = channels
        inner = max(1, channels // r)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.activation = nn.ReLU()
        self.fc2 = nn.Conv2d(inner, channels, 1)
        self.scale_activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated x, (N, C) or (N, C, ...); raises `ShapeError`."""
        pooled = pool("SqueezeExcitation", x, self.channels)
        gate = self.scale_activation(self.fc2(self.activation(self.fc1(pooled))))
        return x * match_rank(gate, x.ndim)


# Leaves of torch.fx, which cannot trace through a decision on a shape.
torch.fx.wrap("match_rank")
torch.fx.wrap("pool")
