"""ResNet-50, -101 and -152 with ACON after the 3x3 convolution of each bottleneck."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from acon_analysis.models.official.parts import (
    Activation,
    activation_maker,
    convolution,
    require_images,
)

_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 (with the stride), 3x3, 1x1 convolution, to four times the width, and the shortcut.

    ReLU stands after the first convolution and after the sum, ACON after the 3x3 convolution.
    The ReLUs are two modules and not in place, so that hooks and attribution methods see each.
    """

    def __init__(
        self, inputs: int, width: int, stride: int, make: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1 = convolution(inputs, width, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.acon = make(width)
        self.conv3 = convolution(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                convolution(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, 4·width, H/stride, W/stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.acon(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu2(y + self.downsample(x))
        return out


def _stage(
    inputs: int, width: int, depth: int, stride: int, make: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Return `depth` bottlenecks, the first with the stride."""
    outputs = width * _EXPANSION
    first = Bottleneck(inputs, width, stride, make)
    rest = [Bottleneck(outputs, width, 1, make) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """The official ACON ResNet, with torchvision's names and a bias on every convolution.

    Fresh weights are torch's own: small enough that the sums over up to 50 shortcuts stay of
    order 1 although batch normalisation is not adapted yet.
    """

    input_shape = (3, 224, 224)

    def __init__(
        self, depths: tuple[int, int, int, int], activation: Activation, num_classes: int = 1000
    ) -> None:
        super().__init__()
        make = activation_maker(activation)
        self.conv1 = convolution(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, depths[0], 1, make)
        self.layer2 = _stage(256, 128, depths[1], 2, make)
        self.layer3 = _stage(512, 256, depths[2], 2, make)
        self.layer4 = _stage(1024, 512, depths[3], 2, make)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes); raises `ShapeError`."""
        require_images("ResNet", x)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        out: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return out


# A leaf of torch.fx, which cannot trace through a decision on a shape.
torch.fx.wrap("require_images")
