"""Squeeze-excitation gates: found by structure, proved by out = x·gate."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acon_analysis.layers import SqueezeExcitation
from acon_hooks import HookError, ProofError, find_layers, record
from networks import Network
from support_variants import Outer, shaken, tensor

C = 8


class Classic(nn.Module):
    """The original squeeze-and-excitation: one Sequential that ends in a sigmoid."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(c, 4), nn.ReLU(), nn.Linear(4, c), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        gate: Tensor = self.fc(self.pool(x).view(n, c)).view(n, c, 1, 1)
        return x * gate.expand_as(x)


def _torchvision() -> nn.Module:
    ops = pytest.importorskip("torchvision.ops")
    module: nn.Module = ops.SqueezeExcitation(C, 4, scale_activation=nn.Hardsigmoid)
    return module


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module: nn.Module = getattr(pytest.importorskip("timm.layers"), name)(C, **options)
        return module

    return make


def _timm_efficientnet() -> nn.Module:
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    module: nn.Module = blocks.SqueezeExcite(C)
    return module


class SwiGLU(nn.Module):
    """A projection is called gate, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = nn.functional.silu(self.gate(x)) * self.up(x)
        return gated


def test_a_projection_called_gate_is_none() -> None:
    assert find_layers(SwiGLU(), kinds=["gate"]) == []


GATES: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "own": (lambda: SqueezeExcitation(C, r=2), "module scale_activation", "channel"),
    "torchvision": (_torchvision, "module scale_activation", "channel"),
    "classic": (lambda: Classic(C), "module fc", "channel"),
    "timm SEModule": (_timm("SEModule"), "module gate", "channel"),
    "timm EffectiveSEModule": (_timm("EffectiveSEModule"), "module gate", "channel"),
    "timm EcaModule": (_timm("EcaModule"), "module gate", "channel"),
    "timm SqueezeExcite": (_timm_efficientnet, "module gate", "channel"),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_are_found_and_proved(name: str) -> None:
    torch.manual_seed(2)
    make, reader, granularity = GATES[name]
    model = shaken(Outer(make()))
    assert find_layers(model, ("meta_acon", "acon")) == []
    with torch.no_grad(), record(model, kinds=("gate",)) as recording:
        for n in (4, 2):
            x = tensor("map", n, C)
            out = model(x)
            gate = torch.from_numpy(recording.beta_matrix("act"))[-n:]
            torch.testing.assert_close(out, 1.5 * x * gate[:, :, None, None])
    (layer,) = recording.layers
    assert (layer.name, layer.kind, layer.reader) == ("act", "gate", reader)
    assert layer.granularity == granularity
    assert recording.reports[0].identity == "scale"
    assert recording.reports[0].status == "proved"


def test_what_only_resembles_a_gate_is_left_out() -> None:
    def head() -> Network:
        """A classifier: pooling, linear layers, a sigmoid, and no x·gate."""
        return Network(
            lambda n, x: n.out(n.fc(n.pool(x).flatten(1))),
            pool=nn.AdaptiveAvgPool2d(1),
            fc=nn.Linear(C, C),
            out=nn.Sigmoid(),
        )

    model = shaken(nn.Sequential(SqueezeExcitation(C), head()))
    with torch.no_grad(), record(model, kinds=("gate",)) as recording:
        for n in (4, 2):
            model(tensor("map", n, C))
    assert [layer.name for layer in recording.layers] == ["0"]
    assert recording.betas()["layer"].unique().tolist() == ["0"]
    model = shaken(nn.Sequential(head()))
    with (
        torch.no_grad(),
        record(model, kinds=("gate",)),
        pytest.raises(HookError, match="what looked like"),
    ):
        model(tensor("map", 4, C))


def test_a_module_named_like_a_gate_must_be_one() -> None:
    named = Network(lambda n, x: x + n.gate(n.conv(x)), conv=nn.Conv2d(C, C, 1), gate=nn.Sigmoid())
    with pytest.raises(ProofError, match=r"explains the output as x·gate.*module gate misses by"):
        find_layers(shaken(nn.Sequential(named)), ("gate",), tensor("map", 4, C))


def test_a_gate_that_never_runs_makes_no_gate() -> None:
    # Adds a context that starts as 0, so that the output is x·1 at first.
    net = Network(lambda n, x: x + 0 * n.conv(x), conv=nn.Conv2d(C, C, 1), gate=nn.Sigmoid())
    model = shaken(nn.Sequential(SqueezeExcitation(C), net))
    (layer,) = find_layers(model, ("gate",), tensor("map", 4, C))
    assert layer.name == "0"


def test_a_wrapper_around_a_gate_is_not_counted_as_a_second_one() -> None:
    wrapper = Network(lambda n, x: n.se(x), se=SqueezeExcitation(C, r=2))
    (layer,) = find_layers(shaken(wrapper), ("gate",), tensor("map", 4, C))
    assert layer.name == "se"
