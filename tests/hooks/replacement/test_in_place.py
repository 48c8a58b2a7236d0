"""Layers that overwrite their input: their lines do so too, by hand-written forward passes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_hooks.engine.edits import Editing, Hold, Line
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.plans import run_plans
from acon_hooks.engine.sites import Site
from acon_hooks.engine.visiting import visiting
from acon_hooks.explainers.importance import conductance
from acon_hooks.replacement.damage import channel_damage, first_order_damage
from acon_hooks.replacement.fitting import Fit, fit_units
from acon_hooks.replacement.folding import fold_lines
from acon_hooks.replacement.linearizing import linearize, plan_edits
from acon_hooks.replacement.plan import Plan, PlannedLayer, load_plan
from acon_hooks.replacement.verifying import verify_plan

Activate = Callable[[int, Tensor], Tensor]
WIDTH = 6


class Custom(nn.Module):
    """Overwrites its input without an attribute that says so."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.3, inplace=True)


class Data(nn.Module):
    """Writes through ``data``, which PyTorch does not count as a version."""

    def forward(self, x: Tensor) -> Tensor:
        x.data.copy_(F.silu(x.data))
        return x


class Copying(nn.Module):
    """Overwrites its input and returns a copy of the result."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu_().clone()


class Plain(nn.Module):
    """Leaves its input as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) - 0.1


KINDS: list[tuple[Callable[[], nn.Module], bool]] = [
    (lambda: nn.ReLU(inplace=True), True),
    (Custom, True),
    (Data, True),
    (Copying, True),
    (Plain, False),
]


class Net(nn.Module):
    """One of several ways to use an activation; `hand` is the same with a given activation."""

    def __init__(self, form: str, act: nn.Module) -> None:
        super().__init__()
        self.form = form
        self.stem, self.act, self.fc = nn.Linear(5, WIDTH), act, nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.hidden(self.stem(x), lambda _, h: self.act(h)))
        return logits

    def hand(self, x: Tensor, activate: Activate) -> Tensor:
        logits: Tensor = self.fc(self.hidden(self.stem(x), activate))
        return logits

    def hidden(self, h: Tensor, activate: Activate) -> Tensor:
        match self.form:
            case "shortcut":
                return activate(0, h) + h
            case "unused":
                activate(0, h)
                return h
            case "view":
                left = activate(0, h[:, :4])
                return torch.cat([2 * left, h[:, 4:]], 1) + h
            case "flat":
                activate(0, h.unsqueeze(2)[:, :, 0])
                return h
            case "twice":
                first = activate(0, h)
                return activate(1, h[:, :]) + first
        raise AssertionError(self.form)


FORMS = ["shortcut", "unused", "view", "flat", "twice"]


def lined(net: Net, plan: Plan, x: Tensor, *, in_place: bool) -> Tensor:
    """Return the output by hand: chosen channels on their lines, written into the input or not."""

    def activate(call: int, h: Tensor) -> Tensor:
        y = net.act(h.clone())
        for unit in plan.units:
            if unit.call == call:
                y[:, unit.channel] = unit.slope * h[:, unit.channel] + unit.intercept
        if in_place:
            h.copy_(y)
        return h if in_place and not isinstance(net.act, Copying) else y

    with torch.no_grad():
        return net.hand(x, activate)


def data(count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 5, dtype=torch.float64, generator=generator)


def made(form: str, act: nn.Module) -> Net:
    torch.manual_seed(0)
    return Net(form, act).double().eval()


def plans(fit: Fit) -> Iterator[Plan]:
    yield fit.plan(budget=1.0)
    yield fit.plan(budget=0.5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("act", "in_place"), KINDS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_lines_are_where_the_activation_was(
    form: str, act: Callable[[], nn.Module], in_place: bool, mode: Callable[[], Any]
) -> None:
    net, x = made(form, act()), data()
    fit = fit_units(net, torch.split(x, 16))
    assert [use.in_place for use in fit.layers] == [in_place] * (2 if form == "twice" else 1)
    with torch.no_grad():
        before = net(x)
    norm = before.norm(dim=1).numpy()
    for plan in plans(fit):
        expected = lined(net, plan, x, in_place=in_place)
        with mode():
            torch.testing.assert_close(linearize(net, plan)(x), expected, rtol=1e-12, atol=1e-12)
        edits = plan_edits(net, plan)
        with mode(), visiting(net, edits, Editing(edits)):
            torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)
        report = verify_plan(net, plan, torch.split(x, 16))
        change = (expected - before).norm(dim=1).numpy() / norm
        np.testing.assert_allclose(report.samples["change"], change, rtol=1e-10, atol=1e-14)
        if form != "twice":  # all that follows is linear: the first order is the whole change
            np.testing.assert_allclose(report.samples["predicted"], change, rtol=1e-9, atol=1e-13)
        if form == "shortcut":
            leaf = x.clone().requires_grad_()
            linearize(net, plan)(leaf).sum().backward()
            assert leaf.grad is not None
            assert bool(leaf.grad.isfinite().all())
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("act", "in_place"), KINDS)
def test_damage_of_single_channels(form: str, act: Callable[[], nn.Module], in_place: bool) -> None:
    net, x = made(form, act()), data()
    fit = fit_units(net, [x])
    with torch.no_grad():
        before = net(x)
    damage = channel_damage(net, fit, x)
    first = first_order_damage(net, fit, x)["first_order"]
    rows: Any = damage.itertuples()
    for row, predicted in zip(rows, first, strict=True):
        plan = fit.plan(units=[(row.layer, row.call, row.channel)])
        after = lined(net, plan, x, in_place=in_place)
        change = (after - before).norm(dim=1) / before.norm(dim=1)
        assert row.mean == pytest.approx(float(change.mean()), rel=1e-9, abs=1e-13)
        if form != "twice":  # all that follows is linear
            assert predicted == pytest.approx(row.mean, rel=1e-9, abs=1e-13)


def test_a_constant_and_an_activation_that_changes_nothing_on_a_batch() -> None:
    # All values are positive: the ReLU leaves them as they are, but it is in place still.
    x = data().abs() + 1
    for mode in (torch.no_grad, torch.inference_mode):
        for act in (nn.ReLU(inplace=True), Custom()):
            net = made("shortcut", act)
            with torch.no_grad():
                net.stem.weight.abs_()
                net.stem.bias.abs_()
                h = net.stem(x)
            hold = Hold(torch.full((WIDTH,), 9.0), torch.arange(WIDTH) < 2)
            h[:, :2] = 9
            expected = net.fc(h + h).detach()
            sites = {Site("act", net.act): hold}
            if mode is torch.inference_mode and type(act) is Custom:
                continue  # nothing shows it there
            with mode(), visiting(net, sites, Editing(sites)):
                torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)


class Passing(nn.Module):
    """Returns its input, or a view of it, which others read."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.same, self.fc = form, nn.Identity(), nn.Linear(5, 3)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        h = 1 * x
        y = self.same(h) if self.form == "identity" else self.flat(h)
        logits: Tensor = self.fc(y + 10 * h)
        return logits


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", ["same", "flat"])
@pytest.mark.parametrize("missing", [False, True])
def test_what_a_layer_only_passes_on_is_not_overwritten(
    name: str, mode: Callable[[], AbstractContextManager[Any]], missing: bool
) -> None:
    net = Passing("identity" if name == "same" else "view").double().eval()
    x = data()
    if missing:
        x[3, 2] = float("nan")
    line = Line(torch.full((5,), 2.0), torch.full((5,), 1.0), chosen=torch.arange(5) < 3)
    sites = {Site(name, net.get_submodule(name)): line}
    y = x.clone()
    y[:, :3] = 2 * x[:, :3] + 1
    expected = net.fc(y + 10 * x).detach()
    kept = x.clone()
    with mode(), visiting(net, sites, Editing(sites)):
        found = net(x).detach()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(x, kept, rtol=0, atol=0, equal_nan=True)


def test_the_samples_stay_as_they_are_where_the_first_layer_overwrites_them() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)).double().eval()
    x = data()
    kept = x.clone()
    fit = fit_units(net, [x])
    plan = fit.plan(budget=2)
    report = verify_plan(net, plan, [x])
    y = kept.relu()
    for unit in plan.units:
        y[:, unit.channel] = unit.slope * kept[:, unit.channel] + unit.intercept
    with torch.no_grad():
        before, after = net[1](kept.relu()), net[1](y)
    change = (after - before).norm(dim=1) / before.norm(dim=1)
    np.testing.assert_allclose(report.samples["change"], change, rtol=1e-10)
    frame = run_plans(net, open_feed([x]), {"lines": plan_edits(net, plan)})
    own = frame.loc[frame["plan"] == "lines", "output_change"]
    np.testing.assert_allclose(own, change, rtol=1e-10)
    damage = channel_damage(net, fit, x)
    assert damage["mean"].gt(0).all()
    first_order_damage(net, fit, x)
    assert torch.equal(x, kept)


class Folding(nn.Module):
    """An activation in place on a view of what a shortcut carries, before a linear layer."""

    def __init__(self, view: bool, act: nn.Module) -> None:
        super().__init__()
        self.view, self.stem, self.act = view, nn.Linear(5, 4), act
        self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        out = self.fc(self.act(h.reshape(-1, 4) if self.view else h))
        logits: Tensor = self.last(out + h)
        return logits


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("act", [lambda: nn.ReLU(inplace=True), Custom, nn.SiLU])
def test_lines_fold_only_where_nobody_reads_what_the_layer_overwrites(
    view: bool, act: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    net, x = Folding(view, act()).double().eval(), data()
    changed = linearize(net, fit_units(net, [x]).plan(budget=1.0))
    done = fold_lines(changed, x)
    assert done.error < 1e-12
    where = done.table["where"].tolist()
    assert where == (["behind"] if act is nn.SiLU else [""])
    torch.testing.assert_close(done.model(x), changed(x), rtol=1e-12, atol=1e-12)


def test_an_input_given_by_its_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = x + 0
            logits: Tensor = self.fc(self.relu(input=h) + h)
            return logits

    net, x = Named().double().eval(), data()
    for plan in plans(fit_units(net, [x])):
        y = x.relu()
        for unit in plan.units:
            y[:, unit.channel] = unit.slope * x[:, unit.channel] + unit.intercept
        torch.testing.assert_close(linearize(net, plan)(x), net.fc(2 * y))


def test_a_plan_remembers_which_layers_overwrite_their_input(tmp_path: Any) -> None:
    net = made("shortcut", Custom())
    plan = fit_units(net, [data()]).plan(budget=1.0)
    path = plan.save(tmp_path / "plan.json")
    assert load_plan(path) == plan
    assert load_plan(path).layers[0].in_place
    text = path.read_text().replace('"in_place": true', '"kind": "activation"')
    path.write_text(text)  # as written before there was such an entry
    assert load_plan(path).layers == (PlannedLayer("act", 0, 1, WIDTH, 1, "activation"),)


#: How many readers of an activation's output there are, where it overwrites its input or not.
READERS = {"shortcut": (2, 1), "unused": (1, 0), "view": (3, 2), "flat": (1, 0)}


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize(("act", "in_place"), KINDS)
def test_conductance_counts_every_reader_of_an_output(
    form: str, act: Callable[[], nn.Module], in_place: bool
) -> None:
    if READERS[form][not in_place] == 0 or act is Data:
        return  # no path to the score; what autograd does not see has no gradient
    net, x = made(form, act()), data(8)
    found = conductance(net, x, kinds=["activation"])
    with torch.no_grad():
        y, blank = (net.act(net.stem(part)) for part in (x, torch.zeros_like(x)))
        weight = READERS[form][not in_place] * net.fc.weight[net(x).argmax(1)]
    width = 4 if form == "view" else WIDTH
    expected = (weight * (y - blank)).mean(0)[:width]
    # Captum's points do not reach the ends of the path.
    np.testing.assert_allclose(found["conductance"], expected, rtol=5e-3, atol=1e-4)
