"""What interventions on gates are given: networks left as they were, data and names refused."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import acon_analysis as acon
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers.meta import MetaAconC
from acon_hooks.errors import RowWarning
from gate_networks import CLASSES, batches, gate_network, samples
from model_facts import unchanged
from networks import Network


@pytest.fixture
def net() -> Any:
    return gate_network()


def test_gates_of_rows_that_are_no_samples_are_refused() -> None:
    torch.manual_seed(0)
    parts = {"wide": nn.Linear(4, 8), "glu": nn.GLU(), "head": nn.Linear(4, CLASSES)}
    net = Network(lambda n, x: n.head(n.glu(n.wide(x.transpose(0, 1)))).mean(0), **parts).eval()
    for tokens in (3, 5):
        refused = pytest.raises(AconError, match="gates cannot be assigned to samples: rows of la")
        with pytest.warns(RowWarning, match="layer 'glu' belong to other samples"), refused:
            acon.gate_use(net, list(torch.split(torch.randn(10, tokens, 4), 5)), ["mean"])
    with pytest.raises(AconError, match="layers have 3 rows in a batch of 1 sample"):
        acon.gate_use(net, list(torch.split(torch.randn(2, 3, 4), 1)), ["mean"])


def test_the_network_stays_as_it_is(net: Any) -> None:
    images, labels = samples()
    net.act1.p1.requires_grad_(False)
    with unchanged(net):
        acon.gate_use(net, batches(images, labels), recalibrate=batches(images, labels))

    class Broken(list[Any]):
        """A data set that fails in the second pass over it."""

        passes = 0

        def __iter__(self) -> Iterator[Any]:
            self.passes += 1
            for part in super().__iter__():
                yield part
                if self.passes == 2:
                    raise KeyboardInterrupt

    with unchanged(net), pytest.raises(KeyboardInterrupt):
        acon.gate_use(net, Broken(batches(images, labels)))


def test_forward_and_output_are_the_users(net: Any) -> None:
    images, labels = samples()
    plain = acon.gate_use(net, batches(images, labels), ["mean"])
    both = acon.gate_use(
        net,
        batches(images, labels),
        ["mean"],
        forward=lambda model, batch: {"features": batch[0], "scores": model(batch[0])},
        output="scores",
    )
    pd.testing.assert_frame_equal(plain, both)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "intervention": ({"interventions": ["meen"]}, "no intervention 'meen'.*'mean'"),
    "none": ({"interventions": []}, "no intervention given"),
    "layer": ({"layers": ["act3"]}, "no layer 'act3' with a gate.*act"),
    "metric": ({"metric": "f1"}, "metric can be 'accuracy'"),
    "margin": ({"margin": 0.0}, "margin must be greater than 0"),
    "output": ({"output": "logits"}, "logits"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_arguments(net: Any, name: str) -> None:
    options, match = BAD[name]
    images, labels = samples()
    with pytest.raises(UsageError, match=match):
        acon.gate_use(net, batches(images, labels), **options)


@pytest.mark.parametrize("label", [3, -1, "cat", 0.5])
def test_labels_of_wrong_form(net: Any, label: Any) -> None:
    images, labels = samples()
    with pytest.raises(UsageError, match="class indices from 0 to 2"):
        acon.gate_use(net, batches(images, [*labels[:-1], label]), ["mean"])


def test_networks_without_gates_say_what_they_have() -> None:
    relu = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    images, labels = samples()
    with pytest.raises(UsageError, match=r"no gate .* its modules have 1 of kind 'activation'"):
        acon.gate_use(relu, batches(images, labels))
    static = acon.build_model("digits_acon")
    with pytest.raises(UsageError, match="are the same for all samples"):
        acon.gate_use(static, "digits")


def test_no_batchnorm_to_estimate_again() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), MetaAconC(4, r=2), nn.Flatten(), nn.Linear(64, 3))
    images, labels = samples()
    data = batches(images, labels)
    with pytest.raises(UsageError, match="no BatchNorm outside its gates"):
        acon.gate_use(net.double().eval(), data, ["mean"], recalibrate=data)


def test_data_must_be_there_twice_and_be_the_same(net: Any) -> None:
    images, labels = samples()
    with pytest.raises(UsageError, match="read more than once"):
        acon.gate_use(net, iter(batches(images, labels)))

    class Noisy(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            for part, own in super().__iter__():
                yield part + torch.rand_like(part), own

    with pytest.raises(AconError, match="batch 0 of the data differs from one pass to the next"):
        acon.gate_use(net, Noisy(batches(images, labels)))


def test_training_mode_is_refused(net: Any) -> None:
    images, labels = samples()
    with pytest.raises(acon.AconError, match="eval"):
        acon.gate_use(net.train(), batches(images, labels))
