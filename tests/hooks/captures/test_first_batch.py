"""What the first batch of the data decides for a run, and how often a network runs for it."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import acon_analysis as acon
from acon_hooks.captures.capturing import Settings, run_units
from acon_hooks.errors import RowWarning
from captures import contents


class Gated(nn.Module):
    """Meta-ACON whose β is the sigmoid of a linear layer, without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.p1 = nn.Parameter(torch.tensor([1.2, 0.7, -0.4])[:, None, None])
        self.p2 = nn.Parameter(torch.tensor([0.1, -0.3, 0.5])[:, None, None])
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        beta = self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]
        d = self.p1 - self.p2
        return d * x * (beta * d * x).sigmoid() + self.p2 * x


class Net(nn.Module):
    """Counts its forward passes, and shifts its input by a state of its own if asked to."""

    state: Tensor

    def __init__(self, act: nn.Module, step: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.act, self.passes, self.step = nn.Conv2d(2, 3, 3), act, [0], step
        self.register_buffer("state", torch.zeros(1))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.passes[0] += 1
        if self.step:
            self.state = self.state + self.step
        return self.act(self.conv(x + self.state)).mean((2, 3))


def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    sizes = 1 + torch.arange(20) % 3
    return TensorDataset(torch.randn(20, 2, 6, 6, generator=generator) * sizes.view(-1, 1, 1, 1))


def settings(out: Path) -> Settings:
    return Settings(out, unit_size=8, batch_size=4, threads=1, progress=False,
                    kinds=("meta_acon", "activation"))  # fmt: skip


@pytest.mark.parametrize("act", [nn.SiLU(), Gated()])
def test_every_batch_is_run_once_and_the_first_in_two_parts_again(
    act: nn.Module, tmp_path: Path
) -> None:
    model = Net(act)
    run_units(model, images(), None, settings(tmp_path / "run"))
    assert model.passes == [5 + 2 + 1]  # the last for the census of its operators


@pytest.mark.parametrize(("act", "again"), [(nn.SiLU(), 0), (Gated(), 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_units_in_any_order_take_the_constants_of_the_first_batch(
    act: nn.Module, again: int, order: Sequence[int], tmp_path: Path
) -> None:
    whole = run_units(Net(act), images(), None, settings(tmp_path / "whole"))
    model = Net(act)
    for unit in order:
        run_units(model, images(), [unit], settings(tmp_path / "parts"))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    looks = 3 * (2 + 1)  # of each call the second look, in two parts, and the census
    assert model.passes == [5 + looks + (again if order[0] else 0)]
    if isinstance(act, Gated):
        x = images().tensors[0][:4]
        with torch.no_grad():
            beta = act.fc(Net(act).conv(x).double().mean((2, 3)).float()).sigmoid()
        want = beta.double().mean(0).numpy()
        np.testing.assert_allclose(whole.references["beta_reference"], want, atol=1e-6)


@pytest.mark.parametrize("act", [nn.SiLU(), Gated()])
def test_a_network_with_a_state_runs_once_a_batch(act: nn.Module, tmp_path: Path) -> None:
    run = run_units(Net(act, 0.3), images(), None, settings(tmp_path / "run"))
    x = images().tensors[0]
    state = 0.3 * (1 + torch.arange(20) // 4)[:, None, None, None]
    with torch.no_grad():
        z = Net(act).conv(x + state)
        y = act(z).double().movedim(1, 0).reshape(3, -1)
    z = z.double().movedim(1, 0).reshape(3, -1)
    want = [torch.corrcoef(torch.stack(pair))[0, 1] ** 2 for pair in zip(z, y, strict=True)]
    np.testing.assert_allclose(run.linearity(by="channel")["L"], want, atol=1e-6)


def test_a_part_of_a_run_warns_of_a_state(tmp_path: Path) -> None:
    model = Net(nn.SiLU(), 0.3)
    with pytest.warns(RowWarning, match="changed .*'state'.* other units are captured from anoth"):
        run_units(model, images(), [1], settings(tmp_path / "run"))
    assert acon.open_run(tmp_path / "run").units == [1]
