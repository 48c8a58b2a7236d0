"""Unusual tensors and unusual ways to run: views, subclasses, recursion, threads, odd names."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from model_facts import warned
from network_oracle import assert_measured, captured, every_function, measured, settled
from networks import Network

KINDS = ("meta_acon", "activation")


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8) * torch.rand(count, 1, 1, 1).mul(2).add(0.3)


class Parts(nn.Module):
    """Real and imaginary part each through an activation: views with gaps, one negated lazily."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, dtype=torch.cfloat)
        self.real, self.imaginary, self.conjugate = act(), act(), act()

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(torch.fft.fft(x, norm="ortho"))
        minus = z.conj().imag
        assert minus.is_neg()
        z = torch.complex(self.real(z.real), self.imaginary(z.imag))
        return z.abs().mean(-1) + self.conjugate(minus).mean(-1)


@pytest.mark.parametrize("act", [nn.ReLU, lambda: MetaAconC(4)])
def test_parts_of_complex_numbers(act: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = settled(Parts(act))
    x = [torch.randn(n, 1, 20) * torch.rand(n, 1, 1).add(0.2) for n in (6, 4)]
    measured(model, x, tmp_path, dict.fromkeys(["real", "imaginary", "conjugate"], 1))


class Views(nn.Module):
    """Inputs that are expanded, strided, transposed, sliced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.expanded, self.strided, self.transposed = nn.SiLU(), nn.GELU(), nn.Tanh()
        self.sliced = MetaAconC(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        pooled = h.mean((2, 3), keepdim=True).expand(-1, -1, 3, 5)
        out = self.expanded(pooled).mean((2, 3)) + self.strided(h[..., ::2, 1::3]).mean((2, 3))
        out = out + self.transposed(h.transpose(2, 3)).mean((2, 3))
        return out + self.sliced(h[:, ::2, 1:4]).mean((1, 2, 3))[:, None]


def test_views_are_read_as_they_are(tmp_path: Path) -> None:
    model, x = settled(Views()), [images(), images(3)]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    axes = dict.fromkeys(["expanded", "strided", "transposed", "sliced"], 1)
    assert_measured(run, model, x, axes)
    constant = run.linearity(by="sample", columns="all").query("layer == 'expanded'")
    assert constant["dead"].all()
    every_function(model, x[0])


class Labelled(Tensor):
    """A subclass of Tensor that stays one through every function, as libraries have them."""


class NoSubclass(Tensor):
    """A subclass of Tensor whose functions return plain tensors, as torchvision's images do."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Labelled, NoSubclass])
def test_subclasses_of_tensor(kind: type[Tensor], tmp_path: Path) -> None:
    model = settled(
        nn.Sequential(nn.GELU(), nn.Conv2d(3, 4, 3), MetaAconC(4), nn.PReLU(4), nn.Flatten())
    )
    x = [images().as_subclass(kind), images(3).as_subclass(kind)]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    plain = [part.as_subclass(Tensor) for part in x]
    assert_measured(run, model, plain, {"0": 1, "2": 1, "3": 1})
    every_function(model, x[0])


class Answer(NamedTuple):
    logits: Tensor
    rest: Any = None


class Recursive(nn.Module):
    """Calls itself on a smaller image, as pyramids do; a named tuple out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.meta = nn.Conv2d(3, 3, 3, 1, 1), nn.SiLU(), MetaAconC(3)

    def forward(self, x: Tensor, depth: int = 0) -> Answer:
        h = self.meta(self.act(self.conv(x)))
        if depth < 2:
            small = self(nn.functional.avg_pool2d(x, 2), depth + 1).logits
            return Answer(h.mean((2, 3)) + small)
        return Answer(h.mean((2, 3)))


def test_a_network_that_calls_itself(tmp_path: Path) -> None:
    model, x = settled(Recursive()), [images(), images(3)]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    assert (run.layers["layer"] == "act").sum() == 3
    assert_measured(run, model, x, {"act": 1, "meta": 1})
    every_function(model, x[0])


class Threads(nn.Module):
    """Two branches, one of which runs in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Sequential(nn.Linear(4, 3), nn.ELU()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(lambda: self.two(x).detach())
            return self.one(x) + other.result()


def test_a_branch_in_another_thread_is_named(tmp_path: Path) -> None:
    model, x = settled(Threads()), [torch.randn(6, 4), torch.randn(3, 4)]
    with warned(r"two\.1.*thread"):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"one.1": 1})
    every_function(model, x[0])


class Locked(nn.Module):
    """An activation that cannot be copied: it holds a lock, and its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.last = threading.Lock(), torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.last = x * torch.sigmoid(2 * x)
        return self.last


def test_an_activation_that_cannot_be_copied_is_found(tmp_path: Path) -> None:
    model = settled(nn.Sequential(nn.Linear(4, 3), Locked(), nn.Linear(3, 2)))
    x = [torch.randn(6, 4), torch.randn(3, 4)]
    model(x[0])
    assert model[1].last.requires_grad
    assert [layer.name for layer in acon.find_layers(model, ("activation",))] == ["1"]
    run = captured(model, x, tmp_path / "run", but=("1 attribute last", "1 tensor attribute last"))
    assert_measured(run, model, x, {"1": 1})


@pytest.mark.parametrize("model", [nn.GELU(), MetaAconC(3)])
def test_the_model_itself_is_an_activation(model: nn.Module, tmp_path: Path) -> None:
    x = [images(), images(3)]
    model = settled(model)
    measured(model, x, tmp_path, {"": 1})


def test_names_that_look_like_ours(tmp_path: Path) -> None:
    names = ["β 1/2", "a b", "Act", "act", "act__call1", "x" * 200, "call", "layer", "0"]

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({name: MetaAconC(3) for name in names})
            self.act = nn.ModuleDict({"__call1": MetaAconC(3), "again": MetaAconC(3)})

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts.values():
                x = part(x)
            x = self.parts["act"](x)
            return self.act["again"](self.act["again"](self.act["__call1"](x)))

    model, x = settled(Named()), [images(), images(3)]
    axes = {f"parts.{name}": 1 for name in names} | {"act.__call1": 1, "act.again": 1}
    measured(model, x, tmp_path, axes)


def direct() -> Network:
    """One activation's forward is called directly, so that its hooks stay silent."""
    return Network(
        lambda n, x: n.two(n.one.forward(n.fc(x))), fc=nn.Linear(4, 3), one=nn.ELU(), two=nn.SELU()
    )


def test_an_activation_whose_forward_is_called_directly_is_named(tmp_path: Path) -> None:
    model, x = settled(direct()), [torch.randn(6, 4), torch.randn(3, 4)]
    with warned("1 layer did not run in the first forward pass: one"):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"two": 1, ":elu#0": 1})  # of which it is a function
    every_function(model, x[0])


def test_a_forward_that_was_exchanged_on_the_object(tmp_path: Path) -> None:
    model = settled(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    model[1].forward = lambda x: x.clamp(min=-0.5).square()
    x = [torch.randn(6, 4), torch.randn(3, 4)]
    measured(model, x, tmp_path, {"1": 1})


class NoGrad(nn.Module):
    """Cuts the gradient inside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.meta, self.fc = nn.Conv2d(3, 4, 3), MetaAconC(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.meta(self.conv(x))
        return self.fc(h.mean((2, 3)))


class Inference(NoGrad):
    """Runs in inference mode inside."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            h = self.meta(self.conv(x))
        return self.fc(h.mean((2, 3)).clone())


@pytest.mark.parametrize("model", [NoGrad(), Inference()])
def test_gradients_cut_inside(model: nn.Module, tmp_path: Path) -> None:
    model, x = settled(model), [images(), images(3)]
    assert_measured(captured(model, x, tmp_path / "run"), model, x, {"meta": 1})
    refused = every_function(model, x[0])
    assert "gradient" in refused["explain"]
    assert "gradient" in refused["conductance"]


class Scripted(nn.Module):
    """Parts of it are scripted, traced, and graphs of torch.fx."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(4, 3), nn.ELU()
        self.graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.SiLU()))

    def forward(self, x: Tensor) -> Tensor:
        return self.graph(self.act(self.fc(x)))


def test_graphs_of_fx_inside(tmp_path: Path) -> None:
    model, x = settled(Scripted()), [torch.randn(6, 4), torch.randn(3, 4)]
    measured(model, x, tmp_path, {"act": 1, "graph.1": 1})


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_scripted_part_is_counted_and_stays(tmp_path: Path) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner: Any = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval())
            self.act = nn.ELU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.inner(x) - 1)

    model, x = settled(Outer()), torch.randn(9, 4)
    memory = [value.data_ptr() for value in model.parameters()]
    run = captured(model, [x[:6], x[6:]], tmp_path / "run")
    h = (model.inner(x) - 1).detach().double().numpy().T
    y = model.act(model.inner(x) - 1).detach().double().numpy().T
    expected = [np.corrcoef(*pair)[0, 1] ** 2 for pair in zip(h, y, strict=True)]
    np.testing.assert_allclose(run.linearity(by="channel")["L"], expected, atol=1e-6)
    assert [value.data_ptr() for value in model.parameters()] == memory
    bent = run.nonlinearities[run.nonlinearities["class"] == "nonlinear"]
    assert bent[["name", "operator", "measured"]].to_numpy().tolist() == [
        ["inner", "relu", False],
        ["act", "elu", True],
    ]


def test_bytes_and_tokens_in(tmp_path: Path) -> None:
    pixels = [torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8) for n in (6, 3)]
    net = Network(lambda n, x: n.act(n.conv(x / 255)), conv=nn.Conv2d(3, 4, 3), act=nn.Hardswish())
    model = settled(net)
    assert_measured(captured(model, pixels, tmp_path / "bytes"), model, pixels, {"act": 1})
    every_function(model, pixels[0])
    text = settled(nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 4), nn.GELU()))
    tokens = [torch.randint(0, 9, (n, 7)) for n in (6, 3)]
    assert_measured(captured(text, tokens, tmp_path / "tokens"), text, tokens, {"2": 2})
    every_function(text, tokens[0])


def test_a_sparse_adjacency_and_inputs_that_require_gradients(tmp_path: Path) -> None:
    class Sparse(nn.Module):
        adjacency: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("adjacency", (torch.rand(5, 5) > 0.5).float().to_sparse())
            self.fc, self.act = nn.Linear(3, 4), nn.Softplus()

        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(x)
            mixed = torch.sparse.mm(self.adjacency, h.transpose(0, 1).flatten(1))
            return self.act(mixed.view(5, len(x), 4).transpose(0, 1))

    model = settled(Sparse())
    x = [torch.randn(6, 5, 3, requires_grad=True), torch.randn(3, 5, 3)]
    measured(model, x, tmp_path, {"act": 2})
    assert x[0].grad is None


def test_an_error_of_the_network_stays_its_own(tmp_path: Path) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(4, 3), nn.ELU()

        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.fc(x))
            if len(x) == 3:
                raise ValueError("three is too few")
            return h

    model = settled(Failing())
    with pytest.raises((ValueError, AconError), match="three is too few"):
        captured(model, [torch.randn(6, 4), torch.randn(3, 4)], tmp_path / "run")
    with pytest.raises((ValueError, AconError), match="three is too few"):
        captured(model, [torch.randn(3, 4)], tmp_path / "first")


class Forces(nn.Module):
    """Takes the gradient of its own energy in its forward pass, as networks of molecules do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 4), nn.Softplus())
        self.last = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            (force,) = torch.autograd.grad(self.net(x).sum(), x)
        return self.last(-force)


def test_a_network_that_differentiates_in_its_forward_pass(tmp_path: Path) -> None:
    model, x = settled(Forces()), [torch.randn(6, 5, 3), torch.randn(3, 5, 3)]
    measured(model, x, tmp_path, {"net.1": 2, "net.3": 2, "last": 1})


@pytest.mark.parametrize("does", ["neither", "differentiates", "keeps"])
def test_networks_run_in_inference_mode_that_neither_differentiate_nor_keep_anything(
    does: str, tmp_path: Path
) -> None:
    modes = []

    class Watched(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(torch.is_inference_mode_enabled())
            if does == "keeps":
                self.kept = x * 2
            if does == "differentiates":
                with torch.enable_grad():
                    z = x.detach().requires_grad_()
                    (x,) = torch.autograd.grad((z**3).sum() / 3, z)
            out: Tensor = super().forward(x)
            return out

    model, x = settled(Watched(nn.Linear(4, 3), nn.GELU())), torch.randn(9, 4).split(3)
    run = captured(model, x, tmp_path / "run", but=(" kept",), kinds=KINDS)
    assert modes[0] is False
    assert modes[-2:] == [does == "neither"] * 2
    assert_measured(run, model, list(x), {"1": 1})
