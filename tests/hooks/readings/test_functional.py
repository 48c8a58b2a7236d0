"""Activations called as functions, against a function mode of its own and numpy in float64."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import acon_analysis as acon
from acon_hooks import Tap
from acon_hooks.errors import PaddingWarning
from model_facts import traces, warned
from network_oracle import assert_measured, captured, every_function, settled
from networks import Network

KINDS = ("activation",)

FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "sigmoid": torch.special.expit,
    "logsigmoid": F.logsigmoid,
    "tanh": Tensor.tanh,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "clamp": lambda x: x.clip(min=-0.3),
    "clamp_min": lambda x: x.clamp_min(-0.2),
    "clamp_max": lambda x: torch.clamp_max(x, 0.3),
    "maximum": lambda x: torch.maximum(torch.tensor(0.1), x),
    "minimum": lambda x: torch.minimum(x, torch.full((3, 1, 1), 0.1)),
    "abs": abs,
    "sin": torch.sin,
    "square": torch.square,
    "exp": torch.exp,
}
IN_PLACE: dict[str, Callable[[Tensor], Any]] = {
    "relu": lambda x: x.relu_(),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "leaky_relu": lambda x: F.leaky_relu_(x, 0.2),
    "elu": lambda x: F.elu(x, 0.7, True),
    "silu": lambda x: F.silu(x, inplace=True),
    "hardtanh": lambda x: F.hardtanh_(x),
    "threshold": lambda x: F.threshold(x, 0.1, 20.0, inplace=True),
    "sigmoid": lambda x: torch.sigmoid(x.detach(), out=x.detach()),
    "tanh": lambda x: x.tanh_(),
    "clamp": lambda x: x.clamp_(-0.5, 0.5),
    "exp": lambda x: torch.exp_(x),
}


class Calls(nn.Module):
    """Calls each function in a block that runs twice."""

    def __init__(self, functions: dict[str, Callable[[Tensor], Any]]) -> None:
        super().__init__()
        self.conv, self.block = nn.Conv2d(2, 3, 3, padding=1), Each(functions)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(self.conv(x))).mean((2, 3))


class Each(nn.Module):
    def __init__(self, functions: dict[str, Callable[[Tensor], Any]]) -> None:
        super().__init__()
        self.functions = list(functions.values())
        self.mix = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in functions)

    def forward(self, x: Tensor) -> Tensor:
        made = [f(mix(x)) for f, mix in zip(self.functions, self.mix, strict=True)]
        return torch.stack(made).mean(0)


def batches(*shape: int) -> list[Tensor]:
    return [2 * torch.randn(7, *shape), 2 * torch.randn(4, *shape)]


@pytest.mark.parametrize("functions", [FUNCTIONS, IN_PLACE], ids=["functions", "in place"])
def test_every_function_is_measured_as_the_oracle_measures_it(
    functions: dict[str, Callable[[Tensor], Any]], tmp_path: Path
) -> None:
    model, x = settled(Calls(functions)).double(), [b.double() for b in batches(2, 5, 5)]
    expected = [model(batch) for batch in x]
    with torch.no_grad(), acon.record(model, kinds=KINDS) as recording:
        assert all(torch.equal(model(batch), out) for batch, out in zip(x, expected, strict=True))
    assert [layer.name for layer in recording.layers] == [f"block:{name}#0" for name in functions]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    axes = dict.fromkeys((f"block:{name}#0" for name in functions), 1)
    assert_measured(run, model, x, axes, tolerance=1e-6)
    assert run.layers["class_name"].tolist() == 2 * list(functions)
    assert traces(model) == []


def test_a_residual_network_that_calls_relu(tmp_path: Path) -> None:
    class Basic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)
            self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            out = F.relu(self.bn1(self.conv1(x)), inplace=True)
            out = self.bn2(self.conv2(out))
            out += x
            return F.relu(out)

    resnet = Network(
        lambda n, x: n.fc(n.layer1(F.relu(n.conv(x))).mean((2, 3))),
        conv=nn.Conv2d(3, 4, 3),
        layer1=nn.Sequential(Basic(), Basic()),
        fc=nn.Linear(4, 2),
    )
    model, x = settled(resnet), batches(3, 8, 8)
    run = captured(model, x, tmp_path / "run")  # no kinds: there is no ACON layer
    blocks = [f"layer1.{block}:relu#{number}" for block in (0, 1) for number in (0, 1)]
    assert run.layers["layer"].tolist() == [":relu#0", *blocks]
    assert_measured(run, model, x, dict.fromkeys([":relu#0", *blocks], 1))
    every_function(model, x[0])


class Signal(nn.Module):
    """A one-dimensional network with functions, on (N, C, T) and on (N, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 4, 5), nn.Linear(4, 6)
        self.raw = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(F.relu(self.conv(x)).transpose(1, 2))
        scale = F.softplus(self.raw[None]).clamp(max=2.0)  # of weights: no layers
        return (torch.tanh(h) * scale).mean(1)


def test_a_one_dimensional_network_with_a_function_of_its_weights(tmp_path: Path) -> None:
    model, x = settled(Signal()), batches(1, 20)
    run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {":relu#0": 1, ":tanh#0": 2})
    every_function(model, x[0])


@pytest.mark.parametrize("mask", [False, True])
def test_the_transformer_encoder(mask: bool, tmp_path: Path) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: Tensor) -> Tensor:
            padding = x[..., 0] > 1.5 if mask else None
            return self.encoder(x, src_key_padding_mask=padding).mean(1)

    model, x = settled(Encoder()), [torch.randn(6, 5, 8), torch.randn(3, 5, 8)]
    with torch.no_grad(), acon.record(model, kinds=KINDS) as recording:
        model(x[0])
    names = [f"encoder.layers.{index}:relu#0" for index in (0, 1)]
    assert [layer.name for layer in recording.layers] == names
    enabled = torch.backends.mha.get_fastpath_enabled()
    with pytest.warns(PaddingWarning, match="10 % of") if mask else nullcontext():
        run = captured(model, x, tmp_path / "run", kinds=KINDS)
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        assert_measured(run, model, x, dict.fromkeys(names, 2))
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@pytest.mark.parametrize(("name", "layers"), [("inception_v3", 94), ("googlenet", 57)])
def test_networks_of_torchvision_that_call_functions_only(name: str, layers: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.get_model(name, weights=None, init_weights=False).eval()
    x = torch.randn(2, 3, 80, 80)
    found = acon.find_layers(model, KINDS, x)
    assert acon.find_layers(model, KINDS) == []
    assert len(found) == layers
    convs = [m for n, m in model.named_modules() if n.endswith(".conv") and "ux" not in n]
    assert sum(layer.channels or 0 for layer in found) == sum(m.out_channels for m in convs)
    with torch.no_grad():
        expected = model(x)
        with acon.record(model, [found[0].name, found[-1].name], kinds=KINDS):
            assert torch.equal(model(x), expected)


class Odd(nn.Module):
    """Functions under checkpointing, in vmap, in a custom autograd function, of other numbers."""

    def __init__(self, *, vmap: bool = False) -> None:
        super().__init__()
        self.fc, self.vmap = nn.Linear(3, 4), vmap

    def forward(self, x: Tensor) -> Tensor:
        h: Any = checkpoint(lambda v: F.silu(self.fc(v)), x, use_reentrant=False)
        h = Custom.apply(h)
        if self.vmap:
            h = torch.vmap(torch.tanh)(h)
        count = torch.tensor(3).clamp(max=2) + torch.tensor(-0.5).abs()
        return h * count + (h > 0).int().abs()


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.relu(x - 0.1)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return slopes[0]


def test_checkpoints_and_custom_autograd_functions(tmp_path: Path) -> None:
    model, x = settled(Odd()), batches(3)
    run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {":silu#0": 1, ":relu#0": 1})
    leaf = x[0].clone().requires_grad_()
    with Tap(model, kinds=KINDS) as tap:
        out = model(leaf)
        tap.take()
        out.sum().backward()  # what is recomputed there was seen before
        assert model(x[1]).shape == (4, 4)
        tap.take()


def test_a_function_inside_vmap_is_named_and_left_out() -> None:
    model, x = settled(Odd(vmap=True)), batches(3)[0]
    with torch.no_grad(), warned(r"':tanh#0' \(it runs inside torch.func"):
        found = acon.find_layers(model, KINDS, x)
    assert [layer.name for layer in found] == [":silu#0", ":relu#0"]


def test_a_compiled_network_runs_eagerly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acon_hooks.guards._said", set())  # what is said once in a process
    model, x = settled(Signal()), batches(1, 20)
    compiled: Any = torch.compile(model, backend="eager")
    with warned("a compiled model runs eagerly"):
        run = captured(compiled, x, tmp_path / "run", kinds=KINDS)
    assert_measured(run, model, x, {":relu#0": 1, ":tanh#0": 2})


def test_parts_of_measured_modules_are_no_layers() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(min=-1).square()

    model = settled(nn.Sequential(nn.Linear(3, 4), Own(), nn.Linear(4, 4), nn.ReLU()))
    found = acon.find_layers(model, KINDS, torch.randn(6, 3))
    assert [layer.name for layer in found] == ["1", "3"]


def test_arithmetic_on_what_is_no_batch_is_no_layer(tmp_path: Path) -> None:
    class Boxes(nn.Module):
        """Clamps the boxes of each image on its own, as detectors do."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x: Tensor) -> list[Tensor]:
            h = F.relu(self.conv(x))
            return [part.flatten(1).T[:5].clamp(min=0.1).exp() for part in h]

    model, x = settled(Boxes()), [torch.randn(count, 1, 5, 5) for count in (4, 6, 3)]
    run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {":relu#0": 1})
