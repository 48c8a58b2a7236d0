"""Lines in networks that differentiate, map over samples or use threads; by plain hooks."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_hooks
from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.replacement.damage import channel_measures, first_order_damage
from acon_hooks.replacement.fitting import Fit
from acon_hooks.replacement.plan import Plan
from acon_hooks.replacement.replacing import fit_from_run
from network_oracle import captured, folded, seen, settled
from networks import Network

Replacing = Callable[[Tensor, Tensor], Tensor]


class Energy(nn.Module):
    """Differentiates a part of its own before the layer that becomes lines."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.act = nn.Sequential(nn.Linear(4, 5), nn.SiLU()), nn.GELU()
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            (force,) = torch.autograd.grad(self.net(x).sum(), x)
        return self.last(self.act(x.detach() - 3 * force)).tanh()


class Threaded(nn.Module):
    """One of its branches runs in a thread, whose gradient mode is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.two = nn.Linear(4, 3), nn.ELU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(lambda: self.two(x).detach())
            return (self.act(self.one(x)) + other.result()).tanh()


class Mapping(nn.Module):
    """vmap behind the layer that becomes lines: the derivative goes through it."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.part = nn.Softplus(), nn.Sequential(nn.Linear(4, 3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.vmap(self.part)(self.act(x))
        return made


class Cut(nn.Module):
    """Detaches what the layer returns, and differentiates behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.net = nn.Softplus(), nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            h = self.act(x).detach().requires_grad_()
            (force,) = torch.autograd.grad(self.net(h).sum(), h)
        return force


class Dual(nn.Module):
    """Takes a forward derivative itself, inside which PyTorch allows no other."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.net = nn.Softplus(), nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(x)
        made: Tensor = torch.func.jvp(self.net, (h,), (h,))[1]
        return made


#: Network -> how the change of its output is predicted.
NETWORKS = {
    Energy: "forward-mode",
    Threaded: "forward-mode",
    Mapping: "forward-mode",
    Cut: "quotient: the network cuts off its derivative",
    Dual: "quotient: an operation has no forward derivative",
}


def made(kind: type[nn.Module]) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(3)
    return settled(kind()).double(), [torch.randn(9, 4).double(), torch.randn(5, 4).double()]


def outputs(model: nn.Module, x: list[Tensor], replacing: Replacing) -> Tensor:
    """Return what the network makes of data with another output of its layer, by a plain hook."""
    layer = model.get_submodule("act")
    handle = layer.register_forward_hook(lambda _m, args, y: replacing(args[0], y))
    try:
        with torch.no_grad():
            return torch.cat([model(part) for part in x])
    finally:
        handle.remove()


def lines(fit: Fit, plan: Plan) -> Replacing:
    """Return the lines of a plan as a function of input and output."""
    table = fit.table.query("layer == 'act'").set_index("channel")

    def replacing(x: Tensor, y: Tensor) -> Tensor:
        y = y.clone()
        for unit in plan.units:
            slope, intercept = table.loc[[unit.channel], ["slope", "intercept"]].to_numpy()[0]
            y[:, unit.channel] = slope * x[:, unit.channel] + intercept
        return y

    return replacing


@pytest.mark.parametrize("kind", NETWORKS)
def test_lines_and_what_they_do(kind: type[nn.Module]) -> None:
    model, x = made(kind)
    fit = acon_hooks.fit_units(model, x, layers=["act"])
    pairs = seen(model, x, ["act"], lambda m, b: m(b))["act", 0]
    given, output = (np.concatenate([folded(p[i], 1) for p in pairs])[..., 0] for i in (0, 1))
    found = fit.table.sort_values("channel")[["slope", "intercept"]].to_numpy()
    want = [np.polyfit(a, b, 1) for a, b in zip(given.T, output.T, strict=True)]
    np.testing.assert_allclose(found, want, atol=1e-9)
    plan = fit.plan(budget=2)
    replacing = lines(fit, plan)
    before, after = outputs(model, x, lambda _x, y: y), outputs(model, x, replacing)
    report = acon_hooks.verify_plan(model, plan, x)
    norm = before.norm(dim=1)
    np.testing.assert_allclose(report.samples["change"], (after - before).norm(dim=1) / norm)
    h = 1e-5
    up = outputs(model, x, lambda a, y: y + h * (replacing(a, y) - y))
    down = outputs(model, x, lambda a, y: y - h * (replacing(a, y) - y))
    slope = ((up - down) / (2 * h)).norm(dim=1) / norm
    exact = "forward-mode" in NETWORKS[kind]
    np.testing.assert_allclose(report.samples["predicted"], slope, rtol=1e-6 if exact else 1e-4)
    assert NETWORKS[kind] in report.used
    changed = acon_hooks.linearize(model, plan)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([changed(part) for part in x]), after)


@pytest.mark.parametrize("kind", [Energy, Threaded])
def test_lines_from_a_run(kind: type[nn.Module], tmp_path: Path) -> None:
    model, x = made(kind)
    run = captured(model, x, tmp_path / "run")
    fit = acon_hooks.fit_units(model, x)
    again = fit_from_run(model, run, example=Batch(0, [*range(9)], x[0]))
    columns = ["layer", "call", "channel", "slope", "intercept"]
    left, right = (f.table[columns].query("layer == 'act'") for f in (again, fit))
    np.testing.assert_allclose(left["slope"], right["slope"], atol=1e-9)
    assert left["channel"].tolist() == right["channel"].tolist()
    assert channel_measures(model, x[0], layers=["act"])["channel"].tolist() == [*range(len(left))]


def test_first_order_damage_needs_a_gradient() -> None:
    model, x = made(Cut)
    fit = acon_hooks.fit_units(model, x, layers=["act"])
    with pytest.raises(
        AconError, match=r"'act' changes the output, but no gradient .* rank by s_c"
    ):
        first_order_damage(model, fit, x[0])


def test_first_order_damage_needs_rows_that_are_samples() -> None:
    parts = {"fc": nn.Linear(5, 6), "act": nn.SiLU(), "head": nn.Linear(6, 4)}
    torch.manual_seed(0)
    last = Network(lambda n, x: n.head(n.act(n.fc(x))).mean(1), **parts).eval().double()
    first = Network(lambda n, x: n.head(n.act(n.fc(x))).mean(0), **parts).eval().double()
    moved = Network(lambda n, x: n.inner(x.transpose(0, 1)), inner=first).eval()
    for tokens in (3, 9):  # as many as samples
        x = torch.randn(9, tokens, 5).double()
        fit = acon_hooks.fit_units(last, [x])
        expected = first_order_damage(last, fit, x)["first_order"]
        options = InputOptions(sample_axis=1)
        batch = Batch(0, [*range(9)], x.transpose(0, 1), options=options)
        fit = acon_hooks.fit_units(first, [x.transpose(0, 1)], sample_axis=1)
        found = first_order_damage(first, fit, batch)["first_order"]
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        fit = acon_hooks.fit_units(moved, [x])
        with pytest.raises(AconError, match=r"'inner.act': .* depends on rows of others"):
            first_order_damage(moved, fit, x)


def test_a_fused_network_that_differentiates(tmp_path: Path) -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), MetaAconC(4), nn.Conv2d(4, 4, 1)
            self.net, self.act = nn.Sequential(*parts), MetaAconC(3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().clone().requires_grad_()
                (force,) = torch.autograd.grad(self.net(x).square().sum(), x)
            return self.act(force)

    model, x = settled(Images()), [torch.randn(6, 3, 8, 8)]
    plain, fused = (captured(model, x, tmp_path / str(f), fuse=f) for f in (False, True))
    for name in ("act", "net.2"):
        np.testing.assert_allclose(fused.beta_matrix(name), plain.beta_matrix(name), atol=1e-5)


def test_a_layer_of_one_axis_is_left_out_of_the_lines() -> None:
    # One number a sample goes through the last activation.
    scores = Network(
        lambda n, x: n.last(n.head(n.act(n.fc(x))).squeeze(1)),
        fc=nn.Linear(4, 3),
        act=nn.GELU(),
        head=nn.Linear(3, 1),
        last=nn.Sigmoid(),
    )
    model, x = settled(scores), [torch.randn(9, 4), torch.randn(5, 4)]
    with pytest.warns(UserWarning, match="'last', call 0: its input has 1 axis"):
        fit = acon_hooks.fit_units(model, x)
    assert fit.table["layer"].unique().tolist() == ["act"]
    with (
        pytest.warns(UserWarning, match="'last'"),
        pytest.raises(AconError, match=r"can be measured: layer 'last': its input has 1 axis"),
    ):
        acon_hooks.fit_units(model, x, layers=["last"])


def test_a_plan_without_channels_changes_nothing() -> None:
    model, x = made(Mapping)
    plan = acon_hooks.fit_units(model, x, layers=["act"]).plan(budget=0.1)
    report = acon_hooks.verify_plan(model, plan, x)
    assert report.layers.empty
    assert (report.samples["change"] == 0).all()
    assert report.summary["units"] == 0
