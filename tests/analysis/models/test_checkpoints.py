"""Good checkpoints: as torch writes them, training scripts wrap them and wrappers rename them."""

import argparse
import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

import forked_reader
from acon_analysis.files import CacheWarning
from acon_analysis.models.checkpoints import (
    CheckpointError,
    import_checkpoint,
    load_state_dict,
    load_weights,
)
from acon_analysis.models.checkpoints.cache import cache_folder
from acon_analysis.models.checkpoints.importing import write_safetensors
from checkpoint_files import assert_same, net, saved, state
from commands import status

State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Let the tests of this file share a cache, and with it the few reading processes."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACON_CACHE", str(folder))
        forked_reader.use(patch)
        yield folder / "checkpoints"


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        pytest.fail("a reading process was started")

    monkeypatch.setattr("acon_analysis.models.checkpoints.loading.convert", fail)


def awkward() -> State:
    """Return weights that lie in their storages in every way torch.save allows."""
    weights = state()
    base = torch.arange(100.0)
    weights["0.weight"] = weights["0.weight"].to(memory_format=torch.channels_last)
    weights["0.bias"] = base[10:14]
    weights["1.weight"] = base[50:54]
    weights["1.bias"] = weights["1.running_mean"]  # one storage under two names
    weights["3.weight"] = nn.Parameter(torch.arange(20.0).reshape(4, 5).t())
    weights["1.num_batches_tracked"] = torch.tensor(7)
    return weights


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves_comes_back(legacy: bool, tmp_path: Path, cache: Path) -> None:
    weights = awkward()
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(OrderedDict(weights), legacy=legacy))
    result = load_state_dict(path, net())
    assert_same(result.state, weights)
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.format == ("torch legacy" if legacy else "torch zip")
    assert result.notes == ()
    for kept in cache.glob("*.safetensors"):
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == kept.stem
    assert not list(cache.glob("tmp-*"))
    assert safetensors.torch.load_file(next(cache.glob("*.safetensors"))).keys() == weights.keys()


def training_checkpoint() -> dict[str, Any]:
    """Return what a training script of the usual kind saves, from a DataParallel model."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    return {
        "epoch": 3,
        "arch": "resnet",
        "state_dict": nn.DataParallel(model).state_dict(),
        "state_dict_ema": state(),
        "best_acc1": np.float64(77.5),
        "best_acc5": torch.tensor(93.5),
        "history": [np.float32(1), np.int64(2), (1, 2.5, None)],
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "args": argparse.Namespace(lr=0.1, milestones=[2, 3], dtype=torch.float32),
        "big": 2**40,
        "raw": b"bytes",
        "size": torch.Size([1, 2]),
    }


def test_content_that_is_not_read_takes_no_time(tmp_path: Path) -> None:
    """Tuples that hold one another thrice, 25 deep, which nothing may compare."""
    inner: tuple[Any, ...] = ()
    for _ in range(25):
        inner = (inner, inner, inner)
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"state_dict": state(), "x": inner}))
    assert_same(load_state_dict(path, net()).state, state())


def bare(weights: State) -> State:
    return {key.removeprefix("module."): tensor for key, tensor in weights.items()}


def test_training_checkpoint(tmp_path: Path) -> None:
    checkpoint = training_checkpoint()
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(saved(checkpoint))
    result = load_state_dict(path, net())
    assert_same(result.state, bare(checkpoint["state_dict"]))
    assert result.notes == (
        "taken from 'state_dict' (the file also has 'state_dict_ema')",
        "prefix 'module.' removed",
    )


def test_training_checkpoint_in_half_precision_and_the_old_format(tmp_path: Path) -> None:
    checkpoint = training_checkpoint()
    weights = checkpoint["state_dict"]
    half = {k: t.half() if t.is_floating_point() else t for k, t in weights.items()}
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(saved({**checkpoint, "state_dict": half}, legacy=True))
    result = load_state_dict(path, net())
    assert_same(result.state, {k: t.to(state()[k].dtype) for k, t in bare(half).items()})
    assert result.notes[2:] == ("8 tensors converted from float16 to float32",)


def test_import_writes_the_same_file_each_time(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(OrderedDict(awkward())))
    first = import_checkpoint(path, net(), tmp_path / "a.safetensors", model_name="small")
    again = import_checkpoint(path, net(), tmp_path / "b.safetensors", model_name="small")
    assert first.path.read_bytes() == again.path.read_bytes()
    assert (first.tensors, first.values) == (9, sum(t.numel() for t in awkward().values()))
    assert first.size == first.path.stat().st_size
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert_same(safetensors.torch.load_file(first.path), awkward())
    with safetensors.safe_open(first.path, "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "model": "small",
            "source": "weights.pth",
            "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
        "weights.pth",
    ]
    model = net()
    assert load_weights(model, first.path) == first.sha256
    assert_same(model.state_dict(), awkward())


class TestCache:
    """Converted files are named by their content and believed only as long as it fits."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "weights.pth"
        path.write_bytes(saved(OrderedDict(awkward())))
        return path

    def test_used_from_then_on(self, path: Path, request: pytest.FixtureRequest) -> None:
        first = load_state_dict(path, net())
        request.getfixturevalue("no_process")
        assert_same(load_state_dict(path, net()).state, first.state)

    @pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 2000])
    def test_not_believed_when_changed(
        self, damage: bytes, path: Path, cache: Path, request: pytest.FixtureRequest
    ) -> None:
        load_state_dict(path, net())
        request.getfixturevalue("no_process")
        kept = {file: file.read_bytes() for file in cache.glob("*.safetensors")}
        for file, raw in kept.items():
            file.write_bytes(raw[: -len(damage)] + damage if damage else b"")
        with pytest.raises(pytest.fail.Exception, match="process was started"):
            load_state_dict(path, net())
        for file, raw in kept.items():
            file.write_bytes(raw)

    @pytest.mark.usefixtures("no_process")
    @pytest.mark.parametrize("note", ["", "[]", "{}", '{"weights_sha256": "../../x"}', "[" * 4000])
    def test_strange_notes_are_ignored(self, note: str, path: Path, cache: Path) -> None:
        for index in cache.glob("*.json"):
            index.write_text(note)
        with pytest.raises(pytest.fail.Exception, match="process was started"):
            load_state_dict(path, net())

    def test_where_it_is(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("ACON_CACHE", str(tmp_path / "own"))
        assert cache_folder() == tmp_path / "own" / "checkpoints"
        monkeypatch.delenv("ACON_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "acon-analysis" / "checkpoints"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setattr("sys.platform", "linux")
        assert cache_folder() == Path.home() / ".cache" / "acon-analysis" / "checkpoints"

    def test_nowhere_to_write(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACON_CACHE", str(path))
        monkeypatch.setattr("tempfile.tempdir", str(path))
        refused = pytest.raises(CheckpointError, match=r"no temporary folder .*set ACON_CACHE")
        with pytest.warns(CacheWarning, match="cannot be made"), refused:
            load_state_dict(path, net())


def test_written_file_is_that_of_the_library(tmp_path: Path) -> None:
    weights = state(**{"1.weight": torch.ones(4, dtype=torch.bfloat16)})
    write_safetensors(tmp_path / "own.safetensors", weights, {"a": "b"})
    safetensors.torch.save_file(weights, tmp_path / "library.safetensors", metadata={"a": "b"})
    own = (tmp_path / "own.safetensors").read_bytes()
    library = (tmp_path / "library.safetensors").read_bytes()
    header = json.loads(own[8 : 8 + int.from_bytes(own[:8], "little")])
    assert header == json.loads(library[8 : 8 + int.from_bytes(library[:8], "little")])
    assert own[-100:] == library[-100:]


def normalised(norm: Any) -> nn.Module:
    """Return a network with weight normalisation, below another module."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(norm(nn.Conv1d(3, 4, 3), dim=0), nn.ReLU()), nn.Linear(2, 2))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_names_of_the_older_weight_normalisation(prefix: str, tmp_path: Path) -> None:
    """`weight_g` and `weight_v` are what torch itself makes of them, with equal outputs."""
    old: Any = normalised(torch.nn.utils.weight_norm)
    new: Any = normalised(torch.nn.utils.parametrizations.weight_norm)
    with torch.no_grad():
        old[0][0].weight_g.mul_(3)
        old[1].bias.fill_(5)
    path = tmp_path / "old.pth"
    torch.save({prefix + name: value for name, value in old.state_dict().items()}, path)
    result = load_state_dict(path, new)
    assert "2 names converted as the network does when it loads them" in result.notes
    assert result.state.keys() == new.state_dict().keys()
    expected: Any = normalised(torch.nn.utils.parametrizations.weight_norm)
    expected.load_state_dict(old.state_dict())
    assert_same(result.state, dict(expected.state_dict()))
    load_weights(new, path)
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        assert torch.equal(new(x), old(x))
    with pytest.raises(CheckpointError, match=r"2 keys of the model missing.*2 keys unexpected"):
        load_state_dict(path, dict(new.state_dict()))  # names alone have no hooks


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_names_of_the_newer_weight_normalisation(prefix: str, tmp_path: Path) -> None:
    """A model of the older one takes them, also as a mapping of names; outputs are equal."""
    old: Any = normalised(torch.nn.utils.weight_norm)
    new: Any = normalised(torch.nn.utils.parametrizations.weight_norm)
    with torch.no_grad():
        new[0][0].parametrizations.weight.original0.mul_(3)
        new[0][0].parametrizations.weight.original1.add_(1)
    path = tmp_path / "new.pth"
    torch.save({prefix + name: value for name, value in new.state_dict().items()}, path)
    result = load_state_dict(path, old)
    assert "2 names converted to those of torch.nn.utils.weight_norm" in result.notes
    assert torch.equal(
        result.state["0.0.weight_g"], new[0][0].parametrizations.weight.original0.detach()
    )
    assert_same(load_state_dict(path, old.state_dict()).state, result.state)
    load_weights(old, path)
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        assert torch.equal(new(x), old(x))


def test_a_hook_that_needs_values_converts_nothing(tmp_path: Path) -> None:
    class Own(nn.Linear):
        """Renames its weight after a look at its values."""

        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_load_state_dict_pre_hook(self._look)  # type: ignore[no-untyped-call]

        @staticmethod
        def _look(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
            if float(state[f"{prefix}w"].sum()) > 0:
                state[f"{prefix}weight"] = state.pop(f"{prefix}w")

    path = tmp_path / "w.pth"
    torch.save({"w": torch.ones(2, 2), "bias": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="1 key of the model missing: 'weight'"):
        load_state_dict(path, Own())


def extra() -> State:
    return {**state(), "teacher.head": torch.ones(2), "teacher.body": torch.ones(3), "steps": 1.0}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_extra_keys_are_left_out_by_name(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "more.pth"
    torch.save({prefix + name: value for name, value in extra().items() if name != "steps"}, path)
    for drop in (["teacher.*"], [f"{prefix}teacher.head", "*.body"]):
        result = load_state_dict(path, net(), drop=drop)
        assert_same(result.state, state())
        said = f"2 keys left out as asked: '{prefix}teacher.head', '{prefix}teacher.body'"
        assert said in result.notes
    option = r"1 key unexpected: 'teacher.body' .*left out by name: `acon import-checkpoint --drop"
    with pytest.raises(CheckpointError, match=option):
        load_state_dict(path, net(), drop="teacher.head")
    with pytest.raises(
        CheckpointError, match=r"no extra key is named 'student.\*', .*teacher.head"
    ):
        load_state_dict(path, net(), drop=["teacher.*", "student.*"])


def test_what_the_model_has_is_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "same.pth"
    path.write_bytes(saved(state()))
    with pytest.raises(CheckpointError, match=r"no extra key is named '0.weight', .*none is extra"):
        load_state_dict(path, net(), drop=["0.weight"])
    torch.save(extra(), path)
    with pytest.raises(CheckpointError, match=r"has 1\.0 under 'steps', expected a tensor"):
        load_state_dict(path, net(), drop=["teacher.*"])
    assert_same(load_state_dict(path, net(), drop=["*eacher*", "steps"]).state, state())


def test_an_import_leaves_keys_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "more.pth", tmp_path / "out.safetensors"
    torch.save({name: value for name, value in extra().items() if name != "steps"}, path)
    (tmp_path / "net.py").write_text(
        "from checkpoint_files import net\ndef make():\n    return net()\n"
    )
    given = ["import-checkpoint", path, "--model", f"{tmp_path / 'net.py'}:make", "--out", out]
    assert status(*given) == 1
    assert "--drop NAME" in capsys.readouterr().err
    assert status(*given, "--drop", "teacher.head", "--drop", "teacher.b*") == 0
    assert_same(safetensors.torch.load_file(out), state())
