"""Activations replaced by cheaper functions: fitted, put in, measured, by independent programs."""

# mypy: disable-error-code="no-any-return"

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import acon_analysis as acon
from acon_analysis.columns import REPLACEMENT_COLUMNS, names
from acon_analysis.errors import UsageError
from acon_analysis.layers import AconC, MetaAconC
from acon_analysis.moments.gram import Gram
from acon_hooks import fit_units, load_linearized
from acon_hooks.errors import HookError, SameDataWarning
from acon_hooks.replacement.forms import HINGES
from acon_hooks.replacement.plan import PlanError, load_plan
from acon_hooks.replacement.replace import plan_forms, replace_data, training_split
from network_oracle import settled
from networks import Network

FITTED = ("line", "two-piece", "poly:2", "poly:3", "poly:4")
ALL = ("relu", "hardswish", *FITTED)


class Net(nn.Module):
    """An in-place SiLU, ACON-C, Meta-ACON, functions in place and in pieces, one block twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.silu, self.acon, self.meta = nn.SiLU(inplace=True), AconC(4), MetaAconC(4, r=2)
        self.glu, self.fc = nn.GLU(1), nn.Linear(2, 3)

    def acts(self, x: Tensor, act: Any) -> Tensor:
        """Run with `act(name, call, input, function)` in the place of the activations."""
        h = act("silu", 0, self.bn1(self.conv1(x)), lambda v: F.silu(v))
        h = act(":gelu#0", 0, self.bn2(self.conv2(h)), lambda v: F.gelu(v))
        h = h + act("acon", 0, 2 * h, self.acon)
        h = act("silu", 1, h - 0.5, lambda v: F.silu(v))
        h = act("meta", 0, h, self.meta)
        h = act(":relu#0", 0, h - h.mean((2, 3), keepdim=True), lambda v: F.relu(v))
        return self.fc(self.glu(h).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        h = self.silu(self.bn1(self.conv1(x)))
        h = F.gelu(self.bn2(self.conv2(h)))
        h = h + self.acon(2 * h)
        h = self.meta(self.silu(h - 0.5))
        h = F.relu(h - h.mean((2, 3), keepdim=True), inplace=True)
        return self.fc(self.glu(h).mean((2, 3)))


USES = (("silu", 0), (":gelu#0", 0), ("acon", 0), ("silu", 1), ("meta", 0), (":relu#0", 0))


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 6, 6, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.train()(torch.randn(64, 2, 6, 6))
        model.acon.beta.copy_(torch.tensor([0.2, 1.0, 3.0, 0.0]).reshape(1, 4, 1, 1))
    return model.eval().double()


@pytest.fixture(scope="module")
def values(net: Net) -> dict[tuple[str, int], tuple[Any, Any]]:
    """Inputs and outputs of every use on the images of the fit, (values, C)."""
    seen: dict[tuple[str, int], tuple[Any, Any]] = {}

    def act(name: str, call: int, x: Tensor, function: Any) -> Tensor:
        y = function(x)
        first, second = (v.movedim(1, -1).reshape(-1, 4).numpy() for v in (x, y))
        seen[name, call] = first, second
        return y

    with torch.no_grad():
        net.acts(images(24, 1), act)
    return seen


def design(form: str, x: Any, numbers: Any) -> Any:
    """Return the variables of a fit, (values, variables), given what a unit has chosen."""
    if form == "two-piece":
        return np.column_stack([np.ones_like(x), x, np.maximum(x - numbers[1], 0)])
    degree = 1 if form == "line" else int(form[-1])
    return np.column_stack([x**power for power in range(degree + 1)])


def by_hand(unit: Any, x: Tensor) -> Tensor:
    """Return what a planned unit says that its channel computes."""
    if unit.form == "relu":
        return x.clamp(min=0)
    if unit.form == "hardswish":
        return x * (x + 3).clamp(0, 6) / 6
    line = unit.slope * x + unit.intercept
    if unit.form == "two-piece":
        return line + unit.coefficients[0] * (x - unit.coefficients[1]).clamp(min=0)
    if unit.form == "line":
        return line
    center, scale, *rest = unit.coefficients
    return sum((c * ((x - center) / scale) ** k for k, c in enumerate(rest)), torch.zeros_like(x))


@pytest.mark.parametrize("form", FITTED)
def test_fits_are_those_of_numpy_on_every_channel(net: Net, values: Any, form: str) -> None:
    plan = plan_forms(net, torch.split(images(24, 1), 7), form)
    assert {(unit.layer, unit.call) for unit in plan.units} == set(USES)
    assert len(plan.units) == 24
    for unit in plan.units:
        x, y = (v[:, unit.channel] for v in values[unit.layer, unit.call])
        whole = values[unit.layer, unit.call][1]
        own = by_hand(unit, torch.from_numpy(x)).numpy()
        matrix = design(form, x, unit.coefficients)
        best = matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]
        assert np.abs(own - best).max() < 1e-6
        error = ((y - own) ** 2).sum()
        spread = ((whole - whole.mean(0)) ** 2).sum()
        assert unit.s_c == pytest.approx(error / spread, abs=1e-9)
        assert pytest.approx(1 - error / ((y - y.mean()) ** 2).sum(), abs=1e-9) == unit.L


def test_the_hinge_is_the_best_of_its_grid(net: Net, values: Any) -> None:
    plan = plan_forms(net, [images(24, 1)], "two-piece")  # one batch: the grid is that of all
    for unit in plan.units:
        x, y = (v[:, unit.channel] for v in values[unit.layer, unit.call])
        errors = {}
        for hinge in (0.0, *(x.mean() + x.std() * HINGES)):
            matrix = design("two-piece", x, (0, hinge))
            fitted = matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]
            errors[hinge] = ((y - fitted) ** 2).sum()
        own = errors[min(errors, key=lambda hinge: abs(hinge - unit.coefficients[1]))]
        assert own <= min(errors.values()) * (1 + 1e-9) + 1e-12
    relus = [unit for unit in plan.units if unit.layer == ":relu#0"]
    for unit in relus:
        numbers = (unit.slope, unit.intercept, *unit.coefficients)
        assert numbers == pytest.approx((0, 0, 1, 0), abs=1e-9)


@pytest.mark.parametrize("form", ALL)
def test_the_copy_computes_the_formula_and_the_model_stays(net: Net, form: str) -> None:
    before = copy.deepcopy(net.state_dict())
    changed = acon.replace(net, [images(24, 1)], form)
    plan = plan_forms(net, [images(24, 1)], form)
    units = {(unit.layer, unit.call, unit.channel): unit for unit in plan.units}

    def act(name: str, call: int, x: Tensor, _function: Any) -> Tensor:
        return torch.stack([by_hand(units[name, call, c], x[:, c]) for c in range(4)], 1)

    x = images(9, 2)
    with torch.no_grad():
        np.testing.assert_allclose(changed(x), net.acts(x, act), atol=1e-6)
    assert not any("fc1" in name for name in changed.state_dict())  # β of Meta-ACON is gone
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("form", ["two-piece", "poly:3", "relu"])
def test_a_budget_takes_the_channels_of_least_damage(net: Net, form: str) -> None:
    changed = plan_forms(net, [images(24, 1)], form, budget=6)
    assert len(changed.units) == 6
    assert len(plan_forms(net, [images(24, 1)], form, budget=0.5).units) == 12
    chosen = {(unit.layer, unit.call, unit.channel) for unit in changed.units}

    def damage(layer: str, call: int, channel: int) -> float:
        unit = next(
            unit
            for unit in plan_forms(net, [images(24, 1)], form).units
            if (unit.layer, unit.call, unit.channel) == (layer, call, channel)
        )

        def act(name: str, turn: int, x: Tensor, function: Any) -> Tensor:
            y = function(x).clone()
            if (name, turn) == (layer, call):
                y[:, channel] += 1e-4 * (by_hand(unit, x[:, channel]) - y[:, channel])
            return y

        with torch.no_grad():
            plain = net(images(24, 1))
            step = (net.acts(images(24, 1), act) - plain) / 1e-4
        return float((step.norm(dim=1) / plain.norm(dim=1)).mean())

    if form == "two-piece":
        found = {(*use, c): damage(*use, c) for use in USES for c in range(4)}
        worst = max(found[key] for key in chosen)
        assert all(worst <= found[key] * 1.01 + 1e-6 for key in set(found) - chosen)


def test_the_damage_is_that_of_the_copy_next_to_the_baselines(net: Net, tmp_path: Path) -> None:
    held = [(images(20, 3), torch.arange(20) % 3)]
    done = replace_data(net, held, "two-piece", [images(24, 1)], out=tmp_path, logits=True)
    assert list(done.table.columns) == names(REPLACEMENT_COLUMNS)
    rows = {(row["form"], row["recalibrated"]): row for row in done.table.to_dict("records")}
    assert list(rows) == [
        ("two-piece", False), ("relu", False), ("two-piece", True), ("relu", True),
    ]  # fmt: skip
    with torch.no_grad():
        plain = net(held[0][0])
        for form in ("two-piece", "relu"):
            logits = acon.replace(net, [images(24, 1)], form)(held[0][0])
            row: Any = rows[form, False]
            labels = held[0][1]
            change = F.cross_entropy(logits, labels) - F.cross_entropy(plain, labels)
            assert row["loss_change"] == pytest.approx(float(change), abs=1e-6)
            assert row["low"] < row["loss_change"] < row["high"]
            right = (logits.argmax(1) == labels).double()
            assert row["accuracy"] == pytest.approx(float(right.mean()))
            assert row["accuracy_change"] == pytest.approx(
                float((right - (plain.argmax(1) == labels).double()).mean())
            )
            moved = (logits - plain).norm(dim=1) / plain.norm(dim=1)
            assert row["output_change"] == pytest.approx(float(moved.mean()), abs=1e-6)
    again = load_linearized(tmp_path, net)
    torch.testing.assert_close(again(held[0][0]), done.model(held[0][0]))
    assert load_plan(tmp_path / "plan.json") == done.plan


def test_recalibrated_baselines_are_networks_trained_on_by_pytorch_alone(net: Net) -> None:
    done = replace_data(net, [images(20, 3)], "relu", [images(24, 1)], logits=True)
    changed = acon.replace(net, [images(24, 1)], "relu")
    norms = [m for m in changed.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        changed(images(24, 1))
        logits, plain = changed.eval()(images(20, 3)), net(images(20, 3))
    moved = float(((logits - plain).norm(dim=1) / plain.norm(dim=1)).mean())
    assert done.table["output_change"][1] == pytest.approx(moved, rel=1e-5)


def test_lines_fold_and_two_pieces_do_not(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2)).eval()
    data = [torch.randn(40, 3)]
    for form, folded in (("line", 1), ("two-piece", 0)):
        with pytest.warns(SameDataWarning, match="40 of 40 samples measured on are among those"):
            done = replace_data(model, torch.split(data[0], 20), form, data, fold=True)
        assert done.folded is not None
        assert len(done.folded.table) == folded
        torch.testing.assert_close(done.folded.model(data[0]), done.model(data[0]))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"with_": "two-peice"}, "no form 'two-peice' to replace with: did you mean 'two-piece'"),
        ({"with_": "poly:5"}, "degree K of 1 to 4; got 'poly:5'"),
        ({"with_": "poly"}, "degree K of 1 to 4; got 'poly'"),
        ({"with_": "poly:K"}, "degree K of 1 to 4; got 'poly:K'"),
        ({"layers": ["glu"]}, "'glu' is of kind 'product': only elementwise"),
        ({"layers": ["slu"]}, "no layer 'slu' .*did you mean 'silu'"),
        ({"budget": 25}, "^the budget must be 1 to 24 channels; got 25"),
        ({"budget": 1.5}, "^a share of channels lies between 0 and 1; got 1.5"),
    ],
)
def test_mistakes_are_explained(net: Net, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        acon.replace(net, [images(24, 1)], **arguments)


def test_an_unknown_argument_is_named(net: Net) -> None:
    wrong: Any = {"fit": [images(8, 0)]}
    with pytest.raises(UsageError, match="replace has no argument 'fit'; did you mean 'fit_data'"):
        acon.replace(net, **wrong)


def test_data_that_are_used_up_and_products_are_refused(net: Net) -> None:
    with pytest.raises(UsageError, match="read more than once"):
        acon.replace(net, iter([images(24, 1)]), budget=0.5)
    assert acon.replace(net, iter([images(24, 1)]))(images(2, 1)).shape == (2, 3)

    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.flip(0)

    with pytest.raises((UsageError, HookError), match=r"product|made of one tensor|no layer"):
        acon.replace(Product().eval(), [images(4, 1)], layers=[":mul#0"])
    assert training_split("cifar10") == "cifar10:train"
    with pytest.raises(UsageError, match=r"no training split .*--fit"):
        training_split("digits:train")


def test_plans_of_other_forms_are_checked(net: Net, tmp_path: Path) -> None:
    path = plan_forms(net, [images(24, 1)], "poly:2").save(tmp_path / "plan.json")
    text = path.read_text()
    for wrong, why in (("poly:3", "has 6 coefficients"), ("sine", "no form 'sine'")):
        path.write_text(text.replace("poly:2", wrong, 1))
        with pytest.raises((PlanError, UsageError), match=why):
            load_plan(path)


def test_masked_positions_and_samples_with_infinity_are_left_out() -> None:
    model = nn.Sequential(nn.SiLU()).eval()
    x = torch.randn(12, 5, 3, dtype=torch.float64)
    spoiled = torch.cat([x, torch.full((2, 5, 3), torch.inf).double()])
    table = fit_units(model, [spoiled], form="poly:2").table
    np.testing.assert_allclose(
        np.array(table["coefficients"].tolist()),
        np.array(fit_units(model, [x], form="poly:2").table["coefficients"].tolist()),
    )


def test_a_fit_of_sums_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 200, 4)) * [1, 10, 0, 1] + [5, 0, 2, 0]
    x[..., 3] = x @ [0.5, -2, 0, 0] + generator.normal(size=(3, 200))
    found, intercept = Gram.of(x, axis=1).fit(3, (0, 1, 2))
    for part, own, constant in zip(x, found, intercept, strict=True):
        matrix = np.column_stack([part[:, :2], np.ones(200)])
        expected = np.linalg.lstsq(matrix, part[:, 3], rcond=None)[0]
        np.testing.assert_allclose([*own[:2], constant], expected, atol=1e-9)
        assert own[2] == 0


def test_the_replaced_network_exports_with_standard_operators() -> None:
    acts = nn.SiLU(), MetaAconC(4, r=2)
    model = settled(nn.Sequential(nn.Conv2d(2, 4, 3), *acts, nn.Flatten(), nn.Linear(64, 3)))
    x = images(6, 5).float()
    for form in ALL:
        changed = acon.replace(model, [x], form)
        program = torch.export.export(changed, (x,))
        torch.testing.assert_close(program.module()(x), changed(x))
        used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert all(name.startswith("aten.") or "getitem" in name for name in used)
        assert not any("silu" in name or "sigmoid" in name for name in used)


def test_replaced_functions_do_not_run_and_are_not_exported() -> None:
    model, x = (
        Network(
            lambda n, x: n.fc(F.silu(F.gelu(n.conv(x)).flatten(1), inplace=True)),
            conv=nn.Conv2d(2, 4, 3),
            fc=nn.Linear(64, 3),
        ).eval(),
        images(6, 5).float(),
    )
    changed = acon.replace(model, [x], "two-piece").requires_grad_(False)
    program = torch.export.export(changed, (x,))
    torch.testing.assert_close(program.module()(x), changed(x))
    used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("gelu" in name or "silu" in name for name in used)


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="needs onnxscript")
@pytest.mark.parametrize("form", ALL)
def test_the_replaced_network_exports_to_onnx(form: str) -> None:
    reference = importlib.import_module("onnx.reference")
    acts = nn.SiLU(), MetaAconC(4, r=2)
    model = settled(nn.Sequential(nn.Conv2d(2, 4, 3), *acts, nn.Flatten(), nn.Linear(64, 3)))
    x = images(6, 5).float()
    changed = acon.replace(model, [x], form)
    program = torch.onnx.export(changed, (x,), dynamo=True)
    assert program is not None
    graph = program.model_proto.graph
    assert all(node.domain == "" for node in graph.node)
    ran = reference.ReferenceEvaluator(program.model_proto).run(
        None, {graph.input[0].name: x.numpy()}
    )
    np.testing.assert_allclose(ran[0], changed(x).detach(), atol=1e-5)
