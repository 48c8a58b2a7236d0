"""Trials of activations: the networks, what goes through them, their training and its tables."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from acon_analysis.errors import UsageError
from acon_analysis.studies import activation_trials as trials
from acon_analysis.studies.trial_tables import (
    best_rates,
    compare_order,
    mean_interval,
    summarize_trials,
)


def test_the_digits_are_standardised_and_split_once() -> None:
    data = trials.digits_tensors()
    assert [len(data[name][0]) for name in ("train", "validation", "test")] == [1000, 297, 500]
    both = torch.cat([data["train"][0], data["validation"][0]])
    assert float(both.mean()) == pytest.approx(0, abs=1e-5)
    assert float(both.std()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("none", 1.0),
        ("ReLU", 0.5),
        ("Leaky ReLU", 0.505),
        ("sigmoid", 0.293379),  # 1/4 + Var σ(z), Var σ(z) = 0.2083²
        ("sigmoid - 1/2", 0.043379),
        ("SELU", 1.0),  # its fixed point: mean 0, variance 1
    ],
)
def test_the_start_keeps_the_signal(name: str, power: float) -> None:
    state = torch.get_rng_state()
    model = trials.small_network(name, depth=2, width=400, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    second = [module for module in model if isinstance(module, nn.Linear)][1]
    assert float(second.weight.detach().std()) == pytest.approx((400 * power) ** -0.5, rel=0.02)
    assert not second.bias.any()


def test_two_activations_can_start_alike() -> None:
    own = trials.small_network("sigmoid", seed=4, like="sigmoid - 1/2")
    other = trials.small_network("sigmoid - 1/2", seed=4)
    for one, two in zip(own.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(UsageError, match="no activation 'sigmod'; did you mean 'sigmoid'"):
        trials.small_network("sigmoid", like="sigmod")


def test_torchs_own_start_is_untouched() -> None:
    torch.manual_seed(3)
    layer = nn.Linear(64, 5)
    model = trials.small_network("ReLU", depth=1, width=5, start="torch", seed=3)
    assert torch.equal(next(model.parameters()), layer.weight)


def test_signals_by_hand() -> None:
    table = trials.start_signals(["sigmoid"], [2], depth=2, width=6)
    images, labels = trials.digits_tensors()["train"]
    model = trials.small_network("sigmoid", depth=2, width=6, seed=2)
    first = model[1](images.flatten(1)).detach().requires_grad_()
    bent = first.sigmoid()
    seen = bent.detach()
    scores = model[5](model[3](bent).sigmoid())
    torch.autograd.backward(nn.functional.cross_entropy(scores, labels, reduction="sum"))
    assert first.grad is not None
    row = table.iloc[0]
    assert row["gradient"] == pytest.approx(float(first.grad.square().mean().sqrt()), rel=1e-5)
    assert row["mean"] == pytest.approx(float(seen.mean()), rel=1e-5)
    assert row["offset"] == pytest.approx(float(seen.mean() / seen.std()), rel=1e-5)
    assert list(table["layer"]) == [1, 2]


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_a_batch_of_networks_trains_as_each_alone(network: str) -> None:
    kind: dict[str, Any] = {"network": network, "depth": 1, "width": 4}
    table = trials.train_trials(["tanh"], rates=(0.05, 0.2), seeds=(0, 1), steps=5, **kind)
    images, labels = trials.digits_tensors()["train"]
    model = trials.small_network("tanh", seed=1, **kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    order = torch.Generator().manual_seed(1)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 5)
        index = torch.randint(1000, (32,), generator=order)
        loss = nn.functional.cross_entropy(model(images[index]), labels[index])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    x, y = trials.digits_tensors()["test"]
    right = float((model(x).argmax(1) == y).double().mean())
    found = table[(table["rate"] == 0.2) & (table["seed"] == 1)]["test"].item()
    # Sums in another order may let one image fall the other way.
    assert found == pytest.approx(right, abs=0.005)
    assert list(table["rate"]) == [0.05, 0.05, 0.2, 0.2]


def test_dead_units_and_divergence_are_counted() -> None:
    model = trials.small_network("ReLU", depth=2, width=4)
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if name == "1.bias")[:3] = -100.0
    weights = {name: value.detach()[None] for name, value in model.named_parameters()}
    judged = trials._judged(model, weights)
    own = model[:3](trials.digits_tensors()["train"][0])
    assert (own.std(0) == 0).sum() >= 3
    two = model[:5](trials.digits_tensors()["train"][0])
    dead = int((own.std(0) < 1e-6).sum() + (two.std(0) < 1e-6).sum())
    assert judged["dead"] == pytest.approx([dead / 8])
    weights["1.weight"] = torch.full_like(weights["1.weight"], torch.nan)
    judged = trials._judged(model, weights)
    assert judged["diverged"].all()
    assert judged["test"] == pytest.approx([0.1])
    assert np.isnan(judged["dead"]).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match=r"no activation 'relu'; .*ReLU"):
        trials.small_network("relu")
    with pytest.raises(UsageError, match="network is 'dense' or 'conv'"):
        trials.small_network("ReLU", network="graph")
    with pytest.raises(UsageError, match="at least one activation"):
        trials.train_trials([])


def frame() -> pd.DataFrame:
    rows = []
    for name, shift in (("a", 0.02), ("b", 0.0), ("c", 0.0)):
        for rate in (0.1, 0.3):
            for seed in range(3):
                value = 0.9 + shift + 0.001 * seed - (0.5 if rate == 0.3 and name == "a" else 0)
                value += 0.05 * (seed - 1) * (name == "c")
                rows.append((name, rate, seed, value, value, False, 0.0))
    names = ["activation", "rate", "seed", "validation", "test", "diverged", "dead"]
    return pd.DataFrame(rows, columns=names)


def test_the_best_rate_is_chosen_by_validation_alone() -> None:
    table = frame()
    table.loc[table["rate"] == 0.3, "test"] = 1.0
    chosen = best_rates(table)
    assert set(chosen.loc[chosen["activation"] == "a", "rate"]) == {0.1}
    assert set(chosen.loc[chosen["activation"] == "b", "rate"]) == {0.1}


def test_orders_are_judged_in_pairs() -> None:
    found = compare_order(frame(), ["a", "b", "c"])
    assert list(found["verdict"]) == ["holds", "undecided"]
    assert found["difference"].iloc[0] == pytest.approx(0.02)
    assert list(compare_order(frame(), ["b", "a"])["verdict"]) == ["reversed"]
    with pytest.raises(UsageError, match=r"not tried: \['d'\]"):
        compare_order(frame(), ["a", "d"])
    with pytest.raises(UsageError, match="different seeds"):
        compare_order(frame().drop(index=[0]), ["a", "b"])


def test_intervals() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3))
    assert mean - low == pytest.approx(high - mean)
    assert np.isnan(mean_interval([1.0])[1])
    table = summarize_trials(frame())
    assert list(table["activation"]) == ["a", "b", "c"]
    assert table["mean"].iloc[0] == pytest.approx(0.921)
