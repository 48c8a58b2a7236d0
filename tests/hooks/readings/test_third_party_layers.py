"""Third-party layers are read as their own formulas say, or refused.

On the first batch and on all later ones, and with a readable error; formulas are computed in
float64.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_hooks
from acon_analysis.errors import AconError
from networks import Network
from third_party_layers import CASES, IMAGE, C, Case, expit

TOLERANCE = 1e-5


def network(case: Case) -> Network:
    return Network(lambda n, x: n.act(x).flatten(1).sum(1), act=case.make()).eval()


def batch(samples: int, shape: tuple[int, ...], scale: float) -> Tensor:
    """Samples that differ in their means, so that β differs between them."""
    means = torch.randn(samples, *(1 for _ in shape))
    return scale * (torch.randn(samples, *shape) + means)


def expected(case: Case, net: Network, batches: list[Tensor]) -> Any:
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        return torch.cat([case.beta(exact.act, x.double()) for x in batches]).numpy()


def recorded(net: nn.Module, batches: list[Tensor]) -> acon_hooks.Recording:
    with torch.no_grad(), acon_hooks.record(net) as recording:
        for x in batches:
            net(x)
    return recording


def assert_same(got: Any, want: Any) -> None:
    """To 1e-5 of β, and of 1 where β is smaller."""
    assert got.shape == want.shape
    assert (np.abs(got - want) <= TOLERANCE * np.maximum(1.0, np.abs(want))).all()


@pytest.mark.filterwarnings("ignore:values of layer 'act' depend on the other samples")
@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (0.1, 2.0, 4.0), (1.0, 0.05, 3.0)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_third_party_layer_is_read_or_refused(case: Case, scales: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    net = network(case)
    batches = [batch(n, case.shape, s) for n, s in zip((5, 5, 3), scales, strict=True)]
    if case.refused:
        with pytest.raises(AconError, match=case.refused) as caught:
            recorded(net, batches)
        assert "layer 'act'" in str(caught.value)
        return
    recording = recorded(net, batches)
    assert_same(recording.beta_matrix("act"), expected(case, net, batches))
    assert recording.reports[0].status in ("proved", "partly proved")


@pytest.mark.parametrize("first", [0.0, 1e-4])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_first_batch_that_proves_nothing_misleads_nobody(case: Case, first: float) -> None:
    """Of zeros any β explains the output: what is read wrongly then must come out later."""
    torch.manual_seed(1)
    net = network(case)
    batches = [batch(n, case.shape, s) for n, s in zip((5, 5, 3), (first, 2.0, 4.0), strict=True)]
    try:
        recording = recorded(net, batches)
    except AconError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert "layer 'act'" in message
        return
    assert_same(recording.beta_matrix("act"), expected(case, net, batches))
    assert recording.reports[0].status in ("proved", "partly proved")


class Child(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = (nn.Parameter(torch.randn(1, C, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor, beta: Tensor) -> Tensor:
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(beta * d) + self.p2 * x


class Parent(nn.Module):
    """One β for two layers, handed down as an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(C, C)
        self.a, self.conv, self.b = Child(), nn.Conv2d(C, C, 1), Child()
        nn.init.normal_(self.fc.weight)

    def beta(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        beta = self.beta(x)
        out: Tensor = self.b(x=self.conv(self.a(x, beta)), beta=beta)
        return out


class ChildOfState(Child):
    """β comes by no argument: it lies in a dictionary that the parent fills."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.state = state

    def forward(self, x: Tensor, beta: Tensor | None = None) -> Tensor:
        return super().forward(x, self.state["beta"])


class ParentWithState(Parent):
    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Tensor] = {}
        self.a, self.b = ChildOfState(self.state), ChildOfState(self.state)

    def forward(self, x: Tensor) -> Tensor:
        self.state["beta"] = self.beta(x)
        out: Tensor = self.b(self.conv(self.a(x)))
        return out


@pytest.mark.parametrize("parent", [Parent, ParentWithState])
def test_one_beta_for_two_layers_of_a_parent(parent: type[Parent]) -> None:
    torch.manual_seed(2)
    net = parent().eval()
    batches = [batch(n, IMAGE, 1.0) for n in (5, 3)]
    recording = recorded(net, batches)
    weights, bias = net.fc.weight.detach().double(), net.fc.bias.detach().double()
    x = torch.cat(batches).double()
    want = expit(x.mean((2, 3)) @ weights.T + bias).numpy()
    for name in ("a", "b"):
        assert_same(recording.beta_matrix(name), want)
