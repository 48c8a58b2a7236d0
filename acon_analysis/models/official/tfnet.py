"""TFNet, the paper's own light network of pointwise convolutions and ACON-FReLU."""

import torch
from torch import Tensor, nn

from acon_analysis.layers import AconFReLU
from acon_analysis.models.official.parts import convolution, initialise, require_images

_DEPTHS = (2, 3, 8, 3)
_LAST = 1024


class TFBlock(nn.Module):
    """Two pointwise convolutions with ACON-FReLU between, and one over the joined input.

    Input and branch are added at stride 1; at stride 2 they are concatenated, which doubles the
    channels.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.branch_main = nn.Sequential(
            convolution(width, width),
            nn.BatchNorm2d(width),
            AconFReLU(width),
            convolution(width, width),
            nn.BatchNorm2d(width),
        )
        self.acon = AconFReLU(width * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, H, W) to (N, stride·width, H/stride, W/stride)."""
        y = self.branch_main(x)
        out: Tensor = self.acon(x + y if self.stride == 1 else torch.cat((x, y), 1))
        return out


class TFNet(nn.Module):
    """The official TFNet, with a bias on every convolution and int(16·size) channels at first."""

    input_shape = (3, 224, 224)

    def __init__(self, size: float, num_classes: int = 1000) -> None:
        super().__init__()
        width = int(16 * size)
        self.first_conv = nn.Sequential(
            convolution(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks = []
        for depth in _DEPTHS:
            blocks.append(TFBlock(width, 2))
            width *= 2
            blocks += [TFBlock(width, 1) for _ in range(depth - 1)]
        self.features = nn.Sequential(*blocks)
        self.conv_last = nn.Sequential(
            convolution(width, _LAST), nn.BatchNorm2d(_LAST), AconFReLU(_LAST)
        )
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.dropout: nn.Module = nn.Dropout(0.2) if size > 0.5 else nn.Identity()
        self.classifier = nn.Sequential(nn.Linear(_LAST, num_classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes); raises `ShapeError`."""
        require_images("TFNet", x)
        x = self.globalpool(self.conv_last(self.features(self.first_conv(x))))
        out: Tensor = self.classifier(self.dropout(torch.flatten(x, 1)))
        return out


# A leaf of torch.fx, which cannot trace through a decision on a shape.
torch.fx.wrap("require_images")
