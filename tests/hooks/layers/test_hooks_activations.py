"""Other activations and squeeze-excitation gates: found, observed, and what hooks cannot reach."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from acon_analysis.errors import UsageError
from acon_hooks import HookError, Layer, Tap, find_layers, record
from support_variants import Detector, shaken, tensor

C = 8
BUILT_IN: list[nn.Module] = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Hardswish(),
    nn.PReLU(), nn.PReLU(C), nn.ELU(), nn.SELU(), nn.CELU(), nn.Mish(), nn.Softplus(), nn.Tanh(),
    nn.Sigmoid(), nn.LeakyReLU(), nn.ReLU6(), nn.RReLU(), nn.Hardtanh(), nn.Hardsigmoid(),
    nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink(), nn.Softshrink(), nn.Hardshrink(),
    nn.Threshold(0.1, 0.0),
]  # fmt: skip
NO_ACTIVATIONS: list[nn.Module] = [
    nn.Identity(), nn.Dropout(), nn.BatchNorm2d(C), nn.LayerNorm(C), nn.Softmax(1), nn.GLU(1),
    nn.Conv2d(C, C, 1), nn.Linear(C, C), nn.MaxPool2d(2), nn.Flatten(),
]  # fmt: skip


class Foreign(nn.Module):
    """A module of somebody else, with a function and perhaps a parameter."""

    def __init__(self, function: Callable[..., Tensor], parameter: Tensor | None = None) -> None:
        super().__init__()
        self.function = function
        self.weight = None if parameter is None else nn.Parameter(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.weight is None else self.function(x, self.weight)


class OwnNorm(nn.Module):
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.mean += 1
        return x - self.mean


def _fail(x: Tensor) -> Tensor:
    raise RuntimeError("only three channels, please")


FOREIGN: dict[str, tuple[nn.Module, bool]] = {
    "swish": (Foreign(lambda x: x * torch.sigmoid(x)), True),
    "swish in place": (Foreign(lambda x: x.mul_(x.sigmoid())), True),
    "learnable swish": (Foreign(lambda x, b: x * torch.sigmoid(b * x), torch.ones(1)), True),
    "slope a channel": (
        Foreign(lambda x, a: torch.where(x > 0, x, x * a.view(1, -1, 1, 1)), torch.rand(C)),
        True,
    ),
    "flat only": (
        Foreign(lambda x, a: torch.where(x > 0, x, x @ torch.diag(a)), torch.rand(C)),
        True,
    ),
    "scale": (Foreign(lambda x, a: x * a, torch.ones(1)), False),
    "affine a channel": (Foreign(lambda x, a: x * a.view(1, -1, 1, 1) + 1, torch.rand(C)), False),
    "identity": (Foreign(lambda x: x), False),
    "softmax": (Foreign(lambda x: x.softmax(1)), False),
    "norm of the channels": (Foreign(lambda x: x / x.norm(dim=1, keepdim=True)), False),
    "norm of the pixels": (Foreign(lambda x: x / x.std()), False),
    "pool": (Foreign(lambda x: F.max_pool2d(x, 2)), False),
    "local maximum": (Foreign(lambda x: F.max_pool2d(x, 3, 1, 1)), False),
    "noise": (Foreign(lambda x: F.relu(x + torch.randn_like(x))), False),
    "failing": (Foreign(_fail), False),
    "own statistics": (OwnNorm(), False),
}


@pytest.mark.parametrize("module", BUILT_IN, ids=repr)
def test_built_in_activations_are_found(module: nn.Module) -> None:
    (layer,) = find_layers(shaken(nn.Sequential(module)), ("activation",))
    assert (layer.kind, layer.granularity, layer.reader) == ("activation", "elementwise", "")
    assert layer.class_name == type(module).__name__


@pytest.mark.parametrize("module", NO_ACTIVATIONS, ids=repr)
def test_other_built_in_modules_are_not(module: nn.Module) -> None:
    assert find_layers(nn.Sequential(module), ("activation",)) == []


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_modules_are_judged_by_what_they_do(name: str) -> None:
    module, expected = FOREIGN[name]
    found = find_layers(nn.Sequential(module), ("activation",))
    assert bool(found) == expected


def test_judging_neither_fires_hooks_nor_touches_the_random_state() -> None:
    module, noisy = FOREIGN["swish"][0].train(), FOREIGN["noise"][0]
    module.register_forward_hook(lambda *a: pytest.fail("fired"))
    before = torch.get_rng_state()
    assert len(find_layers(nn.Sequential(module, noisy), ("activation",))) == 1
    assert torch.equal(torch.get_rng_state(), before)
    assert module.training


def test_activations_of_timm_are_found_inside_its_fused_modules() -> None:
    layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(layers.BatchNormAct2d(C), layers.LayerNormAct2d(C, act_layer="silu"))
    assert [layer.name for layer in find_layers(model, ("activation",))] == ["0.act", "1.act"]
    for name in ("swish", "hard_swish", "mish", "gelu_tanh", "quick_gelu", "hard_mish"):
        (layer,) = find_layers(nn.Sequential(layers.create_act_layer(name)), ("activation",))
        assert layer.kind == "activation"


def test_the_parts_of_an_acon_layer_are_no_activations_of_their_own() -> None:
    class WithParts(Detector):
        def __init__(self, c: int) -> None:
            super().__init__(c)
            self.act, self.sigmoid = nn.ReLU(), nn.Sigmoid()

    model = nn.Sequential(WithParts(C), nn.ReLU())
    assert [layer.name for layer in find_layers(model, ("activation",))] == ["1"]
    kinds = ("meta_acon", "activation")
    assert [layer.name for layer in find_layers(model, kinds)] == ["0", "1"]


def test_observer_gets_the_input_as_it_was_before_an_in_place_activation() -> None:
    model = shaken(nn.Sequential(nn.Conv2d(3, C, 1), nn.ReLU(inplace=True), nn.Conv2d(C, 4, 1)))
    seen: list[tuple[Layer, Tensor, Tensor]] = []

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        assert beta is None
        seen.append((layer, x.clone(), y.clone()))

    with torch.no_grad(), Tap(model, kinds=("activation",), observe=observe) as tap:
        for n in (4, 2):
            x = tensor("map", n, 3)
            bare = model[2](model[0](x).relu())
            assert torch.equal(model(x), bare)
            assert tap.take() == {}
            layer, given, made = seen[-1]
            assert torch.equal(given, model[0](x))
            assert torch.equal(made, given.relu())
            assert (layer.channels, layer.axis) == (C, 1)
    assert tap.layers[0].in_place


def test_activations_have_no_beta_to_record() -> None:
    model = shaken(nn.Sequential(nn.ReLU()))
    with torch.no_grad(), record(model, kinds=("activation",)) as recording:
        model(tensor("map", 2, 3))
    with pytest.raises(HookError, match="activations and products have no β"):
        recording.betas()


def test_a_loader_or_a_data_set_as_example_is_its_first_batch() -> None:
    class Net(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(super().forward(x))

    model = Net(3, 5).eval()
    data = TensorDataset(torch.randn(9, 3), torch.arange(9))
    for example in (data, DataLoader(data, batch_size=4)):
        (layer,) = find_layers(model, ("activation",), example)
        assert (layer.name, layer.channels) == (":relu#0", 5)
    with pytest.raises(UsageError, match="yields no batch"):
        find_layers(model, ("activation",), DataLoader(TensorDataset(torch.randn(0, 3))))
