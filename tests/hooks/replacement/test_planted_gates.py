"""Networks whose gates are planted: what is used must be called so, and what is not, not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import acon_analysis as acon
from acon_analysis.layers.meta import MetaAconC

SEEDS = range(25)
TRAIN, TEST = 500, 1000


class Net(nn.Module):
    """Two numbers, mixed or not, through Meta-ACON; the head may see what goes around it, too."""

    def __init__(self, channels: int, *, mixed: bool, around: bool) -> None:
        super().__init__()
        self.around = around
        self.stem = nn.Linear(2, channels)
        self.act = MetaAconC(channels, r=4, batch_norm=False)
        self.head = nn.Linear(channels * (1 + around), 2)
        if not mixed:  # so that the gate alone can make one number depend on the other
            self.stem.weight.data = torch.eye(2).repeat(channels // 2, 1)
            self.stem.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.act(x)
        return torch.cat([out, x.abs()], 1) if self.around else out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


def task(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return pairs of numbers and whether they have the same sign, wrong in a tenth of cases."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=generator)
    wrong = torch.rand(count, generator=generator) < 0.1
    return x, ((x.prod(1) > 0) ^ wrong).long()


def scattered(act: MetaAconC) -> None:
    """Give a gate random weights, so large that β varies from nearly 0 to nearly 1."""
    for layer in (act.fc1, act.fc2):
        nn.init.normal_(layer.weight, 0, 2)


def fit_head(net: Net, x: Tensor, y: Tensor) -> None:
    """Fit the head to fixed features: regularised logistic regression."""
    features = net.features(x).detach()
    optimiser = torch.optim.LBFGS(net.head.parameters(), max_iter=50)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = cross_entropy(net.head(features), y) + 1e-3 * net.head.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]


def learned(seed: int) -> Net:
    """Return a network that needs its gate and has learned it."""
    net = Net(8, mixed=False, around=False)
    x, y = task(TRAIN, seed)
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net


def adapted(seed: int) -> Net:
    """Return a network whose gate is random, and whose head has adapted to that."""
    net = Net(16, mixed=False, around=False)
    scattered(net.act)
    fit_head(net, *task(TRAIN, seed))
    return net


def constant(seed: int) -> Net:
    """Return a network whose gate does not depend on the input."""
    net = Net(16, mixed=True, around=False)
    nn.init.zeros_(net.act.fc2.weight)
    fit_head(net, *task(TRAIN, seed))
    return net


def ignored(seed: int) -> Net:
    """Return a network whose gate varies before a head that reads what goes around it alone."""
    net = Net(16, mixed=True, around=True)
    scattered(net.act)
    fit_head(net, *task(TRAIN, seed))
    net.head.weight.data[:, :16] = 0
    return net


KINDS: dict[Any, str] = {
    learned: "used", adapted: "used", constant: "not used", ignored: "not used",
}  # fmt: skip


@pytest.mark.slow
def test_planted_networks_come_out_right() -> None:
    wrong = []
    for make, expected in KINDS.items():
        for seed in SEEDS:
            torch.manual_seed(seed)
            net = make(seed).eval()
            x, y = task(TEST, 1000 + seed)
            row = acon.gate_use(net, [(x, y)], ["mean"], level=0.01).iloc[0]
            if make is learned:
                assert row["accuracy_change"] < -0.05, seed  # it does need it
            if row["verdict"] != expected:
                wrong.append((make.__name__, seed, row["verdict"], row["loss_change"]))
    assert len(wrong) <= 5, wrong
