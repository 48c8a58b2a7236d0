"""The two-dimensional activations: FReLU and ACON-FReLU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_analysis.layers.checks import require_maps
from acon_analysis.layers.formula import must_keep


class FReLU(nn.Module):
    """FReLU: max(x, T(x)), T a 3x3 depthwise convolution and a batch normalisation.

    Parameters
    ----------
    channels : int
        C of the (N, C, H, W) input.

    Attributes
    ----------
    conv_frelu, bn_frelu : Module
        The funnel condition T, named as in the public FReLU code.

    References
    ----------
    Ma, Zhang, Sun, "Funnel Activation for Visual Recognition", ECCV 2020, arXiv 2007.11824.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv_frelu = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.bn_frelu = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C, H, W), in the same shape; raises `ShapeError`."""
        require_maps("FReLU", x, self.channels)
        return torch.maximum(x, self.bn_frelu(self.conv_frelu(x)))


class AconFReLU(nn.Module):
    """ACON-FReLU, TFNet's activation: bn2(smooth maximum of x and T(x)) at β = 1.

    That is bn2((x1 - x2)·σ(x1 - x2) + x2) with x2 = bn1(conv_frelu(x)) and x1 = x, or x1 the
    3x3 maximum of x where the stride is 2. Neither bn1 nor bn2 computes a β: it has none.

    Parameters
    ----------
    channels : int
        C of the (N, C, H, W) input.
    stride : {1, 2}
        2 halves height and width.

    Attributes
    ----------
    conv_frelu, bn1, bn2 : Module
        Named as in the public ACON code.

    References
    ----------
    Ma et al., "Activate or Not", CVPR 2021, section on TFNet, and its code.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise UsageError(f"the stride of AconFReLU must be 1 or 2, not {stride}")
        self.channels = channels
        self.stride = stride
        self.conv_frelu = nn.Conv2d(
            channels, channels, 3, stride=stride, padding=1, groups=channels
        )
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C, H, W) -> (N, C, H/stride, W/stride).

        Raises
        ------
        ShapeError
            If the input does not fit the parameters.
        """
        require_maps("AconFReLU", x, self.channels)
        x2 = self.bn1(self.conv_frelu(x))
        x1 = x if self.stride == 1 else F.max_pool2d(x, 3, stride=2, padding=1)
        out: Tensor = self.bn2(_smooth_maximum(x1, x2))
        return out


def _smooth_maximum(x1: Tensor, x2: Tensor) -> Tensor:
    """(x1 - x2)·σ(x1 - x2) + x2 in three passes; neither argument is touched."""
    difference = x1 - x2
    return F.silu(difference, inplace=not must_keep()).add_(x2)


# Leaves of torch.fx, which cannot trace through a decision on a shape or on the grad mode.
torch.fx.wrap("_smooth_maximum")
torch.fx.wrap("require_maps")
