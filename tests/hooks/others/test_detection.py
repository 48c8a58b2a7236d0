"""Detectors: pyramids, heads shared by several scales, dictionaries out, lists in."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_analysis.layers import MetaAconC
from network_oracle import assert_measured, captured, every_function, settled

KINDS = ("meta_acon", "activation")


def images(count: int = 6, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side) * torch.rand(count, 1, 1, 1).mul(2).add(0.3)


class Detector(nn.Module):
    """Backbone, feature pyramid, one head for three scales, a dictionary of lists out."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(
            {
                f"c{i}": nn.Sequential(
                    nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
                )
                for i, (a, b) in enumerate(((3, 4), (4, 6), (6, 8)))
            }
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, 5, 1) for c in (4, 6, 8))
        self.head = nn.Sequential(nn.Conv2d(5, 6, 3, 1, 1), nn.GroupNorm(2, 6), act)
        self.boxes, self.scores = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 2, 1)
        self.sides, self.sigmoid = nn.Softplus(), nn.Sigmoid()

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        maps = []
        for stage in self.stages.values():
            x = stage(x)
            maps.append(x)
        pyramid = [conv(m) for conv, m in zip(self.lateral, maps, strict=True)]
        for i in (1, 0):
            pyramid[i] = pyramid[i] + F.interpolate(pyramid[i + 1], scale_factor=2)
        found: dict[str, list[Tensor]] = {"boxes": [], "scores": []}
        for level in pyramid:
            h = self.head(level)
            found["boxes"].append(self.sides(self.boxes(h)))
            found["scores"].append(self.sigmoid(self.scores(h)))
        return found


@pytest.mark.parametrize("act", [nn.Mish(), MetaAconC(6)])
def test_one_head_for_several_scales(act: nn.Module, tmp_path: Path) -> None:
    model, x = settled(Detector(act)), [images(), images(3)]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    names = [*(f"stages.c{i}.2" for i in range(3)), "head.2", "sides", "sigmoid"]
    assert_measured(run, model, x, dict.fromkeys(names, 1))
    assert (run.layers["layer"] == "head.2").sum() == 3
    every_function(model, x[0])


class Anchors(nn.Module):
    """Scores (N, H, W, anchors, classes): an activation on channels that were taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 6, 3), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(x).permute(0, 2, 3, 1)
        return self.act(h.unflatten(-1, (2, 3))).flatten(1, 3)


def test_channels_on_two_axes_are_assumed_on_the_last(tmp_path: Path) -> None:
    model, x = settled(Anchors()), [images(5, 6)]
    run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"act": 4})
    assert "assumed on axis 4" in run.layers["reader"].iloc[0]
    every_function(model, x[0])
