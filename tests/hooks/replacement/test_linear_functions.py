"""Lines in the place of activations that a network calls as functions."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

from acon_hooks import (
    fit_units,
    fold_lines,
    linearize,
    load_linearized,
    save_linearized,
    verify_plan,
)
from acon_hooks.replacement.damage import channel_damage, first_order_damage
from acon_hooks.replacement.plan import PlanError
from network_oracle import settled


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.fail = nn.Linear(4, 4), False

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.fc(x), inplace=True)
        if self.fail:
            raise ValueError("of the network")
        return h * torch.sigmoid(h) + x


class Network(nn.Module):
    """Functions in place and in pieces, in a block that runs twice; and a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.act = nn.Linear(3, 4), Block(), nn.Tanh()
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        again = torch.relu_(h) + h  # reads what relu_ has overwritten
        return self.last(self.act(self.block(self.block(again))))


def with_lines(model: Any, x: Tensor, lines: dict[tuple[str, int], Tensor]) -> Tensor:
    """Return what the network computes with lines (slope, intercept, chosen), (3, C)."""

    def line(name: str, call: int, x: Tensor, y: Tensor) -> Tensor:
        if (name, call) not in lines:
            return y
        slope, intercept, chosen = lines[name, call]
        return torch.where(chosen.bool(), slope * x + intercept, y)

    h = model.first(x)
    h = 2 * line(":relu#0", 0, h, h.relu())
    for call in (0, 1):
        inner = model.block.fc(h)
        inner = line("block:relu#0", call, inner, inner.relu())
        h = line("block:mul#0", call, inner, inner * inner.sigmoid()) + h
    return model.last(line("act", 0, h, h.tanh()))


def samples(count: int = 30) -> Tensor:
    return 2 * torch.randn(count, 3).double()


@pytest.mark.parametrize("budget", [0.5, 1.0])
def test_a_copy_has_the_lines_that_an_own_program_puts_there(budget: float, tmp_path: Path) -> None:
    model, x, other = settled(Network()).double(), samples(), samples()
    plan = fit_units(model, [x]).plan(budget=budget)
    assert {unit.layer for unit in plan.units} >= {"block:relu#0", "block:mul#0", "act"}
    lines: dict[tuple[str, int], Tensor] = {}
    for unit in plan.units:
        own = lines.setdefault((unit.layer, unit.call), torch.zeros(3, 4).double())
        own[:, unit.channel] = torch.tensor([unit.slope, unit.intercept, 1], dtype=torch.float64)
    with torch.no_grad():
        before, want = model(other), with_lines(model, other, lines)
        changed = linearize(model, plan)
        for made in (changed, copy.deepcopy(changed), pickle.loads(pickle.dumps(changed))):
            torch.testing.assert_close(made(other), want, rtol=1e-12, atol=1e-12)
            assert torch.equal(made(other[:3]), made(other)[:3])
        assert torch.equal(model(other), before)
        found = verify_plan(model, plan, [other]).samples["change"]
        np.testing.assert_allclose(
            found, ((want - before).norm(dim=1) / before.norm(dim=1)).numpy(), rtol=1e-9
        )
        loaded = load_linearized(save_linearized(changed, plan, tmp_path), Network().double())
        torch.testing.assert_close(loaded(other), want, rtol=1e-12, atol=1e-12)
    changed(other).square().sum().backward()
    assert all(value.grad is not None for value in changed.parameters())
    assert _get_current_function_mode_stack() == []


def test_a_copy_that_fails_listens_no_longer() -> None:
    model, x = settled(Network()).double(), samples()
    changed = linearize(model, fit_units(model, [x]).plan(budget=0.5))
    vars(changed.get_submodule("block"))["fail"] = True
    with pytest.raises(ValueError, match="of the network"):
        changed(x)
    assert _get_current_function_mode_stack() == []


def test_folding_leaves_functions_alone() -> None:
    model, x = settled(Network()).double(), samples()
    changed = linearize(model, fit_units(model, [x]).plan(budget=1.0))
    folded = fold_lines(changed, x)
    assert folded.table["layer"].tolist() == ["act"]
    with torch.no_grad():
        torch.testing.assert_close(folded.model(x), changed(x))


def test_single_channels_and_the_first_order() -> None:
    model, x, other = settled(Network()).double(), samples(), samples()
    fit = fit_units(model, [x])
    table = channel_damage(model, fit, other, layers=["block:mul#0"])
    (row,) = table.query("call == 1 and channel == 2").itertuples()
    units = fit.plan(layers=["block:mul#0"]).units
    (unit,) = (unit for unit in units if (unit.call, unit.channel) == (1, 2))
    line = torch.zeros(3, 4).double()
    line[:, 2] = torch.tensor([unit.slope, unit.intercept, 1], dtype=torch.float64)
    with torch.no_grad():
        before = model(other)
        change = with_lines(model, other, {("block:mul#0", 1): line}) - before
        want = (change.norm(dim=1) / before.norm(dim=1)).mean()
    assert row.mean == pytest.approx(float(want), rel=1e-9)
    first = first_order_damage(model, fit, other, layers=["block:mul#0"])
    assert len(first) == 8
    assert first["first_order"].notna().all()


def test_a_plan_for_a_module_that_is_not_there() -> None:
    model, x = settled(Network()).double(), samples()
    plan = fit_units(model, [x], layers=["block:relu#0"]).plan(budget=1.0)
    with pytest.raises(PlanError, match="no layer 'block:relu#0'"):
        linearize(nn.Sequential(nn.Linear(3, 4)).double(), plan, any_weights=True)
