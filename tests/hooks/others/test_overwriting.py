"""Networks that overwrite their inputs: every pass reads what was given, which stays as it was."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.layers import MetaAconC
from network_oracle import assert_measured, captured, every_function, settled

KINDS = ("meta_acon", "activation")


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8)


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.SiLU(inplace=True)])
def test_an_activation_that_overwrites_the_images_themselves(
    act: nn.Module, tmp_path: Path
) -> None:
    model = settled(nn.Sequential(act, nn.Conv2d(3, 4, 3), MetaAconC(4)))
    x = [images(), images(3)]
    run = captured(model, [part.clone() for part in x], tmp_path / "run", kinds=KINDS)
    assert_measured(run, model, [part.clone() for part in x], {"0": 1, "2": 1})
    given = x[0].clone()
    every_function(model, given)


class Rewriting(nn.Module):
    """Overwrites its input by an activation in place, without a convolution before."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.fc, self.last = nn.ReLU(inplace=True), nn.Linear(4, 3), MetaAconC(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(self.act(x)).transpose(1, 2))


def test_a_network_that_overwrites_its_data(tmp_path: Path) -> None:
    model, x = settled(Rewriting()), [torch.randn(6, 5, 4), torch.randn(3, 5, 4)]
    run = captured(model, [part.clone() for part in x], tmp_path / "run", kinds=KINDS)
    assert_measured(run, model, [part.clone() for part in x], {"act": 1, "last": 1})
    captured(model, [part.clone() for part in x], tmp_path / "run", kinds=KINDS)  # goes on
    every_function(model, x[0].clone())


def test_images_that_were_given_are_not_overwritten(tmp_path: Path) -> None:
    model, x = settled(Rewriting()), torch.randn(6, 5, 4)
    given = x.clone()
    acon.find_layers(model, KINDS, given)
    every_function(model, given)
    captured(model, [given, given.abs()], tmp_path / "run", kinds=KINDS)
    assert torch.equal(given, x)
    positive = [x.abs(), x.clone()]  # the first batch is written, but not changed
    captured(model, positive, tmp_path / "other", kinds=KINDS)
    assert torch.equal(positive[1], x)


def test_a_network_that_overwrites_only_some_batches(tmp_path: Path) -> None:
    class Sometimes(Rewriting):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.max() > 100 else x.clone())

    model, x = settled(Sometimes()), torch.randn(6, 5, 4)
    with pytest.raises(acon.AconError, match="overwritten its input in this batch, but not"):
        captured(model, [x, x * 1000], tmp_path / "run", kinds=KINDS)
