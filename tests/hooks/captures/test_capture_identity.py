"""What a network is known by: weights, and the settings of its modules that no state dict holds."""

# mypy: disable-error-code="no-untyped-call"

import hashlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

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


def quantised(model: nn.Module) -> nn.Module:
    kinds = {nn.Linear, nn.LSTM}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.ao.quantization.quantize_dynamic(model, kinds).eval()
    return made


def linear(weight: float = 1.0, bias: float = 0.5) -> nn.Module:
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, bias)
    return quantised(nn.Sequential(layer, nn.ELU()))


def recurrent(weight: float = 1.0) -> nn.Module:
    model = nn.Sequential(nn.LSTM(3, 2))
    for parameter in model.parameters():
        nn.init.constant_(parameter, weight)
    return quantised(model)


def stored(scale: float = 0.1, number: int = 3) -> nn.Module:
    """Return a module with quantised weights as a buffer."""
    model = nn.Module()
    whole = torch.full((2, 2), number, dtype=torch.int8)
    model.register_buffer("w", torch._make_per_tensor_quantized_tensor(whole, scale, 0))
    return model


def composed(second: float = 1.0) -> nn.Module:
    model = nn.Module()
    parts = torch.ones(2, 2), torch.full((2, 2), second)
    model.w = nn.Parameter(TwoTensor(*parts))
    return model


def conjugated(imaginary: float = 1.0) -> nn.Module:
    model = nn.Module()
    model.register_buffer("w", torch.complex(torch.ones(2), torch.full((2,), imaginary)).conj())
    return model


class Extra(nn.Module):
    def __init__(self, state: Any = 1) -> None:
        super().__init__()
        self.state = state

    def get_extra_state(self) -> Any:
        return {"rate": self.state, "of": [torch.ones(2)]}


@pytest.mark.filterwarnings("ignore:.*TypedStorage")
@pytest.mark.parametrize(
    ("make", "others"),
    [
        (linear, [{"weight": 2.0}, {"bias": 0.0}]),
        (recurrent, [{"weight": 0.5}]),
        (stored, [{"scale": 0.2}, {"number": 4}]),
        (composed, [{"second": 2.0}]),
        (conjugated, [{"imaginary": -1.0}]),
        (Extra, [{"state": 2}]),
    ],
)
def test_every_value_of_a_state_dict_counts(make: Any, others: list[dict[str, Any]]) -> None:
    first = state_sha256(make())
    assert state_sha256(make()) == first
    assert first not in [state_sha256(make(**other)) for other in others]


def test_the_hash_of_plain_weights() -> None:
    model = nn.BatchNorm1d(3)
    parts = hashlib.sha256()
    for name in ("bias", "num_batches_tracked", "running_mean", "running_var", "weight"):
        value = model.state_dict()[name].numpy()
        parts.update(f"{name}\0torch.{value.dtype}\0{value.shape}\0".encode() + value.tobytes())
    assert state_sha256(model) == parts.hexdigest()


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
