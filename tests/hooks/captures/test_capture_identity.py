"""What a network is known by: weights, and the settings of its modules that no state dict holds."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import acon_analysis as acon
from acon_analysis.errors import StoreError
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_hooks.captures import identity
from acon_hooks.captures.identity import modules_sha256, settings_identity, state_sha256
from captures import Tiny, contents, images, tiny


def captured(out: Path, model: nn.Module | None = None) -> Run:
    return acon.capture(model or tiny(), images(20), out, unit_size=8, batch_size=4, progress=False)


def with_eps(value: float = 0.5) -> Tiny:
    model = tiny()
    model.norm.eps = value
    return model


def strided() -> Tiny:
    model = tiny()
    model.conv2.stride = (2, 2)
    return model


@pytest.mark.parametrize("other", [with_eps, strided], ids=["eps", "stride"])
def test_other_settings_are_another_network(other: Any, tmp_path: Path) -> None:
    assert state_sha256(other()) == state_sha256(tiny())
    run = captured(tmp_path / "r")
    run.folder.done_path(1).unlink()
    with pytest.raises(StoreError, match="something else: modules_sha256 was"):
        captured(run.path, other())
    assert captured(run.path).complete
    assert verify_run(run.path).sound


def test_runs_that_say_nothing_of_settings_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acon_hooks.captures.plan.settings_identity", lambda *_: {})
    run = captured(tmp_path / "r")  # as earlier versions wrote them
    monkeypatch.undo()
    expected = contents(run.path)
    assert "modules_sha256" not in run.manifest["identity"]
    run.folder.done_path(1).unlink()
    assert contents(captured(run.path).path) == expected
    assert verify_run(run.path).sound
    assert settings_identity(tiny(), acon.example_run().manifest) == {}


def test_what_another_version_prints_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = captured(tmp_path / "r")
    expected = contents(run.path)
    run.folder.done_path(1).unlink()
    real = identity.versions()
    monkeypatch.setattr(identity, "versions", lambda: real | {"torch": "99.0"})
    monkeypatch.setattr(nn.BatchNorm2d, "extra_repr", lambda self: f"{self.eps}, new=True")
    assert contents(captured(run.path).path) == expected
    begun = run.folder.read_manifest()
    assert settings_identity(tiny(), begun)["modules_sha256"] != modules_sha256(tiny())


class Printing(nn.Module):
    """A module that prints an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.thing = object()

    def extra_repr(self) -> str:
        return f"thing={self.thing!r}"


def test_addresses_do_not_count() -> None:
    first, second = (nn.Sequential(nn.Linear(2, 2), Printing()) for _ in range(2))
    assert repr(first) != repr(second)
    assert modules_sha256(first) == modules_sha256(second)
    assert modules_sha256(first) != modules_sha256(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def test_neither_types_nor_weights_are_settings() -> None:
    assert modules_sha256(Tiny(seed=1).double()) == modules_sha256(tiny())
