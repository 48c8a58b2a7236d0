"""ShuffleNetV2 0.5x to 2.0x with ACON for every activation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from acon_analysis.models.official.parts import (
    Activation,
    activation_maker,
    convolution,
    depthwise,
    initialise,
    require_images,
)

_REPEATS = (4, 8, 4)
#: Channels of the three stages and of the last convolution, by the width's name.
WIDTHS = {
    "0.5": (48, 96, 192, 1024),
    "1.0": (116, 232, 464, 1024),
    "1.5": (176, 352, 704, 1024),
    "2.0": (244, 488, 976, 2048),
}
_STEM = 24


class ShuffleBlock(nn.Module):
    """One block: half of the channels pass, or at stride 2 both branches see everything.

    ``inputs`` enter the main branch (and, at stride 2, the projection).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, make: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.stride = stride
        inner, rest = outputs // 2, outputs - inputs
        self.branch_main = nn.Sequential(
            convolution(inputs, inner),
            nn.BatchNorm2d(inner),
            make(inner),
            depthwise(inner, stride),
            nn.BatchNorm2d(inner),
            convolution(inner, rest),
            nn.BatchNorm2d(rest),
            make(rest),
        )
        if stride == 2:
            self.branch_proj = nn.Sequential(
                depthwise(inputs, stride),
                nn.BatchNorm2d(inputs),
                convolution(inputs, inputs),
                nn.BatchNorm2d(inputs),
                make(inputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, outputs, H/stride, W/stride)."""
        if self.stride == 2:
            return torch.cat((self.branch_proj(x), self.branch_main(x)), 1)
        return torch.cat((x[:, 0::2], self.branch_main(x[:, 1::2])), 1)


class ShuffleNetV2(nn.Module):
    """The official ACON ShuffleNetV2, with a bias on every convolution; r is 8 for 0.5, else 16."""

    input_shape = (3, 224, 224)

    def __init__(self, width: str, activation: Activation, num_classes: int = 1000) -> None:
        super().__init__()
        make = activation_maker(activation, r=8 if width == "0.5" else 16)
        *stages, last = WIDTHS[width]
        self.first_conv = nn.Sequential(
            convolution(3, _STEM, 3, 2), nn.BatchNorm2d(_STEM), make(_STEM)
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks, channels = [], _STEM
        for repeats, outputs in zip(_REPEATS, stages, strict=True):
            blocks.append(ShuffleBlock(channels, outputs, 2, make))
            blocks += [ShuffleBlock(outputs // 2, outputs, 1, make) for _ in range(repeats - 1)]
            channels = outputs
        self.features = nn.Sequential(*blocks)
        self.conv_last = nn.Sequential(
            convolution(channels, last), nn.BatchNorm2d(last), make(last)
        )
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.dropout: nn.Module = nn.Dropout(0.2) if width == "2.0" else nn.Identity()
        self.classifier = nn.Sequential(nn.Linear(last, num_classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes); raises `ShapeError`."""
        require_images("ShuffleNetV2", x)
        x = self.maxpool(self.first_conv(x))
        x = self.globalpool(self.conv_last(self.features(x)))
        out: Tensor = self.classifier(self.dropout(torch.flatten(x, 1)))
        return out


# A leaf of torch.fx, which cannot trace through a decision on a shape.
torch.fx.wrap("require_images")
