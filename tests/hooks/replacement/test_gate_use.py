"""Interventions on gates, against hooks of the test's own that overwrite β and numpy."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.columns import GATE_COLUMNS, names
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers.squeeze import SqueezeExcitation
from acon_analysis.statistics.donors import draw_donors
from acon_hooks.replacement.gate_changes import DRAWINGS, sentences
from gate_networks import CLASSES, Net, batches, gate_network, samples
from networks import Network
from support_variants import VARIANTS, Variant, combine, shaken, tensor

Array = npt.NDArray[np.float64]
Beta = Callable[[Tensor, int], Tensor]


@pytest.fixture
def net() -> Any:
    return gate_network()


def overwritten(net: nn.Module, images: Tensor, beta: dict[str, Tensor]) -> Array:
    """Return the logits with β of some layers overwritten by hooks after bn2: plain PyTorch."""
    net, handles = copy.deepcopy(net), []
    for name, value in beta.items():
        logits = torch.logit(value)[:, :, None, None]
        hook = net.get_submodule(f"{name}.bn2").register_forward_hook(
            lambda _m, _a, out, logits=logits: logits.expand_as(out)
        )
        handles.append(hook)
    with torch.no_grad():
        found: Array = net(images).numpy()
    return found


def recorded(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    net = copy.deepcopy(net)
    for name in ("act1", "act2"):
        net.get_submodule(f"{name}.bn2").register_forward_hook(
            lambda _m, _a, out, name=name: found.update({name: out.sigmoid()[:, :, 0, 0]})
        )
    with torch.no_grad():
        net(images)
    return found


def cross_entropy(logits: Array, labels: list[int]) -> Array:
    found: Array = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return found


def expected(net: nn.Module, images: Tensor, intervention: str, layer: str) -> list[Array]:
    """Return the logits of every drawing of an intervention."""
    beta = recorded(net, images)
    if intervention == "mean":
        drawings = [{name: value.mean(0, keepdim=True) for name, value in beta.items()}]
    elif intervention == "constant":
        drawings = [{name: torch.full_like(value, 0.5) for name, value in beta.items()}]
    else:
        generator = np.random.default_rng(0)
        donors = [draw_donors(len(images), generator) for _ in range(DRAWINGS)]
        drawings = [{name: value[rows] for name, value in beta.items()} for rows in donors]
    only = [name for name in beta if layer in (name, "all")]
    return [overwritten(net, images, {name: one[name] for name in only}) for one in drawings]


@pytest.mark.parametrize("intervention", ["mean", "constant", "resample"])
@pytest.mark.parametrize("layer", ["act1", "act2", "all"])
def test_interventions_are_those_of_plain_hooks(net: Any, intervention: str, layer: str) -> None:
    images, labels = samples()
    table = acon.gate_use(net, batches(images, labels), [intervention])
    row = table.set_index("layer").loc[layer]

    before = overwritten(net, images, {})
    after = expected(net, images, intervention, layer)
    change = np.mean([cross_entropy(one, labels) for one in after], axis=0)
    change = change - cross_entropy(before, labels)
    test = stats.ttest_1samp(change, 0)
    low, high = test.confidence_interval(0.99)
    right = np.mean([(one.argmax(1) == labels).mean() for one in after])
    relative = [
        np.linalg.norm(one - before, axis=1) / np.linalg.norm(before, axis=1) for one in after
    ]
    assert row["loss_change"] == pytest.approx(change.mean(), abs=1e-9)
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-9)
    assert row["p"] == pytest.approx(test.pvalue, rel=1e-6)
    assert row["accuracy_change"] == pytest.approx(right - (before.argmax(1) == labels).mean())
    agreement = np.mean([(one.argmax(1) == before.argmax(1)).mean() for one in after])
    assert row["agreement"] == pytest.approx(agreement)
    assert row["output_change"] == pytest.approx(np.mean(relative), abs=1e-9)
    assert np.abs(change).mean() > 1e-3  # the intervention does something


def test_without_labels_the_loss_is_a_divergence(net: Any) -> None:
    images, _ = samples()
    row = acon.gate_use(net, batches(images, None), ["mean"]).set_index("layer").loc["all"]
    before, after = overwritten(net, images, {}), expected(net, images, "mean", "all")[0]
    p, q = softmax(before, axis=1), softmax(after, axis=1)
    divergence = (p * np.log(p / q)).sum(1)
    assert row["loss_change"] == pytest.approx(divergence.mean(), abs=1e-9)
    test = stats.ttest_1samp(divergence, 0.01, alternative="greater")
    assert row["p"] == pytest.approx(test.pvalue, rel=1e-6)
    assert np.isnan(row["accuracy_change"])


def test_the_level_is_the_constant_against_the_mean(net: Any) -> None:
    images, labels = samples()
    table = acon.gate_use(net, batches(images, labels), ["level"])
    assert list(table["intervention"]) == ["level"] * 3
    for row in table.itertuples():
        losses: list[Any] = [
            cross_entropy(expected(net, images, name, str(row.layer))[0], labels)
            for name in ("constant", "mean")
        ]
        test = stats.ttest_1samp(losses[0] - losses[1], 0)
        assert row.loss_change == pytest.approx(losses[0].mean() - losses[1].mean(), abs=1e-9)
        assert row.p == pytest.approx(test.pvalue, rel=1e-6)
    assert table["agreement"].isna().all()


def test_within_class_donors_have_the_class(net: Any) -> None:
    images, _ = samples(6)
    labels = [0, 1, 2, 2, 1, 0]
    beta = {name: value.flip(0) for name, value in recorded(net, images).items()}
    change = cross_entropy(overwritten(net, images, beta), labels) - cross_entropy(
        overwritten(net, images, {}), labels
    )
    table = acon.gate_use(net, batches(images, labels), ["resample-within-class"])
    assert table.set_index("layer")["loss_change"]["all"] == pytest.approx(change.mean(), abs=1e-9)
    with pytest.raises(AconError, match="one sample of class 0"):
        acon.gate_use(net, batches(images, [0, 1, 1, 1, 1, 1]), ["resample-within-class"])
    with pytest.raises(UsageError, match="needs data with labels"):
        acon.gate_use(net, batches(images, None), ["resample-within-class"])


def estimated(net: nn.Module, images: Tensor, size: int, beta: dict[str, Tensor]) -> nn.Module:
    """Return a copy whose norm1 and norm2 are estimated again, normalising by batch meanwhile."""
    net = copy.deepcopy(net)
    seen: dict[str, list[Tensor]] = {"norm1": [], "norm2": []}
    hooks = []
    for name, value in beta.items():
        bn2 = net.get_submodule(f"{name}.bn2")
        logits = torch.logit(value)[:, :, None, None]
        hooks.append(bn2.register_forward_hook(lambda _m, _a, out, b=logits: b.expand_as(out)))
    for name, kept in seen.items():
        norm = net.get_submodule(name).train()
        hooks.append(norm.register_forward_hook(lambda _m, a, _o, kept=kept: kept.append(a[0])))
    with torch.no_grad():
        for start in range(0, len(images), size):
            net(images[start : start + size])
    for name, kept in seen.items():
        values = torch.cat(kept).movedim(1, 0).flatten(1).numpy()
        norm = net.get_submodule(name).eval()
        norm.running_mean = torch.from_numpy(values.mean(1))
        norm.running_var = torch.from_numpy(values.var(1, ddof=1))
    for hook in hooks:
        hook.remove()
    return net


def test_recalibrated_batchnorms_are_those_of_a_copy_in_training(net: Any) -> None:
    images, labels = samples()
    training, _ = samples(20, seed=1)
    table = acon.gate_use(
        net, batches(images, labels), ["mean"], recalibrate=batches(training, None)
    )
    assert list(table["recalibrated"]) == [False] * 3 + [True] * 3
    row = table[table["recalibrated"]].set_index("layer").loc["act1"]
    mean = {"act1": recorded(net, images)["act1"].mean(0, keepdim=True)}
    before = overwritten(estimated(net, training, 5, {}), images, {})
    after = overwritten(estimated(net, training, 5, mean), images, mean)
    change = cross_entropy(after, labels) - cross_entropy(before, labels)
    assert row["loss_change"] == pytest.approx(change.mean(), abs=1e-9)
    plain = table[~table["recalibrated"]].set_index("layer").loc["act1", "loss_change"]
    assert abs(plain - change.mean()) > 1e-4


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if v.granularity != "static"], ids=lambda v: v.name
)
def test_every_readable_variant_can_be_set(variant: Variant) -> None:
    torch.manual_seed(7)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = variant.make(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act(1.5 * x, *[x.sin()] * (len(variant.inputs) - 1))
            return out.flatten(1)

    whole = shaken(Whole().double())
    images = tensor(variant.inputs[0], 7, 8).double()
    with torch.no_grad():
        before = whole(images).numpy()
    act: Any = whole.act
    table = acon.gate_use(whole, [images], ["constant", "resample"]).set_index("intervention")
    donors = [draw_donors(7, g) for g in [np.random.default_rng(0)] for _ in range(DRAWINGS)]
    whole(images)  # β of this very batch
    for name, beta in {"constant": [0.5], "resample": [act.truth[rows] for rows in donors]}.items():
        turned = variant.name == "5 speech"  # activates its input with the channels second
        x = 1.5 * (images.transpose(1, 2) if turned else images)
        after = [combine(x, act.p1, act.p2, b).detach() for b in beta]
        after = [(one.transpose(1, 2) if turned else one).flatten(1) for one in after]
        p, log_p = softmax(before, axis=1), log_softmax(before, axis=1)
        changed = [log_softmax(one.numpy(), axis=1) for one in after]
        loss = np.mean([(p * (log_p - one)).sum(1).mean() for one in changed])
        assert loss > 1e-5
        assert float(table["loss_change"][name].max()) == pytest.approx(loss, rel=1e-7)


def gated() -> Network:
    """A squeeze-and-excitation, then a GLU over the channels."""
    return Network(
        lambda n, x: n.head(n.glu(n.conv(n.squeeze(x))).mean((2, 3))),
        squeeze=SqueezeExcitation(4, r=2),
        conv=nn.Conv2d(4, 8, 1),
        glu=nn.GLU(1),
        head=nn.Linear(4, CLASSES),
    )


def test_squeeze_and_excitation_and_glu() -> None:
    torch.manual_seed(0)
    net = gated().double().eval()
    images, labels = torch.randn(10, 4, 5, 5, dtype=torch.float64) * 2, [0, 1] * 5
    table = acon.gate_use(net, batches(images, labels), ["mean", "constant"])
    assert list(table["layer"].unique()) == ["squeeze", "glu", "all"]

    with torch.no_grad():
        first = net.squeeze(images)
        gate = (first / images).mean((2, 3), keepdim=True).mean(0, keepdim=True)
        whole = net.conv(first)
        before = net.head((whole[:, :4] * whole[:, 4:].sigmoid()).mean((2, 3)))
        squeezed = net.head(net.glu(net.conv(images * gate)).mean((2, 3)))
        half = whole[:, 4:].sigmoid().mean((0, 2, 3), keepdim=True)
        level = net.head((whole[:, :4] * half).mean((2, 3)))
        halved = net.head((whole[:, :4] * 0.5).mean((2, 3)))
    change = table.set_index(["layer", "intervention"])["loss_change"]
    base = cross_entropy(before.numpy(), labels).mean()
    for key, logits in {
        ("squeeze", "mean"): squeezed,
        ("glu", "mean"): level,
        ("glu", "constant"): halved,
    }.items():
        found = cross_entropy(logits.numpy(), labels).mean() - base
        assert change[key] == pytest.approx(found, abs=1e-9)


def test_rows_columns_and_reproducibility(net: Any) -> None:
    images, labels = samples()
    data = batches(images, labels)
    table = acon.gate_use(net, data, seed=1)
    assert list(table.columns) == names(GATE_COLUMNS)
    assert len(table) == 3 * 3
    assert set(table["verdict"]) <= {"used", "not used", "undecided"}
    pd.testing.assert_frame_equal(table, acon.gate_use(net, data, seed=1))
    other = acon.gate_use(net, data, seed=2)
    changed = table.loc[table["loss_change"] != other["loss_change"], "intervention"]
    assert set(changed) == {"resample"}
    one = acon.gate_use(net, data, "mean", layers="act2")
    assert list(one["layer"]) == ["act2", "all"]
    assert one["loss_change"].nunique() == 1


def test_one_pass_a_plan(net: Any) -> None:
    images, labels = samples()
    data = batches(images, labels)  # three of them
    seen = []
    handle = net.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    acon.gate_use(net, data, ["mean", "resample"])
    handle.remove()
    again = 3 * 5  # the proof that rows are samples runs the first batch again, whole and in parts
    plans = (1 + DRAWINGS) * 3
    assert sum(seen) <= (1 + 1 + plans) * len(images) + again


def test_half_precision_and_float32_agree(net: Any) -> None:
    images, labels = samples(30)
    wide = acon.gate_use(net.float(), batches(images.float(), labels), ["mean"])
    half = acon.gate_use(net.bfloat16(), batches(images.bfloat16(), labels), ["mean"])
    assert half["loss_change"].to_numpy() == pytest.approx(wide["loss_change"], abs=0.02)


@pytest.mark.parametrize("labelled", [True, False])
def test_sentences_end_with_the_rule_of_the_verdicts(net: Net, labelled: bool) -> None:
    images, labels = samples(40)
    data = [(images, torch.tensor(labels)) if labelled else images]
    table = acon.gate_use(net, data)
    first, *_, loss, rule = sentences(table)
    assert first.startswith("mean: all layers at once ")
    assert ("cross-entropy" in loss) is labelled
    assert ("no class labels" in loss) is not labelled
    assert "99 % interval" in loss
    assert ("p_holm of a change by more than 0.01 is at most 0.01" in rule) is not labelled
    assert rule.index("not used: ") < rule.index("otherwise used: ") < rule.index("undecided: ")
    # The rule as printed gives the verdicts.
    inside = (table["low"] > -0.01) & (table["high"] < 0.01)
    used = table["p_holm"] <= 0.01
    expected = np.where(inside, "not used", np.where(used, "used", "undecided"))
    assert table["verdict"].tolist() == expected.tolist()
