"""The recipe's rules, resuming, and what is shipped."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import acon_analysis as acon
from acon_analysis.columns import CURVE_COLUMNS, names
from acon_analysis.data.sources import digits
from acon_analysis.errors import UsageError
from acon_analysis.models.bottleneck import BottleneckResNet
from acon_analysis.models.checkpoints.importing import write_safetensors
from acon_analysis.models.checkpoints.loading import examine
from acon_analysis.models.listing import weights_metadata
from acon_analysis.models.registry import registry
from acon_analysis.paper.numbers import NETWORK_ACTIVATIONS
from acon_analysis.training import loop, release
from acon_analysis.training.loop import Training, augment, parameter_groups
from acon_analysis.training.recipes import RECIPES, Recipe
from acon_analysis.training.release import _WORDS, train_network, wilson_interval

Damage = Callable[[dict[str, Any]], object]

TINY = replace(RECIPES["digits"], epochs=2, batch_size=100)


def tiny_training(
    state: Path | None = None,
    seed: int = 0,
    recipe: Recipe = TINY,
    network: str = "",
    activation: str = "metaacon",
) -> Training:
    torch.manual_seed(5)
    model = BottleneckResNet(activation, input_shape=(1, 8, 8), widths=(4,), blocks=(1,))
    return Training(
        model, digits("train").head(200), digits("test").head(50), recipe, seed, state, network
    )


def test_decay_falls_on_convolution_and_linear_weights_only(digits_metaacon: nn.Module) -> None:
    decayed, free = parameter_groups(digits_metaacon, RECIPES["digits"])
    assert decayed["weight_decay"] == 1e-4
    assert free["weight_decay"] == 0
    by_id = {id(value): name for name, value in digits_metaacon.named_parameters()}
    with_decay = {by_id[id(value)] for value in decayed["params"]}
    without = {by_id[id(value)] for value in free["params"]}
    assert "layer1.0.conv2.weight" in with_decay
    assert "layer1.0.acon.fc1.weight" in with_decay
    assert "fc.weight" in with_decay
    for name in ("p1", "p2", "fc1.bias", "bn2.weight", "bn2.bias"):
        assert f"layer1.0.acon.{name}" in without
    assert "layer1.0.bn1.weight" in without
    assert with_decay | without == set(by_id.values())
    everything, nothing = parameter_groups(digits_metaacon, replace(TINY, decay_all=True))
    assert len(everything["params"]) == len(by_id)
    assert nothing["params"] == []


def test_learning_rate_falls_linearly_to_zero() -> None:
    training = tiny_training()
    rates = [training._rate(step) for step in range(4)]
    np.testing.assert_allclose(rates, [0.1, 0.075, 0.05, 0.025])
    assert training._rate(4) == 0


def test_shift_and_flip_move_pixels_and_nothing_else() -> None:
    images = torch.zeros(64, 1, 8, 8)
    images[:, 0, 3, 2] = 1
    generator = torch.Generator().manual_seed(0)
    moved = augment(images, Recipe(shift=1, flip=False), generator)
    assert moved.shape == images.shape
    rows, columns = moved.nonzero()[:, 2], moved.nonzero()[:, 3]
    assert set(rows.tolist()) == {2, 3, 4}
    assert set(columns.tolist()) == {1, 2, 3}
    mirrored = augment(images, Recipe(shift=0, flip=True), generator)
    assert set(mirrored.nonzero()[:, 3].tolist()) == {2, 5}
    assert torch.equal(augment(images, Recipe(shift=0, flip=False), generator), images)


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = tiny_training()
    assert list(whole.run(progress=False)) == [1, 2]
    state = tmp_path / "net.state"
    first = tiny_training(state)
    assert next(first.run(progress=False)) == 1
    second = tiny_training(state)
    assert second.epoch == 1
    assert list(second.run(progress=False)) == [2]
    pd.testing.assert_frame_equal(whole.curves, second.curves)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "net.state"
    list(tiny_training(state).run(progress=False))
    with pytest.raises(UsageError, match=r"lr was 0\.1, is 0\.2.*seed was 0, is 1"):
        tiny_training(state, seed=1, recipe=replace(TINY, lr=0.2))


def test_a_state_of_another_network_is_refused_and_both_are_named(tmp_path: Path) -> None:
    state = tmp_path / "net.state"
    next(tiny_training(state, network="tiny_relu", activation="relu").run(progress=False))
    with pytest.raises(UsageError, match="network was 'tiny_relu', is 'tiny_swish'"):
        # The same tensors, which differ in their name only.
        tiny_training(state, network="tiny_swish", activation="swish")
    with pytest.raises(UsageError, match=r"network was 'tiny_relu', is 'tiny_acon'.*another --out"):
        tiny_training(state, network="tiny_acon", activation="acon")
    assert tiny_training(state, network="tiny_relu", activation="relu").epoch == 1


def test_a_state_without_the_networks_name_is_continued_if_its_tensors_fit(tmp_path: Path) -> None:
    state = tmp_path / "net.state"
    next(tiny_training(state).run(progress=False))
    assert "network" not in json.loads(torch.load(state, weights_only=True)["identity"])
    assert tiny_training(state, network="tiny_metaacon").epoch == 1
    match = r"network differs: 'layer1\.0\.acon\.bn1\.bias' is shape \(.*no such tensor in this one"
    with pytest.raises(UsageError, match=match):
        tiny_training(state, network="tiny_relu", activation="relu")


def test_a_snapshot_missed_by_a_killed_training_comes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {name: digits(name).head(100) for name in ("train", "test")}
    monkeypatch.setattr(release, "open_data", lambda name: sources[name.partition(":")[2]])

    def killed(path: Path, *given: Any) -> None:
        if "epoch001" in path.name:
            raise KeyboardInterrupt
        write_safetensors(path, *given)

    out, kept = tmp_path / "net.safetensors", tmp_path / "net.epoch001.safetensors"

    def train() -> pd.DataFrame:
        return train_network("digits_relu", out, recipe=replace(TINY, epochs=1), snapshots=(0, 1),
                             progress=False)  # fmt: skip

    with monkeypatch.context() as patched:
        patched.setattr(release, "write_safetensors", killed)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert out.with_suffix(".state").is_file()
    assert not kept.exists()
    assert len(train()) == 1
    first, last = (acon.build_model("digits_relu", weights=path).fc for path in (kept, out))
    assert torch.equal(first.weight, last.weight)  # type: ignore[arg-type, union-attr]


@pytest.mark.slow
def test_train_network_writes_weights_curves_and_card(tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    curves = train_network("digits_metaacon", out, epochs=1, seed=3, snapshots=(0, 1),
                           progress=False)  # fmt: skip
    assert list(curves.columns) == names(CURVE_COLUMNS)
    assert out.is_file()
    written = pd.read_csv(out.with_suffix(".csv"))
    np.testing.assert_allclose(written["test_error"], curves["test_error"], rtol=1e-5)
    facts = weights_metadata(out)
    assert float(facts["test_accuracy"]) == pytest.approx(1 - curves["test_error"].iloc[-1])
    card = out.with_suffix(".md").read_text()
    assert "--seed 3" in card
    assert not out.with_suffix(".state").exists()
    untrained = acon.build_model("digits_metaacon", weights=None, seed=3).state_dict()
    start = acon.build_model("digits_metaacon", weights=tmp_path / "net.epoch000.safetensors")
    for name, value in start.state_dict().items():
        assert torch.equal(value, untrained[name]), name
    trained = acon.build_model("digits_metaacon", weights=out)
    end = acon.build_model("digits_metaacon", weights=tmp_path / "net.epoch001.safetensors")
    assert torch.equal(trained.fc.weight, end.fc.weight)  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits_metacon", {}, "did you mean 'digits_metaacon'"),
        ("resnet50_acon", {}, "no training recipe"),
        ("digits_acon", {"epochs": 0}, "at least 1; got 0"),
        ("digits_acon", {"data": "mnist"}, "no recipe for 'mnist'"),
    ],
)
def test_wrong_usage(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train_network(name, tmp_path / "x.safetensors", **options)


def test_wilson_interval_by_hand() -> None:
    # p = 9/10, z = 1.959964: centre (p + z2/2n)/(1 + z2/n), half z/(1+z2/n)*sqrt(pq/n + z2/4n2)
    low, high = wilson_interval(9, 10)
    z2 = 1.959963984540054**2
    centre = (0.9 + z2 / 20) / (1 + z2 / 10)
    half = z2**0.5 / (1 + z2 / 10) * (0.09 / 10 + z2 / 400) ** 0.5
    assert (low, high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize("activation", NETWORK_ACTIVATIONS)
def test_shipped_digits_weights_reach_what_their_card_says(activation: str) -> None:
    name = f"digits_{activation}"
    path = registry()[name].shipped
    assert path is not None
    facts = weights_metadata(path)
    model, test = acon.build_model(name), digits("test")
    with torch.inference_mode():
        logits = model(torch.stack([test[index] for index in range(len(test))]))
    accuracy = float((logits.argmax(1).numpy() == test.targets).mean())
    assert accuracy == pytest.approx(float(facts["test_accuracy"]), abs=1e-4)
    assert accuracy >= 0.97
    assert json.loads(facts["recipe"])["decay_all"] is False
    curves = pd.read_csv(path.with_suffix(".csv"))
    assert 1 - curves["test_error"].iloc[-1] == pytest.approx(accuracy, abs=1e-4)


def test_shipped_weights_are_small() -> None:
    folder = next(spec.shipped for spec in registry().values() if spec.shipped).parent
    sizes = {path.name: path.stat().st_size for path in folder.glob("digits_*.safetensors")}
    assert len(sizes) == 4
    assert sum(sizes.values()) < 5e6


def test_digits_networks_differ_only_in_the_activation() -> None:
    """As the comparison needs it: everything else has the same shapes."""
    models = [acon.build_model(f"digits_{kind}", weights=None) for kind in NETWORK_ACTIVATIONS]
    shapes = [
        {
            name: tuple(value.shape)
            for name, value in model.named_parameters()
            if ".acon" not in name
        }
        for model in models
    ]
    assert all(shape == shapes[0] for shape in shapes)


def test_a_card_says_which_architecture_it_is() -> None:
    spec = registry()["cifar10_shufflenet_metaacon"]
    words = {_WORDS[type(registry()[name].build())] for name in ("digits_relu", "cifar10_acon")}
    assert len(words) == 1
    assert "bottleneck" in words.pop()
    assert "ShuffleNetV2" in _WORDS[type(spec.build())]
    assert {type(own.build()) for own in registry().values() if own.data} == set(_WORDS)


def of_another_epoch(epoch: object) -> Damage:
    return lambda content: content.update(epoch=epoch)


def without(*path: str) -> Damage:
    def take(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content.pop(path[-1] if path[-1] in content else next(iter(content)))

    return take


def put(value: object, *path: str | int) -> Damage:
    def change(content: Any) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


STATES: dict[str, Damage] = {
    "epoch -5": of_another_epoch(-5),
    "epoch 99": of_another_epoch(99),
    "epoch True": of_another_epoch(True),
    "epoch 1.0": of_another_epoch(1.0),
    "no rows": put([], "rows"),
    "a short row": put([[1]], "rows"),
    "a row of text": put([["x"] * 7], "rows"),
    "no identity": without("identity"),
    "identity of nothing": put("{}", "identity"),
    "identity is no JSON": put("{", "identity"),
    "identity is a list": put("[]", "identity"),
    "no model": without("model"),
    "no optimizer": without("optimizer"),
    "no state of the optimizer": without("optimizer", "state"),
    "another parameter": put({"momentum_buffer": torch.zeros(1)}, "optimizer", "state", 101),
    "momentum of another shape": put({"momentum_buffer": torch.zeros(1)}, "optimizer", "state", 0),
    "momentum of text": put({"momentum_buffer": "x"}, "optimizer", "state", 0),
    "weights that are none": put("x", "model", "fc.weight"),
    "weights of NaN": put(torch.full((10, 16), torch.nan), "model", "fc.weight"),
}


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("training") / "net.state"
    next(tiny_training(state).run(progress=False))
    return state


@pytest.mark.parametrize("name", STATES)
def test_a_damaged_state_is_one_sentence(name: str, half_done: Path, tmp_path: Path) -> None:
    content = torch.load(half_done, weights_only=True)
    STATES[name](content)
    torch.save(content, tmp_path / "net.state")
    with pytest.raises(UsageError, match=r"net.state' .*delete it or choose another --out") as no:
        tiny_training(tmp_path / "net.state")
    assert "\n" not in str(no.value)


def test_bytes_that_are_no_state(half_done: Path, tmp_path: Path) -> None:
    whole, state = half_done.read_bytes(), tmp_path / "net.state"
    changed = bytearray(whole)
    changed[600] ^= 0xFF
    for raw in (b"", b"x", whole[:-1], whole[: len(whole) // 2], bytes(changed), b"\x80\x02K\x01."):
        state.write_bytes(raw)
        with pytest.raises(UsageError, match="is damaged, or no state of a training"):
            tiny_training(state)


def test_what_has_been_checked_of_a_state_is_what_is_read(
    half_done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "net.state"
    state.write_bytes(half_done.read_bytes())
    check = examine

    def check_then_change(*given: Any) -> Any:
        found = check(*given)
        state.write_bytes(b"x" * state.stat().st_size)
        return found

    monkeypatch.setattr(loop, "examine", check_then_change)
    assert tiny_training(state).epoch == 1


def test_a_state_that_would_run_code_does_not(tmp_path: Path) -> None:
    state = tmp_path / "net.state"
    state.write_bytes(
        b"cbuiltins\neval\n(Vopen('" + str(tmp_path / "canary").encode() + b"','w')\ntR."
    )
    with pytest.raises(UsageError, match="is damaged"):
        tiny_training(state)
    assert not (tmp_path / "canary").exists()


def test_a_compressed_state_is_not_unpacked(half_done: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(half_done) as old, zipfile.ZipFile(tmp_path / "net.state", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match=r"is compressed .*delete it or choose another --out"):
        tiny_training(tmp_path / "net.state")


def test_settings_of_a_state_are_those_of_the_recipe(half_done: Path, tmp_path: Path) -> None:
    content = torch.load(half_done, weights_only=True)
    content["optimizer"]["param_groups"][0].update(momentum=5.0, weight_decay=1.0)
    torch.save(content, tmp_path / "net.state")
    changed, sound = tiny_training(tmp_path / "net.state"), tiny_training(half_done)
    list(changed.run(progress=False))
    sound.state = None
    list(sound.run(progress=False))
    pd.testing.assert_frame_equal(changed.curves, sound.curves)


def test_a_state_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "net.state.part").symlink_to(tmp_path / "precious")
    next(tiny_training(tmp_path / "net.state").run(progress=False))
    assert (tmp_path / "precious").read_text() == "mine"
