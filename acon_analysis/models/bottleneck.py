"""A small bottleneck ResNet in which only the activation after each 3x3 convolution varies."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from acon_analysis.layers import AconA, AconC, MetaAconC
from acon_analysis.paper.numbers import NETWORK_ACTIVATIONS


def make_activation(kind: str, channels: int, **options: Any) -> nn.Module:
    """Return a fresh activation module of one of the kinds in `NETWORK_ACTIVATIONS`."""
    if kind == "relu":
        return nn.ReLU(inplace=True)
    makers = {"swish": AconA, "acon": AconC, "metaacon": MetaAconC}
    if kind not in makers:
        names = ", ".join(NETWORK_ACTIVATIONS)
        raise ValueError(f"activation must be one of {names}; got {kind!r}")
    return makers[kind](channels, **options)


class Bottleneck(nn.Module):
    """1x1 convolution, 3x3 convolution with the activation under study, 1x1 convolution.

    The other two activations stay ReLU, which is where the official residual networks put ACON.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int, activation: str, **options: Any
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.acon = make_activation(activation, width, **options)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.acon(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        joined: torch.Tensor = self.relu(out + shortcut)
        return joined


class BottleneckResNet(nn.Module):
    """Stem convolution, stages of bottlenecks, global average, linear classifier.

    ``activation``, one of `NETWORK_ACTIVATIONS`, stands after every 3x3 convolution; ``widths``
    are the channels of those, stage by stage, and ``blocks`` the bottlenecks in each stage; every
    stage after the first halves the resolution. ``expansion`` is a block's output channels over
    its width; ``options`` are passed on to the activations.
    """

    def __init__(
        self,
        activation: str,
        *,
        input_shape: tuple[int, int, int],
        num_classes: int = 10,
        widths: Sequence[int],
        blocks: Sequence[int],
        expansion: int = 2,
        stem_stride: int = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        stem = widths[0] * expansion
        self.conv1 = nn.Conv2d(input_shape[0], stem, 3, stem_stride, 1)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        inputs = stem
        self._stages = [f"layer{number}" for number in range(1, len(widths) + 1)]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                outputs = width * expansion
                layers.append(Bottleneck(inputs, width, outputs, stride, activation, **options))
                inputs = outputs
            self.add_module(self._stages[stage], nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        out = self.relu(self.bn1(self.conv1(x)))
        for stage in self._stages:
            out = self.get_submodule(stage)(out)
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(out), 1))
        return logits
