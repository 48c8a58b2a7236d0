"""Blocks of known linearity, by themselves and planted inside networks."""

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_hooks.errors import BlockWarning
from networks import Network


def vectors(count: int = 4000, size: int = 16, seed: int = 0) -> list[Tensor]:
    return list(
        torch.split(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)), 50)
    )


def maps(count: int = 512, channels: int = 4, side: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(torch.split(torch.randn(count, channels, side, side, generator=generator), 64))


class Act(nn.Module):
    """An orthonormal layer and a function, which is no activation module."""

    def __init__(self, size: int, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.f = nn.Linear(size, size, bias=False), f
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.linear(x))


class Product(nn.Module):
    """The product of two halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return first * second


class FixedAttention(nn.Module):
    """A mean over tokens with fixed weights: linear, but positions see each other."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(tokens, tokens).softmax(1))
        self.value = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.weights @ self.value(x)
        return out


def residual(branch: nn.Module) -> Network:
    """x plus a branch."""
    return Network(lambda n, x: x + n.branch(x), branch=branch)


def around(block: nn.Module) -> Network:
    """A block between two others, so that it sees inputs of its own."""
    return Network(
        lambda n, x: n.last(n.block(n.first(x))), first=nn.Identity(), block=block, last=nn.Tanh()
    )


def measured(block: nn.Module, data: list[Tensor], name: str = "block") -> pd.Series:
    torch.manual_seed(0)
    network = around(block).eval()
    return acon.block_linearity(network, data, [name]).iloc[0]


def linear_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, stride=2, padding=1)
    )


def attention_data() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(300, 10, 8, generator=generator) ** 3 + 2  # neither Gaussian nor centred
    return list(torch.split(x, 30))


@pytest.mark.parametrize(
    ("block", "data", "kind"),
    [
        (nn.Linear(16, 5), vectors(200), "samples"),
        (nn.Sequential(nn.Linear(16, 40), nn.Linear(40, 3)), vectors(200), "samples"),
        (linear_convolutions(), maps(), "mixes positions"),
        (nn.Conv2d(4, 3, 1), maps(), "positions"),
        (FixedAttention(10), attention_data(), "mixes positions"),
        (nn.Linear(8, 6), attention_data(), "positions"),
    ],
)
def test_affine_blocks_have_a_coefficient_of_one(
    block: nn.Module, data: list[Tensor], kind: str
) -> None:
    row = measured(block, data)
    assert row["nlc"] == pytest.approx(1, abs=2e-6)
    assert row["nlc_error"] < 1e-6
    assert row["vectors"] == kind
    if kind == "mixes positions":  # a lower bound, which says nothing against linearity
        assert row["r2"] < 0.9
    else:
        assert row["r2"] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("f", "nlc", "r2"),
    [
        (torch.relu, 1.2112, 0.7335),
        (torch.abs, 1.6589, 0.0),
        (nn.functional.silu, 1.1009, None),
        (nn.functional.gelu, 1.1484, None),
        (torch.tanh, 1.0853, None),
    ],
)
def test_activations_of_gaussian_inputs(
    f: Callable[[Tensor], Tensor], nlc: float, r2: float | None
) -> None:
    row = measured(Act(16, f), vectors())
    assert row["nlc"] == pytest.approx(nlc, abs=4 * row["nlc_error"])
    assert row["nlc_error"] <= 0.008 * nlc
    assert row["n"] == 4000
    if r2 is not None:
        assert row["r2"] == pytest.approx(r2, abs=0.02)
        assert row["r2_high"] - row["r2_low"] < 0.05


def test_a_product_of_two_maps_is_not_linear_at_all() -> None:
    row = measured(Product(), maps(2048))
    assert row["nlc"] == pytest.approx(np.sqrt(2), abs=4 * row["nlc_error"])
    assert row["vectors"] == "positions"
    assert row["r2"] == pytest.approx(0, abs=0.005)
    assert np.isnan(row["r2_without_residual"])


def test_margins_that_never_vary_do_not_hide_that_positions_are_mixed() -> None:
    data = [nn.functional.pad(batch, (4, 4, 4, 4)) for batch in maps(64, 4, 3)]
    row = measured(nn.Conv2d(4, 4, 3, padding=1), data)
    assert row["vectors"] == "mixes positions"


def test_a_shortcut_makes_a_block_nearly_linear_and_is_taken_off() -> None:
    torch.manual_seed(0)
    block = residual(Act(16, lambda x: 0.3 * torch.abs(x)))
    with pytest.warns(BlockWarning, match="mean L 0.00"):
        row = measured(block, vectors())
    assert row["activation"] == "block.branch:abs#0"
    assert row["nlc"] + row["nlc_change"] == pytest.approx(1, abs=0.01)
    assert row["r2"] == pytest.approx(1 / (1 + 0.09 * (1 - 2 / np.pi)), abs=0.005)
    assert row["r2_without_residual"] == pytest.approx(0, abs=0.03)


def make_block(act: nn.Module) -> Network:
    """Two convolutions with a given activation between them."""
    return Network(
        lambda n, x: n.conv2(n.act(n.conv1(x))),
        conv1=nn.Conv2d(4, 4, 3, padding=1),
        act=act,
        conv2=nn.Conv2d(4, 4, 3, padding=1),
    )


def net(act: nn.Module) -> Network:
    """Three blocks, the middle one of them planted."""
    return Network(
        lambda n, x: n.head(n.blocks(x).mean((2, 3))),
        blocks=nn.Sequential(
            make_block(nn.ReLU(inplace=True)), make_block(act), make_block(nn.ReLU())
        ),
        head=nn.Linear(4, 3),
    )


def test_a_linear_block_is_found_among_others() -> None:
    torch.manual_seed(0)
    table = acon.block_linearity(net(nn.Identity()).eval(), maps())
    assert list(table["block"]) == ["blocks.0", "blocks.1", "blocks.2", "whole network"]
    planted = table.iloc[1]
    assert planted["nlc"] == pytest.approx(1, abs=1e-6)
    assert np.isnan(planted["elementwise_L"])
    assert np.isnan(planted["nlc_change"])
    others = table.iloc[[0, 2]]
    assert ((others["nlc"] - 1).abs() > 3 * others["nlc_error"]).all()
    assert list(others["activation"]) == ["blocks.0.act", "blocks.2.act"]
    assert (others["nlc"] + others["nlc_change"]).to_numpy() == pytest.approx(1, abs=0.02)


def test_a_warning_says_where_activations_mislead() -> None:
    torch.manual_seed(0)
    act = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    with pytest.warns(BlockWarning, match=r"1 of 1 block \('block': R² 0.9\d, mean L 0.7"):
        measured(residual(act), vectors())


def test_the_activation_that_bends_a_block_is_named() -> None:
    """One activation sees positive inputs only; the other is all of the nonlinearity."""

    torch.manual_seed(0)
    data = list(torch.split(torch.randn(2000, 8), 100))
    two = Network(
        lambda n, x: n.bent(n.linear(n.idle(x + 100) - 100)),
        idle=nn.ReLU(),
        bent=nn.ReLU(),
        linear=nn.Linear(8, 8),
    )
    row = acon.block_linearity(nn.Sequential(two, nn.Tanh()).eval(), data, ["0"]).iloc[0]
    assert row["activation"] == "0.bent"
    assert row["inside"] == pytest.approx([1.0, 0.73], abs=0.05)
    assert row["elementwise_L"] == pytest.approx(np.mean(row["inside"]))
    assert row["nlc"] + row["nlc_change"] == pytest.approx(1, abs=0.04)


def test_the_model_stays_as_it_is() -> None:
    torch.manual_seed(0)
    network = net(nn.SiLU()).eval()
    before, x = copy.deepcopy(network.state_dict()), maps()[0]
    expected, state = network(x), torch.get_rng_state()
    acon.block_linearity(network, maps())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(network(x), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert all(value.requires_grad and value.grad is None for value in network.parameters())


def test_the_error_of_a_change_covers_an_independent_estimate() -> None:
    """A gate replaced by its line: derivatives by double backward, 20,000 triples."""
    torch.manual_seed(0)

    gated = Network(
        lambda n, x: n.act(n.gate(x)) * n.up(x),
        gate=nn.Linear(8, 8),
        act=nn.SiLU(),
        up=nn.Linear(8, 8),
    )
    model, x = gated.eval(), torch.cat(vectors(2000, 8))
    with torch.no_grad():
        z = model.gate(x)
        y, centred = model.act(z), z - z.mean(0)
        slope = (centred * y).sum(0) / (centred * centred).sum(0)
        shift = y.mean(0) - slope * z.mean(0)
        first, second, third = torch.randint(len(x), (3, 20_000))
        d = x[second] - x[third]

        def nlc(f: Callable[[Tensor], Tensor]) -> float:
            _, along = torch.autograd.functional.jvp(f, x[first], d)  # type: ignore[no-untyped-call]
            return float(
                (along.square().sum() / (f(x[second]) - f(x[third])).square().sum()).sqrt()
            )

        want = nlc(lambda v: (slope * model.gate(v) + shift) * model.up(v)) - nlc(model)
    for seed in range(2):
        with pytest.warns(BlockWarning, match="products and normalisations less"):
            table = acon.block_linearity(
                nn.Sequential(model), list(torch.split(x, 100)), ["0"], seed=seed
            )
        change, error = table[["nlc_change", "nlc_change_error"]].to_numpy()[0]
        assert abs(change - want) < 4 * error < 0.2
