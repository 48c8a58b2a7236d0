"""ACON-A, ACON-B and ACON-C with a static switching factor."""

import torch
from torch import Tensor, nn

from acon_analysis.layers.checks import require_channels
from acon_analysis.layers.formula import acon, match_rank, must_keep


class AconA(nn.Module):
    """ACON-A: x·σ(β·x), Swish with a learnable β per channel.

    Parameters
    ----------
    channels : int
        C, the size of the input's second axis.

    Attributes
    ----------
    beta : Parameter
        Switching factor, (1, C, 1, 1), starting at 1.

    References
    ----------
    Ma et al., "Activate or Not", CVPR 2021, Table 1; Ramachandran et al., arXiv 1710.05941.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C) or (N, C, ...); raises `ShapeError`."""
        return _acon_a(x, self.beta)

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return str(self.channels)


def _acon_a(x: Tensor, beta: Tensor) -> Tensor:
    """x·σ(β·x) in three passes."""
    require_channels("AconA", x, beta.shape[1])
    gate = (x * match_rank(beta, x.ndim)).sigmoid_()
    return gate * x if must_keep() else gate.mul_(x)


class AconB(nn.Module):
    """ACON-B: (1-p)·x·σ(β(1-p)·x) + p·x, the smooth maximum of x and p·x.

    Parameters
    ----------
    channels : int
        C, the size of the input's second axis.

    Attributes
    ----------
    p : Parameter
        Slope of the negative side, (1, C, 1, 1), starting at 0.25 like PReLU's.
    beta : Parameter
        Switching factor, (1, C, 1, 1), starting at 1.

    References
    ----------
    Ma et al., "Activate or Not", CVPR 2021, Table 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.p = nn.Parameter(torch.full((1, channels, 1, 1), 0.25))
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C) or (N, C, ...); raises `ShapeError`."""
        return acon("AconB", x, torch.ones_like(self.p), self.p, self.beta)

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return str(self.channels)


class AconC(nn.Module):
    """ACON-C: (p1-p2)·x·σ(β(p1-p2)·x) + p2·x, everything learnable per channel.

    Parameters
    ----------
    channels : int
        C, the size of the input's second axis.

    Attributes
    ----------
    p1, p2 : Parameter
        Slopes towards ±∞, (1, C, 1, 1), starting as N(0, 1).
    beta : Parameter
        Switching factor, (1, C, 1, 1), starting at 1.

    References
    ----------
    Ma et al., "Activate or Not", CVPR 2021, Table 1; names and initial values of its code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.p1 = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.p2 = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C) or (N, C, ...); raises `ShapeError`."""
        return acon("AconC", x, self.p1, self.p2, self.beta)

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return str(self.channels)


# Leaves of torch.fx, which cannot trace through a decision on a shape.
torch.fx.wrap("_acon_a")
torch.fx.wrap("acon")
