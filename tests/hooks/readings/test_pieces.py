"""Activations written out of pieces: one layer, from the tensor that all pieces are made of."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import acon_analysis as acon
import acon_hooks
from acon_hooks import HookError, fit_units, verify_plan
from acon_hooks.engine.edits import Editing, Hold
from acon_hooks.engine.visiting import visiting
from acon_hooks.readings.pieces import computed
from network_oracle import linearity, settled

KINDS = ("activation",)


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def in_place(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    gate *= x
    return gate


PIECES: dict[str, tuple[str, str, Callable[[Tensor], Tensor]]] = {
    "silu": ("mul#0", "SiLU", lambda x: x * torch.sigmoid(x)),
    "silu, the gate first": ("mul#0", "SiLU", lambda x: x.sigmoid() * x),
    "silu in place": ("mul#0", "SiLU", in_place),
    "silu of a quotient": ("div#0", "SiLU", lambda x: x / (1 + torch.exp(-x))),
    "quick gelu": ("mul#1", "QuickGELU", lambda x: x * torch.sigmoid(1.702 * x)),
    "gelu": ("mul#1", "GELU", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    "gelu by tanh": ("mul#3", "GELU", tanh_gelu),
    "mish": ("mul#0", "Mish", lambda x: x * torch.tanh(F.softplus(x))),
    "hardswish": ("mul#0", "Hardswish", lambda x: x * F.relu6(x + 3) / 6),
    "halved last": ("mul#0", "GELU", lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2),
    "unknown": ("mul#1", "x*sigmoid(x)", lambda x: x * torch.sigmoid(3 * x)),
}


class Between(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(3, 4), nn.Linear(4, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


@pytest.mark.parametrize("name", PIECES)
def test_an_activation_in_pieces_is_one_layer(name: str, tmp_path: Path) -> None:
    site, formula, function = PIECES[name]
    model, x = settled(Between(function)).double(), [torch.randn(9, 3).double() for _ in range(2)]
    expected = [model(batch) for batch in x]
    with torch.no_grad(), acon.record(model, kinds=KINDS):
        assert all(torch.equal(model(batch), out) for batch, out in zip(x, expected, strict=True))
    run = acon.capture(model, x, tmp_path, kinds=KINDS, progress=False)
    assert run.layers[["layer", "class_name"]].to_numpy().tolist() == [[f":{site}", formula]]
    with torch.no_grad():
        inputs = [model.first(batch) for batch in x]
        want = linearity([(h, function(h.clone())) for h in inputs], 1)
    np.testing.assert_allclose(run.linearity("channel")["L"], want.channel, atol=1e-6)
    census = acon_hooks.nonlinearities(model, x[0])
    assert (census.loc[census["class"] == "nonlinear", "layer"] == f":{site}").all()


def test_values_that_several_activations_explain_name_none() -> None:
    x = torch.full((3, 4), 1e-5)
    assert computed(x, F.silu(x)) == computed(torch.zeros(3), torch.zeros(3)) == ""
    wide = torch.linspace(-40, 40, 999)
    for dtype in (torch.float32, torch.float64):
        assert computed(wide.to(dtype), tanh_gelu(wide.to(dtype))) == "GELU", dtype
    assert computed(wide, F.silu(wide) + 1e-3) == computed(wide, torch.tanh(wide)) == ""


@pytest.mark.parametrize(("function", "names"), [
    (lambda x: x + F.relu(x), [":relu#0"]),
    (lambda x: x * x * x + F.relu(x), [":relu#0"]),
    (lambda x: torch.tanh(F.relu(x)), [":relu#0", ":tanh#0"]),
    (lambda x: x * torch.sigmoid(x.flip(1)), [":sigmoid#0"]),
    (lambda x: x * torch.sigmoid(x).softmax(1), [":sigmoid#0"]),
    (lambda x: (lambda y: y * torch.sigmoid(y))(F.relu(x)), [":relu#0", ":mul#0"]),
    (lambda x: x.mul_(2) * torch.sigmoid(x).add_(x.mul_(0.5)), [":sigmoid#0"]),
])  # fmt: skip
def test_other_functions_stay_layers_of_their_own(
    function: Callable[[Tensor], Tensor], names: list[str]
) -> None:
    model = settled(Between(function))
    with torch.no_grad():
        found = acon.find_layers(model, KINDS, torch.randn(9, 3))
    assert [layer.name for layer in found] == names


class WithModule(nn.Module):
    """Calls one sigmoid module: `forward` gets the modules and the first linear's output."""

    def __init__(self, forward: Callable[[nn.Sigmoid, nn.Linear, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 4)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.gate, self.last, self.first(x))


def twice(gate: nn.Sigmoid, last: nn.Linear, h: Tensor) -> Tensor:
    h = last(h * gate(h))
    return h * gate(h)


def used_again(gate: nn.Sigmoid, last: nn.Linear, h: Tensor) -> Tensor:
    g = gate(h)
    return h * g + last(g)


@pytest.mark.parametrize(("forward", "calls"), [
    (lambda gate, last, h: last(h * gate(h)), [(":mul#0", 0)]),
    (twice, [(":mul#0", 0), (":mul#1", 0)]),
    (used_again, [("gate", 0), (":mul#0", 0)]),
    (lambda gate, last, h: gate(last(h * gate(h))), [(":mul#0", 0), ("gate", 0), ("gate", 1)]),
])  # fmt: skip
def test_a_module_is_a_piece_if_all_its_calls_are(
    forward: Callable[[nn.Sigmoid, nn.Linear, Tensor], Tensor], calls: list[tuple[str, int]]
) -> None:
    model, x = settled(WithModule(forward)), torch.randn(40, 3)
    with torch.no_grad(), acon.record(model) as recording:
        model(x[:16])
        model(x[16:])
        h = model.first(x)
    table = recording.linearity(by="channel").set_index(["layer", "call"])
    assert list(dict.fromkeys(table.index)) == calls
    want = linearity([(h, F.silu(h))], 1)
    own = table[(table.index == (":mul#0", 0))]["L"].to_numpy()
    np.testing.assert_allclose(own, want.channel, atol=1e-6)


def test_factors_that_come_apart_later_are_an_error() -> None:
    model, x = settled(Between(lambda x: x * torch.sigmoid(x))), torch.randn(9, 3)
    with torch.no_grad(), acon.record(model, kinds=KINDS):
        model(x)
        model.function = lambda x: x * torch.sigmoid(x.flip(1))
        with pytest.raises(HookError, match="':mul#0', batch 1: its factors are not made of one"):
            model(x)


def test_an_activation_in_pieces_is_replaced_as_a_whole() -> None:
    model, x = settled(Between(in_place)).double(), torch.randn(40, 3).double()
    (layer,) = acon.find_layers(model, KINDS, x)
    two = Hold(torch.full((4,), 2.0), torch.ones(4).bool())
    with torch.no_grad(), visiting(model, [layer.site()], Editing({layer.site(): two})):
        torch.testing.assert_close(model(x), model.last(torch.full((40, 4), 2.0).double()))
    plan = fit_units(model, [x], kinds=KINDS).plan(budget=1.0)
    lines = plan.table.sort_values("channel")
    report = verify_plan(model, plan, [x])
    slope, intercept = (torch.tensor(lines[name].to_numpy()) for name in ("slope", "intercept"))
    with torch.no_grad():
        want, before = model.last(slope * model.first(x) + intercept), model(x)
        change = (want - before).norm(dim=1) / before.norm(dim=1)
    np.testing.assert_allclose(report.samples["change"], change.numpy(), rtol=1e-9)
