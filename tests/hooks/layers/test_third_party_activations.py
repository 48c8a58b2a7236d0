"""Third-party activations: composite, parametrised, of every shape; looking changes none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from acon_analysis.layers import AconC
from acon_hooks import Tap, find_layers
from networks import Network

PRUNE: Any = prune.l1_unstructured


class Snake(nn.Module):
    """x + sin²(a·x)/a with a per channel, in a shape that asks for its channel axis."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != max(self.a.ndim, 2):
            raise ValueError("another number of axes")
        return x + torch.sin(self.a * x) ** 2 / self.a


def quick_gelu() -> Network:
    model = Network(lambda n, x: x * torch.sigmoid(n.factor * x))
    model.register_buffer("factor", torch.tensor(1.702))
    return model


def swish() -> Network:
    return Network(lambda n, x: x * n.gate(x), gate=nn.Sigmoid())


def hard_swish() -> Network:
    return Network(lambda n, x: x * n.clip(x + 3) / 6, clip=nn.ReLU6(inplace=True))


class StarReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scale * self.relu(x) ** 2 + self.bias
        return y


def wrapped() -> Network:
    """Hands on what the activation inside returns: the inner one is the layer."""
    return Network(lambda n, x: n.drop(n.act(x)), act=nn.GELU(), drop=nn.Dropout())


def names(model: nn.Module) -> list[str]:
    return [layer.name for layer in find_layers(model.eval(), ("activation",))]


@pytest.mark.parametrize("shape", [(1, 6, 1), (1, 6, 1, 1), (6,), (1, 1, 6), (1,)], ids=str)
def test_activations_are_tried_in_the_shapes_that_their_parameters_ask_for(shape: Any) -> None:
    assert names(nn.Sequential(Snake(shape), nn.ReLU())) == ["0", "1"]


@pytest.mark.parametrize("make", [quick_gelu, swish, hard_swish, StarReLU])
def test_composite_activations_are_one_layer(make: Callable[[], nn.Module]) -> None:
    assert names(nn.Sequential(nn.Linear(3, 3), make())) == ["1"]


def test_a_module_that_hands_on_an_activation_is_none() -> None:
    assert names(nn.Sequential(wrapped())) == ["0.act"]


def test_composite_and_inner_activation_observe_their_own_values() -> None:
    model = nn.Sequential(nn.Linear(3, 4), swish()).eval()
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def observe(layer: Any, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        seen[layer.name] = x.clone(), y.clone()

    x = torch.randn(5, 3)
    with torch.no_grad(), Tap(model, kinds=("activation",), observe=observe):
        model(x)
    h = model[0](x)
    assert list(seen) == ["1"]
    assert torch.equal(seen["1"][0], h)
    assert torch.equal(seen["1"][1], h * h.sigmoid())


def test_parametrised_and_pruned_layers_are_found_with_the_slopes_that_they_use() -> None:
    model: Any = nn.Sequential(*(AconC(4) for _ in range(3)))
    parametrize.register_parametrization(model[0], "p1", nn.Softplus())
    PRUNE(model[1], "p1", amount=0.5)
    layers = find_layers(model.eval(), ("acon",), torch.randn(6, 4, 5, 5))
    assert [layer.name for layer in layers] == ["0", "1", "2"]
    for layer in layers:
        assert layer.p1 is not None
        torch.testing.assert_close(layer.p1, model[int(layer.name)].p1.detach().reshape(-1))
    assert int((model[1].p1 == 0).sum()) == 2


def test_a_pruned_beta_is_read_as_it_is_used() -> None:
    model: Any = nn.Sequential(AconC(4)).eval()
    with torch.no_grad():
        model[0].beta.copy_(torch.tensor([0.3, 1.0, 2.0, 3.0]).reshape(model[0].beta.shape))
    PRUNE(model[0], "beta", amount=0.5)
    (layer,) = find_layers(model, ("acon",), torch.randn(6, 4, 5, 5))
    assert layer.beta is not None
    assert layer.beta.tolist() == [0.0, 0.0, 2.0, 3.0]


class ActNorm(nn.Module):
    """Initialises itself from the first batch that it sees, as in normalising flows."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.ready = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.ready:
            self.log_scale.data = -x.std((0, 2, 3), keepdim=True).log()
            self.ready = True
        return x * self.log_scale.exp()


class Leaky(nn.Module):
    """Carries a state from call to call."""

    state: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(1))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.state = 0.5 * self.state + x.mean()
        return torch.relu(x - self.state)


@pytest.mark.parametrize("kind", [ActNorm, Leaky])
def test_looking_for_layers_changes_no_module(kind: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), kind(), nn.ReLU()).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    facts = {k: v for k, v in vars(model[1]).items() if isinstance(v, bool | int)}
    find_layers(model, ("activation",))
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {k: v for k, v in vars(model[1]).items() if isinstance(v, bool | int)} == facts
