"""Several forms in one plan: planted channels, and the rule computed again by hand."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.layers import AconC
from acon_hooks import load_linearized
from acon_hooks.engine.edits import Function, Line, Mixed
from acon_hooks.replacement.plan import load_plan
from acon_hooks.replacement.replace import plan_forms, replace_data, sentence

FORMS = ("line", "relu", "two-piece", "hardswish")


class Planted(nn.Module):
    """PReLU, in place and by channel, ACON-C, Hardswish as a function, and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
        self.prelu, self.acon, self.silu = nn.PReLU(4), AconC(4), nn.SiLU(inplace=True)
        with torch.no_grad():
            self.prelu.weight.copy_(torch.tensor([1.0, 0.0, 0.3, 0.0]))
            self.acon.beta.copy_(torch.tensor([0.0, 2.0, 0.0, 2.0]).reshape(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.acon(self.prelu(self.first(x)))
        return self.last(self.silu(F.hardswish(2 * h) - 1).mean((2, 3)))


#: What the channels of each layer are.
TRUTH = {
    ("prelu", 0): "line", ("prelu", 1): "relu", ("prelu", 2): "two-piece", ("prelu", 3): "relu",
    ("acon", 0): "line", ("acon", 2): "line",
    **{(":hardswish#0", channel): "hardswish" for channel in range(4)},
}  # fmt: skip


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 6, 6, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def planted() -> Planted:
    torch.manual_seed(3)
    return Planted().double().eval()


def test_every_planted_channel_gets_its_own_form(planted: Planted, tmp_path: Path) -> None:
    done = replace_data(
        planted, [images(9, 2)], FORMS, [images(40, 1)], max_change=1e-6, out=tmp_path, logits=False
    )
    assert {(unit.layer, unit.channel): unit.form for unit in done.plan.units} == TRUTH
    x = images(9, 5)
    with torch.no_grad():
        torch.testing.assert_close(done.model(x), planted(x), atol=1e-6, rtol=0)
        assert load_plan(tmp_path / "plan.json") == done.plan
        again = load_linearized(tmp_path, planted)
        torch.testing.assert_close(again(x), done.model(x), atol=0, rtol=0)
        torch.testing.assert_close(acon.linearize(planted, done.plan)(x), done.model(x))
        assert not torch.equal(again(x), acon.replace(planted, [images(40, 1)], "relu")(x))
    assert list(done.table["form"]) == ["mixed", "relu"]
    assert done.table["output_change"][0] < 1e-6 < done.table["output_change"][1]
    counts = "10 channels of 3 layers (3 line, 2 relu, 1 two-piece, 4 hardswish)"
    assert sentence(done).startswith(counts)
    assert "; relu (baseline): output changes by" in sentence(done)
    assert sentence(done).endswith("Baseline: relu in the same channels.")


def test_the_order_is_that_of_the_cost(planted: Planted) -> None:
    def forms(*names: str) -> dict[tuple[str, int], str]:
        plan = plan_forms(planted, [images(40, 1)], names, max_change=1e-6)
        return {(unit.layer, unit.channel): unit.form for unit in plan.units}

    both = {**TRUTH, ("prelu", 1): "two-piece", ("prelu", 3): "two-piece"}
    lines = dict.fromkeys((key for key, form in TRUTH.items() if form == "line"), "two-piece")
    found = forms("two-piece", *FORMS)
    assert found == {**both, **lines}
    assert forms("line") == {key: form for key, form in TRUTH.items() if form == "line"}


def test_the_rule_is_that_of_a_search_over_all_tolerances(planted: Planted) -> None:
    names, data = ("line", "relu", "poly:2"), images(40, 1)
    units = {
        (unit.layer, unit.channel, form): unit
        for form in names
        for unit in plan_forms(planted, [data], form).units
    }
    own = {key: moved(planted, [unit], data, 1e-5) for key, unit in units.items()}
    mixtures = []
    for tolerance in sorted(own.values()):
        picked: dict[tuple[str, int], str] = {}
        for layer, channel, form in units:  # all channels of the first form first
            if own[layer, channel, form] <= tolerance:
                picked.setdefault((layer, channel), form)
        change = moved(planted, [units[*key, form] for key, form in picked.items()], data)
        mixtures.append((picked, change))
    for allowed in (0.005, 0.02, 0.1):
        plan = plan_forms(planted, [data], names, max_change=allowed)
        found = {(unit.layer, unit.channel): unit.form for unit in plan.units}
        changes = [change for picked, change in mixtures if picked == found]
        assert changes[0] == pytest.approx(moved(planted, plan.units, data))
        assert changes[0] <= allowed
        after = mixtures[[picked for picked, _ in mixtures].index(found) + len(changes)]
        assert after[1] > allowed
    assert set(found.values()) == set(names)


def moved(model: Planted, units: Iterable[Any], data: Tensor, share: float = 1.0) -> float:
    """Return the mean relative change of the output when units go a share of the way, by hand."""

    def run(name: str, x: Tensor, y: Tensor) -> Tensor:
        y = y.clone()
        for unit in units:
            if unit.layer == name:
                new = by_hand(unit, x[:, unit.channel])
                y[:, unit.channel] += share * (new - y[:, unit.channel])
        return y

    with torch.no_grad():
        h = model.first(data)
        h = run("prelu", h, model.prelu(h))
        h = run("acon", h, model.acon(h))
        h = run(":hardswish#0", 2 * h, F.hardswish(2 * h)) - 1
        after, before = model.last(run("silu", h, F.silu(h)).mean((2, 3))), model(data)
    return float(((after - before).norm(dim=1) / before.norm(dim=1)).mean()) / share


def by_hand(unit: Any, x: Tensor) -> Tensor:
    """Return what a planned unit says that its channel computes."""
    if unit.form == "relu":
        return x.clamp(min=0)
    if unit.form == "line":
        return unit.slope * x + unit.intercept
    center, scale, *rest = unit.coefficients
    return sum((c * ((x - center) / scale) ** k for k, c in enumerate(rest)), torch.zeros_like(x))


def test_a_mixture_exports(planted: Planted) -> None:
    changed = acon.replace(planted, [images(40, 1)], FORMS, max_change=1e-6).float()
    x = images(4, 1).float()
    program = torch.export.export(changed, (x,))
    torch.testing.assert_close(program.module()(x), changed(x))
    used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("prelu" in name for name in used)


def test_the_axis_of_a_mixture_is_its_own() -> None:
    first = Line(torch.full((3,), 2.0), torch.zeros(3), chosen=torch.tensor([True, False, False]))
    second = Function("relu", chosen=torch.tensor([False, True, False]))
    x = torch.randn(5, 3)
    for axis, values in ((1, x), (0, x.T)):
        chosen = torch.tensor([True, True, False])
        found = Mixed((first, second), chosen=chosen, axis=axis).apply(values, values + 1)
        expected = torch.stack([2 * x[:, 0], x[:, 1].clamp(min=0), x[:, 2] + 1], 1)
        torch.testing.assert_close(found, expected if axis == 1 else expected.T)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"with_": FORMS}, r"several forms .*give max_change \(--max-change\)"),
        ({"with_": FORMS, "max_change": 0.1, "budget": 3}, "either a budget .* or max_change"),
        ({"with_": FORMS, "max_change": 0.0}, "a positive share .*; got 0.0"),
        ({"with_": FORMS, "max_change": float("nan")}, "a positive share .*; got nan"),
        ({"with_": ("line", "two-peice"), "max_change": 0.1}, "did you mean 'two-piece'"),
        ({"with_": ()}, "no form to replace with"),
        ({"with_": ("poly:1",), "layers": ["silu"], "max_change": 1e-9}, "allows no channel .*0"),
    ],
)
def test_mistakes_are_explained(planted: Planted, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        acon.replace(planted, [images(40, 1)], **arguments)
