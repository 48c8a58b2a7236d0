"""Networks under plans, against deep copies whose modules are exchanged and a plain loop."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from acon_analysis.errors import AconError, UsageError
from acon_hooks.engine.edits import Edits, Hold, Line, Resample
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.plans import run_plans
from acon_hooks.engine.sites import Site
from acon_hooks.errors import HookError


class Net(nn.Module):
    """In-place ReLUs with a shortcut around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True)
        self.middle, self.second = nn.Conv2d(4, 4, 1), nn.ReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(self.conv(x))
        out: Tensor = self.head((self.second(self.middle(h)) + h).mean((2, 3)))
        return out


class Replaced(nn.Module):
    """Channel 1 of a ReLU is a line or a constant."""

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__()
        self.slope, self.intercept = slope, intercept

    def forward(self, x: Tensor) -> Tensor:
        out = x.relu()
        out[:, 1] = self.slope * x[:, 1] + self.intercept
        return out


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().double().eval()


def data(count: int = 7) -> tuple[Tensor, list[int]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 1, 6, 6, dtype=torch.float64, generator=generator)
    return images, [index % 3 for index in range(count)]


def plans(net: Net) -> dict[str, Edits]:
    chosen = torch.tensor([False, True, False, False])
    line = Line(torch.full((4,), 0.5), torch.full((4,), 0.25), chosen=chosen)
    first, second = Site("first", net.first), Site("second", net.second, call=0)
    hold = Hold(torch.full((4,), 0.5), chosen)
    return {"line": {first: line}, "both": {first: line, second: hold}}


def by_hand(net: Net, images: Tensor) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the logits under each plan, from copies of the network."""
    exchanged = {"unchanged": {}, "line": {"first": (0.5, 0.25)},
                 "both": {"first": (0.5, 0.25), "second": (0.0, 0.5)}}  # fmt: skip
    outputs = {}
    for name, lines in exchanged.items():
        changed = copy.deepcopy(net)
        for module, (slope, intercept) in lines.items():
            setattr(changed, module, Replaced(slope, intercept))
        outputs[name] = changed(images).detach().numpy()
    return outputs


@pytest.mark.parametrize("labelled", [True, False])
def test_each_plan_is_a_network_with_exchanged_modules(net: Net, labelled: bool) -> None:
    images, labels = data()
    batches = [images[:4], images[4:]]
    given: list[Any] = [
        (part, torch.tensor(labels[4 * i : 4 * i + 4])) if labelled else part
        for i, part in enumerate(batches)
    ]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    frame = run_plans(net, open_feed(given), plans(net))
    assert list(frame.columns) == ["plan", "sample", "loss", "correct", "output_change", "agrees"]
    assert list(frame["plan"].unique()) == ["unchanged", "line", "both"]
    logits = by_hand(net, images)
    before_log = log_softmax(logits["unchanged"], axis=1)
    for name, own in frame.groupby("plan"):
        z = logits[str(name)]
        log = log_softmax(z, axis=1)
        assert own["sample"].tolist() == list(range(7))
        change = np.linalg.norm(z - logits["unchanged"], axis=1)
        change /= np.linalg.norm(logits["unchanged"], axis=1)
        np.testing.assert_allclose(own["output_change"], change, rtol=1e-12, atol=1e-15)
        loss = -log[np.arange(7), labels]
        if not labelled:
            loss = (np.exp(before_log) * (before_log - log)).sum(1)
        np.testing.assert_allclose(own["loss"], loss, rtol=1e-12, atol=1e-15)
        agrees = z.argmax(1) == logits["unchanged"].argmax(1)
        assert own["agrees"].tolist() == agrees.tolist()
        correct = z.argmax(1) == labels
        assert own["correct"].tolist() == (correct.tolist() if labelled else [pd.NA] * 7)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("labelled", [True, False])
def test_a_network_that_ends_with_a_softmax_has_the_same_losses(net: Net, labelled: bool) -> None:
    images, labels = data()
    given: list[Any] = [(images, torch.tensor(labels)) if labelled else images]
    found = [run_plans(net, open_feed(given), plans(net))["loss"]]
    net = copy.deepcopy(net)
    net.register_forward_hook(lambda _module, _args, output: output.softmax(-1))
    found.append(run_plans(net, open_feed(given), plans(net))["loss"])
    assert found[0].abs().max() > 0.005
    np.testing.assert_allclose(found[0].to_numpy(), found[1].to_numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("labelled", [True, False])
def test_outputs_of_a_sigmoid_are_probabilities_of_each_class(net: Net, labelled: bool) -> None:
    images, labels = data(24)
    given: list[Any] = [(images, torch.tensor(labels)) if labelled else images]
    outputs = {name: 1 / (1 + np.exp(-z)) for name, z in by_hand(net, images).items()}
    net = copy.deepcopy(net)
    net.register_forward_hook(lambda _module, _args, output: output.sigmoid())
    frame = run_plans(net, open_feed(given), plans(net))
    before, there = outputs["unchanged"], np.eye(3)[labels]
    for name, own in frame.groupby("plan"):
        p, target = outputs[str(name)], there if labelled else before
        loss = -(target * np.log(p) + (1 - target) * np.log(1 - p))
        if not labelled:
            loss += before * np.log(before) + (1 - before) * np.log(1 - before)
        np.testing.assert_allclose(own["loss"], loss.sum(1), rtol=1e-9, atol=1e-12)


def test_without_plans_only_the_unchanged_network_runs(net: Net) -> None:
    frame = run_plans(net, open_feed([data(3)[0]]), {})
    assert frame["plan"].tolist() == ["unchanged"] * 3
    assert frame[["loss", "output_change"]].to_numpy().tolist() == [[0.0, 0.0]] * 3
    assert frame["agrees"].all()


def test_the_network_runs_in_its_own_dtype(net: Net) -> None:
    images, _ = data()
    single = copy.deepcopy(net).float()
    frame = run_plans(single, open_feed([images.float()]), plans(single))
    wide = run_plans(net, open_feed([images]), plans(net))
    np.testing.assert_allclose(frame["output_change"], wide["output_change"], rtol=1e-4, atol=1e-7)
    assert not np.array_equal(frame["output_change"], wide["output_change"])


@pytest.mark.parametrize("labels", [["a", "b", "c"], [0, 1, 3], [-1, 0, 1], [0, None, 1]])
def test_labels_that_are_no_class_indices_are_no_labels(net: Net, labels: list[Any]) -> None:
    frame = run_plans(net, open_feed([(data(3)[0], labels)]), {})
    assert frame["correct"].isna().all()
    assert frame["loss"].tolist() == [0.0] * 3


class Nothing:
    """A feed without samples."""

    def batches(self) -> list[Batch]:
        return []


def test_mistakes(net: Net) -> None:
    images, _ = data(4)
    edits = plans(net)["line"]
    with pytest.raises(UsageError, match="the plan 'unchanged' is the network as it is"):
        run_plans(net, open_feed([images]), {"unchanged": edits})
    with pytest.raises(UsageError, match="some batches have class indices as labels and others"):
        run_plans(net, open_feed([(images, [0, 1, 2, 0]), images]), {})
    with pytest.raises(UsageError, match=r"logits are \(N, K\) or .* output is \(4, 4, 4, 4\)"):
        run_plans(nn.Sequential(net.conv), open_feed([images]), {}, logits=True)
    with pytest.raises(AconError, match="no samples"):
        run_plans(net, Nothing(), {})
    third = {"third": {Site("first", net.first, call=2): next(iter(edits.values()))}}
    with pytest.raises(HookError, match="layer 'first' has no call 2"):
        run_plans(net, open_feed([images]), third)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_base_of_edits_is_under_every_plan(net: Net) -> None:
    images, labels = data()
    both, first = plans(net)["both"], plans(net)["line"]
    feed = open_feed([(images, labels)])
    whole = run_plans(net, feed, {"both": both}).query("plan == 'both'")
    second = {site: edit for site, edit in both.items() if site.name == "second"}
    based = run_plans(net, feed, {"both": second}, base=first)
    own = based.query("plan == 'both'")
    np.testing.assert_array_equal(own["loss"], whole["loss"])
    before = run_plans(net, feed, {"line": first}).query("plan == 'line'")
    np.testing.assert_array_equal(based.query("plan == 'unchanged'")["loss"], before["loss"])


def test_each_sample_gets_what_its_donor_had(net: Net) -> None:
    images, labels = data(3)
    chosen = torch.tensor([False, True, False, False])
    values, donors = np.array([[1.0], [2.0], [4.0]]), np.array([2, 0, 1])
    given: list[list[float]] = []

    def edit(rows: Tensor) -> Hold:
        given.append(rows[:, 0].tolist())
        return Hold(torch.full((4,), 0.5), chosen)

    site = Site("second", net.second)
    plan = {site: Resample(values, np.array([0, 1, 2]), donors, edit)}
    parts = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    run_plans(net, open_feed(parts), {"a": plan})
    assert given == [[4.0, 1.0], [2.0]]
    few = Resample(values[:2], np.array([0, 1]), np.array([1, 0]), edit)
    with pytest.raises(HookError, match="sample 2 is not among those that were recorded"):
        run_plans(net, open_feed(parts), {"a": {site: few}})
