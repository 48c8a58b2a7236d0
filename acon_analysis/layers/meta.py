"""Meta-ACON: every sample decides its own switching factor."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.layers.checks import pool, require_batch, require_channels
from acon_analysis.layers.formula import acon

Granularity = Literal["layer", "channel", "pixel"]


class MetaAconC(nn.Module):
    """Meta-ACON: ACON-C whose β is computed from the input.

    =========== ================================================ ============
    granularity β                                                shape of β
    =========== ================================================ ============
    "channel"   σ(bn2(fc2(bn1(fc1(mean of x over the pixels))))) (N, C, 1, 1)
    "layer"     σ(sum of x over channels and pixels)             (N, 1, 1, 1)
    "pixel"     σ(x)                                             that of x
    =========== ================================================ ============

    "channel" follows the authors' code: the mean, biases, two batch normalisations and no ReLU
    (the paper writes a sum and two matrices). "layer" and "pixel" follow the paper, which has no
    code for them; the sum saturates the sigmoid on large inputs.

    Parameters
    ----------
    channels : int
        C, the size of the input's second axis.
    granularity : {"channel", "layer", "pixel"}
        What shares one β.
    r : int
        Reduction of the β network; its inner width is max(r, C // r). Used by "channel" only.
    batch_norm : bool
        Whether the β network normalises; False replaces bn1 and bn2 by identities.
        Used by "channel" only.

    Attributes
    ----------
    p1, p2 : Parameter
        Slopes, (1, C, 1, 1), starting as N(0, 1).
    fc1, bn1, fc2, bn2 : Module
        The β network ("channel" only), called as modules on (N, C, 1, 1): their hooks fire, and
        β is the sigmoid of bn2's output.

    References
    ----------
    Ma et al., "Activate or Not", CVPR 2021, section "Meta-ACON"; names of its code.
    """

    def __init__(
        self,
        channels: int,
        granularity: Granularity = "channel",
        *,
        r: int = 16,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if granularity not in get_args(Granularity):
            near = closest(str(granularity), get_args(Granularity))
            raise UsageError(f"unknown granularity {granularity!r} of MetaAconC: {near}")
        if r < 1:
            raise UsageError(f"the reduction r of MetaAconC must be at least 1, not {r}")
        self.channels = channels
        self.granularity = granularity
        self.p1 = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.p2 = nn.Parameter(torch.randn(1, channels, 1, 1))
        if granularity == "channel":
            inner = max(r, channels // r)
            self.fc1 = nn.Conv2d(channels, inner, 1)
            self.bn1: nn.Module = nn.BatchNorm2d(inner) if batch_norm else nn.Identity()
            self.fc2 = nn.Conv2d(inner, channels, 1)
            self.bn2: nn.Module = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C) or (N, C, ...).

        Raises
        ------
        ShapeError
            If the input does not fit the parameters, or if batch normalisation would have to
            train on a single sample.
        """
        if self.granularity == "channel":
            require_batch("MetaAconC", x, self.bn1, self.bn2)
            pooled = pool("MetaAconC", x, self.channels)
            logits = self.bn2(self.fc2(self.bn1(self.fc1(pooled))))
            beta = torch.sigmoid(logits)
        else:
            beta = _beta_from_input(x, self.channels, self.granularity)
        return acon("MetaAconC", x, self.p1, self.p2, beta)

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return f"{self.channels}, granularity={self.granularity!r}"


def _beta_from_input(x: Tensor, channels: int, granularity: str) -> Tensor:
    """Return β of the two forms without parameters: (N, 1, 1, 1) or the shape of x."""
    require_channels("MetaAconC", x, channels)
    if granularity == "pixel":
        return torch.sigmoid(x)
    return torch.sigmoid(x.sum(dim=tuple(range(1, x.ndim)))).reshape(-1, 1, 1, 1)


# Leaves of torch.fx, which cannot trace through a decision on a shape.
torch.fx.wrap("_beta_from_input")
torch.fx.wrap("acon")
torch.fx.wrap("pool")
