"""Third-party layers are read as their own formulas say, or refused.

On the first batch and on all later ones, and with a readable error. `Case.beta` says every formula
once more, apart from the layer's forward; it is computed in float64.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_hooks
from acon_analysis.errors import AconError
from third_party_layers import (
    BatchMean,
    C,
    ChunkedBeta,
    ChunkedChannels,
    ChunkedLayer,
    Clamped,
    EinsumGrid,
    FunctionalTokens,
    FunctionalVectors,
    Groups,
    HardSigmoid,
    HardSigmoidModule,
    Lerp,
    LogSumExp,
    Loop,
    Mapped,
    Overwritten,
    PositiveSlopes,
    Residual,
    Rows,
    SharpGate,
    SignedBeta,
    SiluGate,
    SoftmaxGate,
    Softplus,
    SoftplusModule,
    TanhGate,
    Temperature,
    TimeFirst,
    TokenGate,
    TwoPools,
    TwoSigmoids,
    WeightNorm,
    slopes,
)

TOLERANCE = 1e-5
IMAGE = (C, 5, 4)
GRID = (5, 4, C)
TOKENS = (7, C)
VECTOR = (C,)

Beta = Callable[..., Tensor]


def expit(z: Tensor) -> Tensor:
    return 1 / (1 + (-z).exp())


def image_logits(layer: Any, x: Tensor) -> Tensor:
    """Logits of `Images`, (N, C), by plain matrix products."""
    first, second = layer.squeeze, layer.excite
    hidden = x.mean((2, 3)) @ first.weight.flatten(1).T + first.bias
    out: Tensor = hidden @ second.weight.flatten(1).T + second.bias
    return out


def sigmoid_beta(layer: nn.Module, x: Tensor) -> Tensor:
    return expit(image_logits(layer, x))


def hard_beta(layer: nn.Module, x: Tensor) -> Tensor:
    return ((image_logits(layer, x) + 3) / 6).clamp(0, 1)


def softplus_beta(layer: nn.Module, x: Tensor) -> Tensor:
    return image_logits(layer, x).exp().log1p()


def two_pools(layer: nn.Module, x: Tensor) -> Tensor:
    top = image_logits(layer, x.amax((2, 3), keepdim=True))
    return expit(top + image_logits(layer, x))


def two_sigmoids(layer: nn.Module, x: Tensor) -> Tensor:
    top = sigmoid_beta(layer, x.amax((2, 3), keepdim=True))
    return (top + sigmoid_beta(layer, x)) / 2


def tokens_beta(layer: FunctionalTokens, x: Tensor) -> Tensor:
    hidden = (x.mean(1) @ layer.w1.T + layer.b1).clamp(min=0)
    return expit(hidden @ layer.w2.T + layer.b2)


def rows_beta(layer: nn.Module, x: Tensor) -> Tensor:
    rows = x.mean(3).transpose(1, 2)[..., None, None]
    return torch.stack([sigmoid_beta(layer, row) for row in rows.unbind(1)], 1).mean(1)


@dataclass(frozen=True)
class Case:
    layer: type[nn.Module]
    shape: tuple[int, ...]
    beta: Beta
    refused: str = ""  # the beginning of what must be said


NO_READING = "no reading of β explains the output"
CASES = [
    Case(HardSigmoid, IMAGE, hard_beta),
    Case(HardSigmoidModule, IMAGE, hard_beta),
    Case(Softplus, IMAGE, softplus_beta),
    Case(SoftplusModule, IMAGE, lambda m, x: torch.log1p((2 * image_logits(m, x)).exp()) / 2),
    Case(FunctionalTokens, TOKENS, tokens_beta),
    Case(FunctionalVectors, VECTOR, lambda m, x: expit(x @ (m.w2 @ m.w1).T)),
    Case(TwoPools, IMAGE, two_pools),
    Case(TwoSigmoids, IMAGE, two_sigmoids),
    Case(EinsumGrid, GRID, lambda m, x: expit(x.mean((1, 2)) @ m.mixing.reshape(C, C))),
    Case(ChunkedBeta, IMAGE, sigmoid_beta),
    Case(ChunkedLayer, IMAGE, sigmoid_beta, NO_READING),
    Case(ChunkedChannels, IMAGE, sigmoid_beta),
    Case(WeightNorm, IMAGE, sigmoid_beta),
    Case(Temperature, IMAGE, lambda m, x: expit(m.t.flatten() * image_logits(m, x))),
    Case(SharpGate, IMAGE, lambda m, x: 3 * sigmoid_beta(m, x)),
    Case(Clamped, IMAGE, lambda m, x: sigmoid_beta(m, x).clamp(0.2, 0.8)),
    Case(TanhGate, IMAGE, sigmoid_beta),
    Case(SoftmaxGate, IMAGE, sigmoid_beta),
    Case(SiluGate, IMAGE, sigmoid_beta),
    Case(Lerp, IMAGE, sigmoid_beta),
    Case(
        Groups,
        IMAGE,
        lambda m, x: expit(x.mean((2, 3)) @ m.fc.weight.T + m.fc.bias)[:, [0, 0, 0, 1, 1, 1]],
    ),
    Case(
        BatchMean, IMAGE, lambda m, x: sigmoid_beta(m, x.mean(0, keepdim=True)), "differs between"
    ),
    Case(SignedBeta, IMAGE, lambda m, x: torch.tanh(image_logits(m, x))),
    Case(Residual, IMAGE, sigmoid_beta, NO_READING),
    Case(PositiveSlopes, IMAGE, sigmoid_beta, NO_READING),
    Case(LogSumExp, IMAGE, sigmoid_beta, NO_READING),
    Case(Loop, IMAGE, sigmoid_beta, NO_READING),
    Case(Mapped, IMAGE, sigmoid_beta, NO_READING),
    Case(Overwritten, IMAGE, sigmoid_beta),
    Case(Rows, IMAGE, rows_beta, NO_READING),
    Case(TimeFirst, TOKENS, tokens_beta, "no reading of β"),
    Case(TokenGate, TOKENS, lambda m, x: expit(x @ m.fc.weight.T + m.fc.bias).mean(1)),
]


class Net(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(x)
        return out.flatten(1).sum(1)


def batch(samples: int, shape: tuple[int, ...], scale: float) -> Tensor:
    """Samples that differ in their means, so that β differs between them."""
    means = torch.randn(samples, *(1 for _ in shape))
    return scale * (torch.randn(samples, *shape) + means)


def expected(case: Case, net: Net, batches: list[Tensor]) -> Any:
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
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.layer.__name__)
def test_a_third_party_layer_is_read_or_refused(case: Case, scales: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    net = Net(case.layer()).eval()
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
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.layer.__name__)
def test_a_first_batch_that_proves_nothing_misleads_nobody(case: Case, first: float) -> None:
    """Of zeros any β explains the output: what is read wrongly then must come out later."""
    torch.manual_seed(1)
    net = Net(case.layer()).eval()
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
        self.p1, self.p2 = slopes(1, C, 1, 1)

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
