"""What the three families share: convolutions, activations, initial weights, the input's check."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from acon_analysis.layers import AconC, AconFReLU, MetaAconC, ShapeError

#: What replaces the studied activations.
Activation = Literal["acon", "metaacon"]


def activation_maker(activation: Activation, r: int = 16) -> Callable[[int], nn.Module]:
    """Return what makes ACON-C, or Meta-ACON with reduction r, for a number of channels."""
    if activation == "acon":
        return AconC
    return lambda channels: MetaAconC(channels, r=r)


def convolution(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Conv2d:
    """Return a dense convolution that keeps the map's size at stride 1, with a bias."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2)


def depthwise(channels: int, stride: int) -> nn.Conv2d:
    """Return a 3x3 depthwise convolution with a bias."""
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels)


def initialise(network: nn.Module) -> None:
    """Give the backbone's convolutions LeCun's normal weights, variance 1 / fan-in, and no bias.

    A chain without shortcuts then keeps its signal's size: ACON with p1, p2 ~ N(0, 1) does not
    halve the power as ReLU does. Before training, where batch normalisation is not adapted yet,
    torch's own initial weights would let it vanish and He's explode. The activation layers keep
    their own initial values.
    """
    for child in network.children():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, nonlinearity="linear")
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif not isinstance(child, (AconFReLU, MetaAconC)):
            initialise(child)


def require_images(network: str, x: Tensor) -> None:
    """Raise a `ShapeError` unless the input is (N, 3, H, W)."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise ShapeError(
            f"{network} takes images (N, 3, H, W), by default (N, 3, 224, 224), "
            f"not an input of shape {tuple(x.shape)}"
        )
