"""Networks of other structures: experts, early exits, shared and odd modules, own state."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from model_facts import warned
from network_oracle import assert_measured, captured, every_function, measured, settled
from networks import Network

KINDS = ("meta_acon", "activation")


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8) * torch.rand(count, 1, 1, 1).mul(2).add(0.3)


class Experts(nn.Module):
    """Each token goes to one of three experts; an expert sees as many rows as it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.router: nn.Linear = nn.Linear(4, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)) for _ in range(3)
        )
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        choice = self.router(tokens).argmax(1)
        out = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows = (choice == number).nonzero().flatten()
            out = out.index_copy(0, rows, expert(tokens[rows]))
        return self.last(out.view_as(x))


EXPERTS = tuple(f"experts.{i}.1" for i in range(3))


def test_experts_see_rows_that_are_no_samples(tmp_path: Path) -> None:
    model, x = settled(Experts()), [torch.randn(6, 5, 4), torch.randn(6, 5, 4)]
    with warned(
        *(rf"'experts\.{i}\.1'.* rows for a batch of 6" for i in range(3)), "rows of layer"
    ):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"last": 2} | dict.fromkeys(EXPERTS, 1), rowless=EXPERTS)
    every_function(model, x[0])


def routed(counts: list[int]) -> Tensor:
    """Tokens (6, 3, 4) of which so many go to each expert of `Experts` with `steered` routes."""
    choice = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    tokens = torch.randn(18, 4)
    tokens[:, :3] = 5.0 * torch.eye(3)[choice] + 0.1 * torch.randn(18, 3)
    return tokens[torch.randperm(18)].view(6, 3, 4)


@pytest.mark.parametrize("counts", [[6, 6, 6], [6, 12, 0], [0, 6, 12]])
def test_experts_that_see_as_many_rows_as_there_are_samples(
    counts: list[int], tmp_path: Path
) -> None:
    model = settled(Experts())
    with torch.no_grad():
        model.router.weight.copy_(torch.eye(3, 4))
        model.router.bias.zero_()
    x = [routed(counts), routed([5, 5, 8])]
    with warned(*(rf"experts\.{i}\.1" for i in range(3))):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"last": 2} | dict.fromkeys(EXPERTS, 1), rowless=EXPERTS)


class EarlyExit(nn.Module):
    """Ends after the first block where it is sure of every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 4)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.one(x)
        return h if bool((x.abs().amax(1) > 3).all()) else self.two(h)


def test_an_early_exit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    model, small = settled(EarlyExit()), torch.randn(6, 4).clamp(-2, 2)
    with pytest.raises(AconError, match=r"'two\.1' ran 0 times .*branches on its input"):
        captured(model, [small, small + 9], tmp_path / "late")
    with (
        warned(r"1 layer did not run in the first forward pass: two\.1"),
        pytest.raises(AconError, match=r"'two\.1'.* ran more often than on the first batch"),
    ):
        captured(model, [small + 9, small], tmp_path / "early")
    every_function(model, small)


def squeeze(channels: int) -> Network:
    return Network(
        lambda n, x: x * n.gate(n.fc2(n.act(n.fc1(x.mean((2, 3), keepdim=True))))),
        fc1=nn.Conv2d(channels, 3, 1),
        fc2=nn.Conv2d(3, channels, 1),
        act=nn.ReLU(inplace=True),
        gate=nn.Hardsigmoid(),
    )


class SkipSequential(nn.Sequential):
    """Adds its input to what its modules make of it."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x)
        return x + out


class OwnReLU(nn.ReLU):
    """A ReLU of a library's own, with a slope that it does not use."""

    def __init__(self) -> None:
        super().__init__(inplace=True)
        self.slope = nn.Parameter(torch.zeros(1))


def test_gates_skips_and_subclasses(tmp_path: Path) -> None:
    model = settled(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), OwnReLU(), squeeze(4),
            SkipSequential(nn.Conv2d(4, 4, 3, 1, 1), nn.CELU(), nn.Conv2d(4, 4, 1)),
            nn.Dropout2d(), nn.AlphaDropout(), nn.RReLU(), nn.Flatten(), nn.Linear(144, 3),
        )
    )  # fmt: skip
    x = [images(), images(3)]
    axes = dict.fromkeys(["1", "2.act", "2.gate", "3.1", "6"], 1)
    measured(model, x, tmp_path, axes, kinds=("activation",))


class OnViews(nn.Module):
    """Activations in place on views: half of the channels, then every second column."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.some, self.columns = nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.SiLU(True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).clone()
        self.some(h[:, :2])
        self.columns(h[..., ::2])
        return h.mean((2, 3))


def test_in_place_on_views(tmp_path: Path) -> None:
    model, x = settled(OnViews()), [images(), images(3)]
    measured(model, x, tmp_path, {"some": 1, "columns": 1})


class Hidden(nn.Module):
    """Activations that are no modules of it: a function, modules in a list and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 4, 3) for c in (3, 4, 4))
        self.function, self.known = F.silu, nn.ELU()
        self.listed: list[Any] = [nn.GELU(), (nn.Tanh(),)]
        self.weights = nn.ParameterList([torch.rand(1), torch.rand(4)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.function(self.convs[0](x)) * self.weights[0]
        h = self.listed[0](self.convs[1](h))
        return self.known(self.listed[1][0](self.convs[2](h))).mean((2, 3)) * self.weights[1]


def test_activations_that_are_no_modules_are_measured(tmp_path: Path) -> None:
    model, x = settled(Hidden()), [images(), images(3)]
    measured(model, x, tmp_path, {":silu#0": 1, ":gelu#0": 1, ":tanh#0": 1, "known": 1})


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed encoder, one module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.act = nn.Linear(6, 4), nn.Softsign()
        self.twin, self.decoder = self.act, nn.Linear(4, 6, bias=False)
        self.again = nn.Linear(6, 4)
        self.again.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.twin(self.encoder(x))
        return self.act(self.again(F.linear(h, self.encoder.weight.T))) + self.decoder(h)[:, :4]


def test_tied_weights_and_two_names(tmp_path: Path) -> None:
    model, x = settled(Tied()), [torch.randn(7, 6), torch.randn(4, 6)]
    run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"act": 1})
    assert len(run.layers) == 2
    every_function(model, x[0])


def noisy() -> Network:
    """Random in evaluation mode: dropout that stays on, as Monte Carlo dropout does."""
    return Network(
        lambda n, x: n.last(F.dropout(n.act(n.fc(F.dropout(x, 0.3, True))), 0.3, True)),
        fc=nn.Linear(3, 6),
        act=nn.GELU(),
        last=nn.Linear(6, 2),
    )


def test_a_random_network_is_not_run_again(tmp_path: Path) -> None:
    model, x = settled(noisy()), [torch.randn(7, 3)]
    run = captured(model, x, tmp_path / "run", but=("memory", "random state"))
    assert run.manifest["rows"]["status"] == "skipped"
    assert "random state" in run.manifest["rows"]["text"]
    every_function(model, x[0], but=("random state",))


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def test_deterministic_algorithms(tmp_path: Path) -> None:
    model = settled(
        nn.Sequential(nn.Conv2d(3, 4, 3), MetaAconC(4), nn.Conv2d(4, 4, 3), nn.PReLU(4))
    )
    x = [images(), images(3)]
    with deterministic():
        measured(model, x, tmp_path, {"1": 1, "3": 1}, kinds=KINDS)
        assert torch.are_deterministic_algorithms_enabled()


def keyword() -> Network:
    """Its activation is called by keyword, and returns through a container."""
    return Network(
        lambda n, x: {"out": (n.act(input=n.fc(x)),)}, fc=nn.Linear(3, 4), act=nn.Hardtanh()
    )


def test_an_activation_called_by_keyword(tmp_path: Path) -> None:
    model, x = settled(keyword()), [torch.randn(9, 3), torch.randn(5, 3)]
    measured(model, x, tmp_path, {"act": 1})


def test_a_network_of_nothing_to_measure(tmp_path: Path) -> None:
    model = settled(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))
    with pytest.raises(AconError, match="no layer of kind"):
        captured(model, [torch.randn(5, 3)], tmp_path / "run")
    every_function(model, torch.randn(5, 3))
    assert acon.find_layers(model, KINDS) == []
