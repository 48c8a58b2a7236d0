"""Lines in the place of units: fitted, put in, measured, written down and rebuilt."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers import AconC, MetaAconC
from acon_hooks import HookError, Layer, Tap
from acon_hooks.engine.plans import relative_change
from acon_hooks.replacement.damage import channel_damage, channel_measures, first_order_damage
from acon_hooks.replacement.fitting import LINEARIZABLE, Fit, fit_units
from acon_hooks.replacement.linearizing import (
    LinearizedActivation,
    linearize,
    linearized_layers,
    load_linearized,
    save_linearized,
)
from acon_hooks.replacement.plan import PlanError, load_plan
from acon_hooks.replacement.verifying import verify_plan
from networks import Network


class Net(nn.Module):
    """One in-place ReLU used twice with different channels, four other activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.conv3 = nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 6, 1)
        self.relu = nn.ReLU(inplace=True)
        self.acon, self.meta, self.silu = AconC(6), MetaAconC(6, r=2), nn.SiLU()
        self.head, self.prelu, self.fc = nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.acon(self.relu(self.conv2(out)) - 0.3)
        out = self.silu(self.meta(self.conv3(out)))
        logits: Tensor = self.fc(self.prelu(self.head(out.mean((2, 3)))))
        return logits


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.train()(torch.randn(64, 1, 6, 6))  # statistics that are not the initial ones
    return model.eval().double()  # the damage of single units is near float32's rounding


def images(count: int = 24, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 6, 6, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def fit(net: nn.Module) -> Fit:
    return fit_units(net, torch.split(images(), 10))


def test_the_lines_are_least_squares_lines(net: nn.Module, fit: Fit) -> None:
    seen: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        seen[layer.name, call] = x.movedim(layer.axis, 0).clone(), y.movedim(layer.axis, 0).clone()

    with torch.no_grad(), Tap(net, kinds=LINEARIZABLE, observe=observe):
        net(images())
    assert [(use.layer, use.call, use.channels) for use in fit.layers] == [
        ("relu", 0, 4), ("relu", 1, 6), ("acon", 0, 6), ("meta", 0, 6), ("silu", 0, 6),
        ("prelu", 0, 5),
    ]  # fmt: skip
    assert len(fit.table) == 33
    rows: Any = fit.table.itertuples()
    for row in rows:
        x, y = (
            values[row.channel].double().numpy().ravel() for values in seen[row.layer, row.call]
        )
        slope, intercept = np.polyfit(x, y, 1)
        assert (row.slope, row.intercept) == pytest.approx((slope, intercept), abs=2e-5)


def test_a_replaced_unit_is_its_line_and_the_others_stay_bit_for_bit(
    net: nn.Module, fit: Fit
) -> None:
    plan = fit.plan(units=[("relu", 1, 2), ("meta", 3)])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    changed = linearize(net, plan)
    assert list(linearized_layers(changed)) == ["relu", "meta"]
    x = torch.randn(5, 6, 3, 3, dtype=torch.float64)
    for name, call, channel in (("relu", 1, 2), ("meta", 0, 3)):
        layer = changed.get_submodule(name)
        assert isinstance(layer, LinearizedActivation)
        layer.position = call
        line = next(unit for unit in plan.units if unit.layer == name)
        with torch.no_grad():
            out, plain = layer(x.clone()), net.get_submodule(name)(x.clone())
        np.testing.assert_allclose(
            out[:, channel], line.slope * x[:, channel] + line.intercept, atol=1e-6
        )
        rest = [c for c in range(6) if c != channel]
        assert torch.equal(out[:, rest], plain[:, rest])
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert not linearized_layers(net)


def test_without_units_nothing_changes_and_a_line_that_is_exact_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(100)  # always positive: ReLU is x
    fit = fit_units(model, [torch.rand(50, 3)])
    np.testing.assert_allclose(fit.table["L"], 1)
    x = torch.rand(8, 3)
    changed = linearize(model, fit.plan(budget=1.0))
    torch.testing.assert_close(changed(x), model(x))
    assert len(fit.plan(budget=1.0).units) == 4


def test_a_whole_layer_skips_its_activation(net: nn.Module, fit: Fit) -> None:
    changed = linearize(net, fit.plan(layers=["meta"]))
    fired = []
    changed.get_submodule("meta.inner").register_forward_hook(lambda *_: fired.append(1))
    changed(images())
    assert not fired


def test_the_model_itself_and_shared_modules_can_be_the_layer() -> None:
    relu = nn.ReLU()
    whole = linearize(relu, fit_units(relu, [torch.randn(40, 3)]).plan(budget=2))
    assert isinstance(whole, LinearizedActivation)
    shared = nn.SiLU()
    model = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared).eval()
    fit = fit_units(model, [torch.randn(40, 3)])
    assert [(use.layer, use.call, use.calls) for use in fit.layers] == [("1", 0, 2), ("1", 1, 2)]
    changed = linearize(model, fit.plan(units=[("1", 1, 0)]))
    assert changed[1] is changed[3]  # type: ignore[index]
    first = changed(torch.ones(2, 3))
    assert torch.equal(first, changed(torch.ones(2, 3)))  # every pass counts its uses anew
    with pytest.raises(HookError, match="ran 3 times in one forward pass, but 2 times"):
        changed[1](torch.ones(2, 3))  # type: ignore[index]
    assert torch.equal(first, changed(torch.ones(2, 3)))


def test_copies_and_pickles_compute_the_same(net: nn.Module, fit: Fit) -> None:
    changed = linearize(net, fit.plan(budget=0.5))
    expected = changed(images())
    for other in (copy.deepcopy(changed), pickle.loads(pickle.dumps(changed))):
        assert torch.equal(other(images()), expected)
    expected.sum().backward()
    assert net.get_parameter("conv1.weight").grad is None
    assert changed.get_parameter("conv1.weight").grad is not None


def test_a_plan_for_another_model_is_refused(net: nn.Module, fit: Fit) -> None:
    plan = fit.plan(budget=3)
    other = Net().eval()
    with pytest.raises(PlanError, match=r"lines were fitted on .*Net with weights .* has"):
        linearize(other, plan)
    linearize(other, plan, any_weights=True)
    with pytest.raises(PlanError, match="the model has no layer 'relu'"):
        linearize(nn.Sequential(nn.ReLU()), fit.plan(layers=["relu"]), any_weights=True)


def test_a_linearised_model_is_rebuilt_from_its_folder(tmp_path: Path) -> None:
    model = acon.build_model("digits_acon")
    fit = fit_units(model, "digits", limit=20, layers=["layer1.0.acon"], kinds=["acon"])
    plan = fit.plan(budget=5)
    changed = acon.linearize(model, plan)
    save_linearized(changed, plan, tmp_path)
    assert load_plan(tmp_path / "plan.json") == plan
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(load_linearized(tmp_path)(x), changed(x))
    with pytest.raises(PlanError, match=r"has no layer"):
        load_linearized(tmp_path, Net())
    with pytest.raises(UsageError, match="no linearised layer"):
        save_linearized(model, plan, tmp_path)


def test_a_saved_model_runs_no_code_of_its_own(net: nn.Module, fit: Fit, tmp_path: Path) -> None:
    plan = fit.plan(budget=3)
    changed = linearize(net, plan)
    save_linearized(changed, plan, tmp_path)
    code = tmp_path / "code.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef network(): ...\n")
    path = tmp_path / "plan.json"
    for name in (f"{code}:network", "os:getcwd", "timm:resnet18"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model": name}))
        with pytest.raises(PlanError, match=r"no network of the registry.*give the network"):
            load_linearized(tmp_path)
        assert torch.equal(load_linearized(tmp_path, net)(images()), changed(images()))
    assert not (tmp_path / "ran").exists()


def test_the_damage_of_a_unit_is_that_of_its_plan(net: nn.Module, fit: Fit) -> None:
    x = images(12, 2)
    damage = channel_damage(net, fit, x, replacements=["affine", "zero"])
    again = channel_damage(net, fit, x, replacements=["affine"])
    affine = damage[damage["replacement"] == "affine"].reset_index(drop=True)
    np.testing.assert_allclose(affine["mean"], again["mean"], rtol=1e-5, atol=1e-9)
    with torch.no_grad():
        rows: Any = affine.iloc[::4].itertuples()
        for row in rows:
            plan = fit.plan(units=[(row.layer, row.call, row.channel)])
            change = relative_change(net(x), linearize(net, plan)(x))
            assert row.mean == pytest.approx(change.mean(), rel=1e-4, abs=1e-8)
            assert row.median == pytest.approx(np.median(change), rel=1e-4, abs=1e-8)
    assert not any("forward" in vars(module) for module in net.modules())
    with pytest.raises(UsageError, match="no replacement 'nil'"):
        channel_damage(net, fit, x, replacements=["nil"])


def test_first_order_foretells_small_damage(net: nn.Module, fit: Fit) -> None:
    keys = ["layer", "call", "channel"]
    x = images(12, 2)
    both = channel_damage(net, fit, x).merge(first_order_damage(net, fit, x), on=keys)
    assert len(both) == 33
    # Above a kink near its mean a ReLU network has no single derivative: not exact.
    np.testing.assert_allclose(both["first_order"], both["mean"], rtol=0.3, atol=1e-9)
    assert np.corrcoef(both[["mean", "first_order"]].rank().to_numpy().T)[0, 1] > 0.95


def test_on_the_images_of_the_fit_prediction_and_measurement_agree(
    net: nn.Module, fit: Fit
) -> None:
    report = verify_plan(net, fit.plan(budget=0.4), torch.split(images(), 7))
    np.testing.assert_allclose(
        report.layers["predicted"], report.layers["measured"], rtol=1e-4, atol=1e-12
    )
    assert list(report.samples["sample"]) == list(range(24))
    summary = report.summary
    assert (summary["units"], summary["images"]) == (13, 24)
    assert summary["q05"] <= summary["q50"] <= summary["q95"]
    assert "accuracy_after" not in summary
    with torch.no_grad():
        change = relative_change(net(images()), linearize(net, fit.plan(budget=0.4))(images()))
    np.testing.assert_allclose(report.samples["change"], change, rtol=1e-4)


def test_an_image_takes_two_calls_and_the_first_batch_two_more(net: nn.Module, fit: Fit) -> None:
    # One with the lines, one with the forward derivative, which costs two passes.
    seen: list[int] = []
    handle = net.register_forward_pre_hook(lambda _net, given: seen.append(len(given[0])))
    verify_plan(net, fit.plan(budget=0.4), torch.split(images(), 6))
    handle.remove()
    assert sum(seen) == 2 * 24 + 2 * 6


def test_a_tiny_change_is_foretold_to_first_order() -> None:
    model = acon.build_model("digits_metaacon")
    fit = fit_units(model, "digits:train", limit=40, batch_size=40)
    report = verify_plan(model, fit.plan(budget=0.03), "digits", limit=20)
    summary = report.summary
    assert summary["predicted"] == pytest.approx(summary["q50"], rel=0.1)
    assert summary["accuracy_before"] >= 0.9
    assert summary["agreement"] == 1


def test_an_output_that_cannot_be_logits_is_refused_as_logits() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval().double()
    plan = fit_units(model, [images()]).plan(budget=1)
    with pytest.raises(AconError, match=r"logits are \(N, K\) .* output is \(24, 2, 4, 4\)"):
        verify_plan(model, plan, [images()], logits=True)


def test_other_measures_of_live_units(net: nn.Module) -> None:
    table = channel_measures(net, images())
    groups = dict(iter(table.groupby(["layer", "call"])))
    np.testing.assert_array_equal(groups["acon", 0]["abs_beta"], 1)
    assert groups["meta", 0]["abs_beta"].between(0, 1).all()
    assert groups["relu", 0]["abs_beta"].isna().all()
    assert table["L"].between(0, 1).all()
    slopes: list[Tensor] = []

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        slopes.append((x > 0).double().movedim(1, 0).flatten(1))  # of a ReLU: 0 or 1

    with torch.no_grad(), Tap(net, ["relu"], kinds=LINEARIZABLE, observe=observe):
        net(images())
    share = slopes[0].mean(1).numpy()
    expected = groups["relu", 0]["gradient_variance"]
    np.testing.assert_allclose(expected, (1 - share) / share, rtol=1e-12)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "the iterable yields no batches"),
        ([torch.zeros(0, 3)], "data: batch 0 holds no samples: it is .0, 3."),
        (torch.utils.data.TensorDataset(torch.zeros(0, 3)), "the data set TensorDataset holds no"),
    ],
)
def test_without_images_there_are_no_lines(data: Any, reason: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
    with pytest.raises(UsageError, match=f"^there are no images to fit lines on: {reason}"):
        fit_units(model, data)


class Tripled(torch.autograd.Function):
    """Has no derivative in forward mode."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 3 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        return 3 * slopes[0]


def threefold(triple: Any) -> Network:
    return Network(
        lambda n, x: n.fc(triple(n.silu(x)).tanh()), silu=nn.SiLU(), fc=nn.Linear(3, 2)
    ).eval()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 5e-3), (torch.bfloat16, 0.5)]
)
def test_without_forward_derivatives_the_prediction_is_a_difference_quotient(
    dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    plain, custom = threefold(lambda y: 3 * y).to(dtype), threefold(Tripled.apply).to(dtype)
    custom.load_state_dict(plain.state_dict())
    batches = torch.split(torch.randn(30, 3), 12)
    reports = []
    for model in (plain, custom):
        plan = fit_units(model, batches).plan(layers=["silu"])
        reports.append(verify_plan(model, plan, batches))
    first, second = (report.samples for report in reports)
    error = np.abs(first["predicted"] - second["predicted"])
    # The whole change, not that of a sample, sets the step: the error is in its unit.
    assert (error < tolerance * first["change"].median()).all()
    assert (error < 4 * second["predicted_error"]).all()
    assert (first["predicted_error"] == 0).all()
    measured = [report.layers["measured"] for report in reports]
    np.testing.assert_allclose(measured[0], measured[1], rtol=1e-5)
    np.testing.assert_array_equal(first["change"], second["change"])
    assert reports[0].used.endswith("predicted by forward-mode differentiation")
    assert "difference quotient" in reports[1].used


def test_the_report_compares_the_losses(net: nn.Module, fit: Fit) -> None:
    plan, labels = fit.plan(budget=0.4), torch.arange(24) % 3
    report = verify_plan(net, plan, [(images(), labels)])
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(model(images()), labels, reduction="none").numpy()
            for model in (net, linearize(net, plan))
        ]
    expected = ttest_rel(losses[1], losses[0])
    interval = expected.confidence_interval(0.95)
    summary = report.summary
    assert [summary[f"loss_{name}"] for name in ("change", "low", "high", "p")] == pytest.approx(
        [np.mean(losses[1] - losses[0]), interval.low, interval.high, expected.pvalue], rel=1e-8
    )
    with torch.no_grad():
        accuracy = float((net(images()).argmax(1) == labels).double().mean())
    assert summary["accuracy_before"] == pytest.approx(accuracy)


def test_a_layer_that_does_not_reach_the_output_is_predicted_to_do_no_damage() -> None:
    aside = Network(lambda n, x: (n.silu(x), n.fc(x))[1], silu=nn.SiLU(), fc=nn.Linear(3, 2))
    model, x = aside.eval(), torch.randn(9, 3)
    fit = fit_units(model, [x])
    assert first_order_damage(model, fit, x)["first_order"].tolist() == [0.0] * 3
    assert verify_plan(model, fit.plan(budget=1.0), [x]).summary["predicted"] == 0


def test_a_layer_that_activates_another_argument_is_refused() -> None:
    class Second(AconC):
        def forward(self, gain: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    def forward(n: Any, x: Tensor) -> Any:
        h = n.conv(x)
        return n.act(h.abs(), h).mean((2, 3))

    torch.manual_seed(0)
    two = Network(forward, conv=nn.Conv2d(1, 6, 3), act=Second(6)).eval()
    with pytest.raises(UsageError, match="layer 'act' activates its argument 1, or moves its"):
        fit_units(two, [images().float()])
