"""Networks with hooks of others, wrappers, parametrisations, and calls without hooks."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import network_oracle
from acon_analysis.layers import MetaAconC
from network_oracle import assert_measured, captured, every_function, settled

KINDS = ("meta_acon", "activation")


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8) * torch.rand(count, 1, 1, 1).mul(2).add(0.3)


class Net(nn.Module):
    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.meta = nn.Conv2d(3, 4, 3), MetaAconC(4)
        self.second, self.act = nn.Conv2d(4, 5, 3), act or nn.ELU()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.second(self.meta(self.conv(x))))
        out: Tensor = self.fc(h.mean((2, 3)))
        return out


AXES = {"meta": 1, "act": 1}


def measured(model: nn.Module, tmp_path: Path, axes: Any = None, **options: Any) -> None:
    x = [images(), images(3)]
    network_oracle.measured(model, x, tmp_path, axes or AXES, kinds=KINDS, **options)


def test_a_hook_that_replaces_an_output(tmp_path: Path) -> None:
    model = settled(Net())
    model.conv.register_forward_hook(lambda _m, _a, out: 2 * out + 0.5)
    model.act.register_forward_hook(lambda _m, _a, out: -out)  # what the layer gives is its own
    measured(model, tmp_path)


def test_a_hook_that_changes_an_input(tmp_path: Path) -> None:
    model = settled(Net())
    model.second.register_forward_pre_hook(lambda _m, args: (args[0] * 0.3 - 1,))
    measured(model, tmp_path)


def test_a_hook_that_changes_the_input_of_an_activation(tmp_path: Path) -> None:
    model = settled(Net())
    model.act.register_forward_pre_hook(lambda _m, args: (args[0] * 0.3 - 1,))
    model.meta.register_forward_pre_hook(lambda _m, args: (args[0] * 1.5 + 1,))
    measured(model, tmp_path)


def test_hooks_of_the_backward_pass(tmp_path: Path) -> None:
    model = settled(Net())
    seen: list[str] = []
    model.act.register_full_backward_hook(lambda *_a: seen.append("act"))
    model.meta.register_full_backward_pre_hook(lambda *_a: None)
    model.fc.register_full_backward_hook(lambda *_a: seen.append("fc"))
    measured(model, tmp_path)


def test_hooks_of_all_modules(tmp_path: Path) -> None:
    seen: list[type] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, _a, _o: seen.append(type(m)))
    try:
        measured(settled(Net()), tmp_path)
    finally:
        handle.remove()
    assert nn.ELU in seen


def old_norms() -> nn.Module:
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model.conv)
        nn.utils.spectral_norm(model.second)
    return settled(model)


def new_norms() -> nn.Module:
    model = Net(nn.PReLU(5))
    parametrizations.weight_norm(model.conv)
    parametrizations.spectral_norm(model.second)
    parametrizations.orthogonal(model.fc)
    return settled(model)


@pytest.mark.parametrize("make", [old_norms, new_norms])
def test_norms_of_weights(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    measured(make(), tmp_path, but=(" memory ", "attribute weight"))


def test_an_average_of_models(tmp_path: Path) -> None:
    model = settled(Net())
    ema = torch.optim.swa_utils.AveragedModel(model, use_buffers=True).eval()
    x = [images(), images(3)]
    run = captured(ema, x, tmp_path / "run", kinds=KINDS)
    assert_measured(run, ema.module, x, AXES)
    every_function(ema, x[0])


def test_a_compiled_model(tmp_path: Path) -> None:
    model = settled(Net())
    compiled: Any = torch.compile(model, backend="eager")
    x = [images(), images(3)]
    run = captured(compiled, x, tmp_path / "run", kinds=KINDS)
    assert_measured(run, model, x, AXES)
    every_function(compiled, x[0])


class Compiled(Net):
    """A part of it is compiled, and a function."""

    def __init__(self) -> None:
        super().__init__()
        self.part = torch.compile(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.part(super().forward(x))


def test_a_compiled_part(tmp_path: Path) -> None:
    axes = AXES | {"part._orig_mod.1": 1}
    model, x = settled(Compiled()), [images(), images(3)]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    assert_measured(
        run, model, x, axes, forward=lambda m, b: torch.compiler.set_stance("force_eager")(m)(b)
    )
    every_function(model, x[0])


class Checkpointed(Net):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        def first(x: Tensor) -> Tensor:
            return self.act(self.second(self.meta(self.conv(x))))

        h = checkpoint(first, x, use_reentrant=self.reentrant)
        return self.fc(h.mean((2, 3)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant: bool, tmp_path: Path) -> None:
    measured(settled(Checkpointed(reentrant=reentrant)), tmp_path)


class Stateless(nn.Module):
    """Runs its part with other weights, as meta-learning does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.fast = nn.ParameterDict(
            {name.replace(".", "_"): nn.Parameter(1.5 * p.detach())
             for name, p in self.net.named_parameters()}
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        own = {name: self.fast[name.replace(".", "_")] for name, _ in self.net.named_parameters()}
        out: Tensor = torch.func.functional_call(self.net, own, (x,))
        return out


def test_a_part_that_is_called_with_other_weights(tmp_path: Path) -> None:
    model, x = settled(Stateless()), [images(), images(3)]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    plain = copy.deepcopy(model.net)
    with torch.no_grad():
        for p in plain.parameters():
            p.mul_(1.5)
    twin = nn.Module()
    twin.net = plain
    assert_measured(
        run, twin, x, {"net.act": 1, "net.meta": 1}, forward=lambda m, b: m.get_submodule("net")(b)
    )
    every_function(model, x[0])


class Straight(torch.autograd.Function):
    """Rounds forwards, hands gradients on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.mul(4).round().div(4)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = Straight.apply(x.clamp(-1, 1))
        return made


class MemoryEfficientSwish(nn.Module):
    """Swish as networks of the time wrote it."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            s = torch.sigmoid(x)
            return grads[0] * (s * (1 + x * (1 - s)))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.Function.apply(x)
        return made


@pytest.mark.parametrize("act", [Rounded(), MemoryEfficientSwish()])
def test_activations_with_a_backward_of_their_own(act: nn.Module, tmp_path: Path) -> None:
    measured(settled(Net(act)), tmp_path)
