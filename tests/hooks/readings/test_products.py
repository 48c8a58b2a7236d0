"""Products of two tensors: which are layers, what their factors are, L against numpy's lstsq."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import ndtri
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.statistics.linearity import channel_table, layer_table, sample_table
from acon_hooks.errors import HookError, UnusedLayerWarning
from acon_hooks.layers.reading import Factors
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.tap import Tap
from gathering import BOTH, accumulator, gather
from networks import Network
from product_oracle import linearity

PLAIN = ("activation", "product")
Forward = Callable[[Any, Tensor], Any]
Parts = tuple[Tensor, Tensor, Tensor]


class Net(nn.Module):
    """Two linear maps of the last axis, and a forward that multiplies them somehow."""

    def __init__(self, forward: Forward, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.up, self.gate = nn.Linear(5, width), nn.Linear(5, width)
        self.act, self.norm = nn.SiLU(), nn.LayerNorm(width)
        self.run = forward
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.act(x)
        out: Tensor = self.run(self, x)
        return out


def found(forward: Forward, x: Tensor | None = None) -> dict[str, tuple[str, str]]:
    """Kind and gate of the layers whose names have a function."""
    example = torch.randn(4, 7, 5) if x is None else x
    layers = acon.find_layers(Net(forward), PLAIN, example)
    found = [layer for layer in layers if ":mul" in layer.name]
    return {layer.name: (layer.kind, layer.gate[0] if layer.gate else "") for layer in found}


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def silu_by_hand(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


PRODUCTS: dict[str, tuple[Forward, dict[str, tuple[str, str]]]] = {
    "SwiGLU": (lambda n, x: n.act(n.gate(x)) * n.up(x), {":mul#0": ("product", "act")}),
    "GEGLU": (lambda n, x: n.up(x) * F.gelu(n.gate(x)), {":mul#0": ("product", ":gelu#0")}),
    "bilinear": (lambda n, x: torch.multiply(n.up(x), n.gate(x)), {":mul#0": ("product", "")}),
    "in place": (
        lambda n, x: n.up(x).mul_(torch.sigmoid(n.gate(x))),
        {":mul#0": ("product", ":sigmoid#0")},
    ),
    "activation by hand": (lambda n, x: silu_by_hand(n.up(x)), {":mul#0": ("activation", "")}),
    "hard swish by hand": (
        lambda n, x: n.up(x).mul(F.relu6(n.up(x) + 3).div_(6)),
        {":mul#0": ("product", ":relu6#0")},
    ),
    "mish by hand": (
        lambda n, x: (lambda h: h * torch.tanh(F.softplus(h)))(n.up(x)),
        {":mul#0": ("activation", "")},
    ),
    "gate by hand": (
        lambda n, x: n.up(x) * silu_by_hand(n.gate(x)),
        {":mul#0": ("activation", ""), ":mul#1": ("product", ":mul#0")},
    ),
    "WaveNet": (
        lambda n, x: torch.sigmoid(n.gate(x)) * torch.tanh(n.up(x)),
        {":mul#0": ("product", ":sigmoid#0")},
    ),
    "gate of an update": (
        lambda n, x: (1 - torch.sigmoid(n.gate(x))) * n.up(x),
        {":mul#0": ("product", ":sigmoid#0")},
    ),
    "scaled": (lambda n, x: 0.5 * n.up(x) * 2, {}),
    "weighted": (lambda n, x: n.norm.weight * F.relu(n.up(x)), {}),
    "RMSNorm": (lambda n, x: rms(n.up(x)), {}),
    "RMSNorm of an activation": (lambda n, x: rms(F.relu(n.up(x))), {}),
    "division": (lambda n, x: F.relu(n.up(x)) * (n.gate(x) / n.gate(x).std()), {}),
    "softmax": (lambda n, x: F.relu(n.up(x)) * n.gate(x).softmax(-1), {}),
    "mask": (lambda n, x: F.relu(n.up(x)) * (x[..., :1] > 0).float(), {}),
    "residual": (lambda n, x: (x + n.up(x)[..., :5]) * x, {}),
    "rotary": (lambda n, x: n.up(x) * torch.arange(7.0).unsqueeze(1).sin() + n.gate(x), {}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_which_products_are_layers(name: str) -> None:
    forward, expected = PRODUCTS[name]
    assert found(forward) == expected


def observed(model: nn.Module, batches: list[Tensor], name: str) -> list[list[Tensor]]:
    """Return x, z, a and h of every call of a layer, batch by batch."""
    seen: list[list[Tensor]] = []

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, extra: Any) -> None:
        if layer.name == name:
            parts = [x, y, *(extra if isinstance(extra, Factors) else ())]
            seen.append([part.clone() for part in parts])

    with torch.no_grad(), Tap(model, kinds=PLAIN, observe=observe) as tap:
        for batch in batches:
            model(batch)
            tap.take()
    return seen


def arranged(how: Callable[[Tensor], Tensor]) -> Forward:
    """A gate whose values are moved before they multiply."""
    return lambda n, x: n.up(x)[:, :3, :4] * how(torch.sigmoid(n.gate(x)))


MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "slice": lambda g: g[:, 2:5, :4],
    "transpose": lambda g: g.transpose(1, 2)[:, :3, :4],
    "chunk": lambda g: g.chunk(2, 1)[1][..., 2:],
    "broadcast": lambda g: g[:, :1, :1].expand(-1, 3, 4),
    "view": lambda g: g.view(len(g), -1)[:, :12].reshape(-1, 3, 4),
}


@pytest.mark.parametrize("name", MOVED)
def test_the_gate_s_input_is_arranged_as_the_gate_is(name: str) -> None:
    model = Net(arranged(MOVED[name]))
    batches = [torch.randn(size, 7, 5) for size in (4, 3, 6)]
    seen = observed(model, batches, ":mul#0")
    for batch, (x, z, a, h) in zip(batches, seen, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(x, MOVED[name](model.gate(batch)).expand_as(x))
            torch.testing.assert_close(torch.sigmoid(x), h)
            torch.testing.assert_close(a, model.up(batch)[:, :3, :4])
            torch.testing.assert_close(a * h, z)


def test_copies_and_constants_between_a_gate_and_its_product() -> None:
    def forward(n: Any, x: Tensor) -> Any:
        gate = (2 * torch.sigmoid(n.gate(x))).flatten(1).contiguous() - 1
        return n.up(x).flatten(1) * gate

    model = Net(forward)
    batches = [torch.randn(size, 7, 5) for size in (4, 2)]
    for batch, (x, z, a, h) in zip(batches, observed(model, batches, ":mul#1"), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(x, model.gate(batch).flatten(1))
            torch.testing.assert_close(h, 2 * torch.sigmoid(x) - 1)
            torch.testing.assert_close(a * h, z)


@pytest.mark.parametrize("product", [lambda a, h: a.mul_(h), lambda a, h: h.mul_(a)])
@pytest.mark.parametrize("gate", [torch.sigmoid, torch.sigmoid_, lambda t: F.silu(t, inplace=True)])
def test_what_is_overwritten_is_read_as_it_was(gate: Any, product: Any) -> None:
    model = Net(lambda n, x: product(n.up(x), gate(n.gate(x))))
    batches = [torch.randn(size, 7, 5) for size in (4, 2)]
    for batch, (x, z, a, h) in zip(batches, observed(model, batches, ":mul#0"), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(x, model.gate(batch))
            torch.testing.assert_close(a, model.up(batch))
            torch.testing.assert_close(h, gate(x.clone()))
            torch.testing.assert_close(a * h, z)


@pytest.mark.parametrize("first", [True, False])
def test_one_part_of_a_tensor_is_overwritten_and_gates_the_other(first: bool) -> None:
    def forward(n: Any, x: Tensor) -> Any:
        a, g = n.gate(x).split(3, -1)[:: 1 if first else -1]
        g.sigmoid_()
        return (a * g + g * a) + a * n.up(x)[..., :3]

    model = Net(forward)
    batches = [torch.randn(size, 7, 5) for size in (4, 2)]
    for name in (":mul#0", ":mul#1"):
        for batch, (x, z, a, h) in zip(batches, observed(model, batches, name), strict=True):
            with torch.no_grad():
                parts = model.gate(batch).split(3, -1)
                torch.testing.assert_close(x, parts[first])
                torch.testing.assert_close(a, parts[not first])
                torch.testing.assert_close(h, torch.sigmoid(x))
                torch.testing.assert_close(a * h, z)


def test_calls_in_any_order_have_their_own_gates() -> None:
    def forward(n: Any, x: Tensor) -> Any:
        first, second = n.act(n.gate(x)), n.act(n.gate(-x))
        return n.up(x) * second + n.up(x) * first

    model = Net(forward)
    batches = [torch.randn(size, 7, 5) for size in (4, 2)]
    for name, sign in ((":mul#0", -1), (":mul#1", 1)):
        for batch, (x, _, _, _) in zip(batches, observed(model, batches, name), strict=True):
            with torch.no_grad():
                torch.testing.assert_close(x, model.gate(sign * batch))


def test_a_module_that_multiplies_is_used_twice() -> None:
    model = Network(
        lambda n, x: n.inner(n.inner(x)), inner=Net(PRODUCTS["SwiGLU"][0], width=5)
    ).eval()
    batches = [torch.randn(size, 7, 5) for size in (4, 2)]
    seen = observed(model, batches, "inner:mul#0")
    assert len(seen) == 4
    with torch.no_grad():
        torch.testing.assert_close(seen[3][0], model.inner.gate(model.inner(batches[1])))


def test_a_gate_that_changes_between_batches_is_refused() -> None:
    def forward(n: Any, x: Tensor) -> Any:
        gates = torch.sigmoid(n.gate(x)), torch.sigmoid(n.gate(-x))
        return n.up(x) * gates[int(len(x) > 4)]

    model = Net(forward)
    with torch.no_grad(), Tap(model, kinds=PLAIN) as tap:
        model(torch.randn(4, 7, 5))
        tap.take()
        with pytest.raises(HookError, match="its gate does not come from ':sigmoid#0'"):
            model(torch.randn(5, 7, 5))


@BOTH
@pytest.mark.parametrize("name", ["SwiGLU", "GEGLU", "bilinear", "in place", "WaveNet"])
def test_linearity_against_least_squares(name: str, kernel: str) -> None:
    model, x = Net(PRODUCTS[name][0]), torch.randn(30, 9, 5)
    _, parts = gather(model, x, cuts=(7, 11), accumulator=accumulator(kernel), kinds=PLAIN)
    channels: Any = channel_table(parts["moments"]).set_index("layer").loc[":mul#0"]
    layer: Any = layer_table(parts["moments"]).set_index("layer").loc[":mul#0"]
    samples: Any = sample_table(parts["totals"]).set_index("layer").loc[":mul#0"]
    (seen,) = observed(model, [x], ":mul#0")
    b, z, a, h = (t.double().transpose(1, 2).numpy() for t in seen)
    by_channel, whole, by_sample = linearity(z, b, a)
    np.testing.assert_allclose(channels["L"], by_channel, atol=1e-6)
    assert layer["L"] == pytest.approx(whole, abs=1e-6)
    np.testing.assert_allclose(samples["L"], by_sample, atol=1e-6)
    if name == "bilinear":
        assert np.isnan(layer["L_gate"])
    else:
        np.testing.assert_allclose(channels["L_gate"], linearity(h, b)[0], atol=1e-6)


def test_squeeze_excitation_broadcasts_its_gate() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.silu(self.conv(x))
            return x * torch.sigmoid(self.fc(4 * x.mean((2, 3), keepdim=True)))

    model, images = Squeeze().eval(), torch.randn(20, 3, 5, 4)
    _, parts = gather(model, images, cuts=(8,), kinds=PLAIN)
    with torch.no_grad():
        a = F.silu(model.conv(images))
        b = model.fc(4 * a.mean((2, 3), keepdim=True))
        z = a * torch.sigmoid(b)
    zs, bs, as_ = (t.expand_as(a).double().flatten(2).numpy() for t in (z, b, a))
    table: Any = channel_table(parts["moments"]).set_index("layer").loc[":mul#1"]
    np.testing.assert_allclose(table["L"], linearity(zs, bs, as_)[0], atol=1e-6)
    assert set(parts["moments"]["layer"]) == {":silu#0", ":sigmoid#0", ":mul#1"}


CLOSED: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "GLU": (torch.sigmoid, 0.8521),
    "SwiGLU": (F.silu, 0.1200),
    "GEGLU": (F.gelu, 0.1871),
    "ReGLU": (F.relu, 1 / np.pi),
    "bilinear": (lambda b: b, 0.0),
}


@pytest.mark.parametrize("name", CLOSED)
def test_independent_gaussians_on_a_quantile_grid(name: str) -> None:
    """L = E[g]²/E[g²]: a·g(b) is uncorrelated with b, and has covariance E[g] with a."""
    gate, expected = CLOSED[name]

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Linear(2, 1, bias=False, dtype=torch.float64) for _ in "ab")
            for linear, weights in ((self.a, [1.0, 0.0]), (self.b, [0.0, 1.0])):
                linear.weight.data = torch.tensor([weights], dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.a(x) * gate(self.b(x))
            return out

    side = 500
    normal = ndtri((np.arange(side) + 0.5) / side)
    grid = torch.tensor(np.stack(np.meshgrid(normal, normal), -1).reshape(-1, 2))
    _, parts = gather(Product().eval(), grid, cuts=(side**2,), kinds=("product",))
    assert layer_table(parts["moments"])["L"].iloc[0] == pytest.approx(expected, abs=1e-3)


def test_a_run_marks_gates_and_compares_them_with_their_products(tmp_path: Path) -> None:
    model = Net(PRODUCTS["SwiGLU"][0])
    data = TensorDataset(2 * torch.randn(60, 9, 5))
    run = acon.capture(model, data, tmp_path / "run", unit_size=16, batch_size=8)
    layers = run.layers.set_index(["layer", "call"])
    assert layers["kind"].to_list() == ["activation", "activation", "product"]
    assert layers["gate_of"].to_dict() == {("act", 0): "", ("act", 1): ":mul#0", (":mul#0", 0): ""}
    table: Any = run.linearity(columns="all").set_index(["layer", "call"])
    product, gate = table.loc[":mul#0", 0], table.loc["act", 1]
    assert product["L_gate"] == pytest.approx(gate["L"], abs=1e-9)
    assert product["L"] < gate["L"] - 0.2
    assert "L of its gate alone" in product["why"]


def test_named_products() -> None:
    model, x = Net(PRODUCTS["RMSNorm"][0]), torch.randn(4, 7, 5)
    with (
        pytest.raises(HookError, match="come from no activation"),
        torch.no_grad(),
        Tap(model, [":mul#0"], kinds=("product",)),
    ):
        model(x)
    model = Net(PRODUCTS["SwiGLU"][0])
    with torch.no_grad(), Tap(model, [":mul#0"], kinds=("product",)) as tap:
        model(x)
        tap.take()
        model(x[:2])
        assert [(layer.kind, layer.channels) for layer in tap.layers] == [("product", 6)]
    with pytest.raises(UsageError, match="may be a product or the last step of an activation"):
        Tap(model, [":mul#0"], kinds=PLAIN)


def test_products_inside_vmap_are_left_alone() -> None:
    def forward(n: Any, x: Tensor) -> Any:
        return torch.vmap(lambda up, gate: up * torch.sigmoid(gate))(n.up(x), n.gate(x))

    model = Net(lambda n, x: forward(n, x) + PRODUCTS["SwiGLU"][0](n, x))
    x = torch.randn(4, 7, 5)
    with pytest.warns(UnusedLayerWarning, match="':sigmoid#0'.*torch.func"):
        seen = observed(model, [x, x[:2]], ":mul#1")
    assert [len(z) for _, z, _, _ in seen] == [4, 2]
