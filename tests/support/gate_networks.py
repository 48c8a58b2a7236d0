"""A network of two gates, and labelled images for it."""

from typing import Any

import torch
from torch import Tensor, nn

from acon_analysis.layers.meta import MetaAconC
from support_variants import shaken

C, CLASSES = 6, 3


class Net(nn.Module):
    """Two Meta-ACON layers between convolutions and BatchNorms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.act1 = nn.Conv2d(1, C, 3), nn.BatchNorm2d(C), MetaAconC(C, r=2)
        self.conv2, self.norm2, self.act2 = nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), MetaAconC(C, r=2)
        self.head = nn.Linear(C, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.act2(self.norm2(self.conv2(x)))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def gate_network() -> Any:
    torch.manual_seed(3)
    net = shaken(Net().double())
    net.head.weight.data *= 20  # so that the gates matter
    return net


def samples(count: int = 12, seed: int = 0) -> tuple[Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 6, 6, dtype=torch.float64, generator=generator) * 2
    return images, [index % CLASSES for index in range(count)]


def batches(images: Tensor, labels: list[int] | None, size: int = 5) -> list[Any]:
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    if labels is None:
        return list(parts)
    return [
        (part, labels[index * size : index * size + len(part)]) for index, part in enumerate(parts)
    ]
