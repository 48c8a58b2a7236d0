"""A small ShuffleNetV2 for 32x32 images in which every activation is replaced."""

import torch
from torch import nn

from acon_analysis.models.bottleneck import make_activation
from acon_analysis.models.official.shufflenet import ShuffleBlock


class SmallShuffleNet(nn.Module):
    """Stem, three stages of the official network's blocks, last convolution, classifier.

    The activation, one of `bottleneck.make_activation`, follows every convolution but the depthwise
    ones. The stem (a 3x3 convolution) and every stage halve the resolution; r is 8 as in the
    official 0.5x network.
    """

    input_shape = (3, 32, 32)

    def __init__(self, activation: str) -> None:
        super().__init__()
        stem, last = 24, 256
        options = {"r": 8} if activation == "metaacon" else {}

        def make(channels: int) -> nn.Module:
            return make_activation(activation, channels, **options)

        self.first_conv = nn.Sequential(
            nn.Conv2d(3, stem, 3, 2, 1), nn.BatchNorm2d(stem), make(stem)
        )
        blocks, channels = [], stem
        for outputs, count in ((48, 2), (96, 4), (192, 2)):
            blocks.append(ShuffleBlock(channels, outputs, 2, make))
            blocks += [ShuffleBlock(outputs // 2, outputs, 1, make) for _ in range(count - 1)]
            channels = outputs
        self.features = nn.Sequential(*blocks)
        self.conv_last = nn.Sequential(
            nn.Conv2d(channels, last, 1), nn.BatchNorm2d(last), make(last)
        )
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(last, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, 3, 32, 32) to logits (N, 10)."""
        features = self.globalpool(self.conv_last(self.features(self.first_conv(x))))
        logits: torch.Tensor = self.classifier(torch.flatten(features, 1))
        return logits
