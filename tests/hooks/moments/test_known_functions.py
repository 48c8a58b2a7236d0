"""Activations that overwrite their input are summed before they run, without a copy."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import acon_analysis as acon
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.native.sums import NativeSums, Prepared
from acon_hooks.readings import layer_hooks
from gathering import SIZES, buffer, channels_last


@pytest.mark.parametrize("last", [False, True])
@SIZES
def test_the_kernel_needs_no_output(
    kernel: NativeSums, last: bool, samples: int, channels: int, pixels: int
) -> None:
    x = torch.randn(samples, channels, pixels, generator=torch.Generator().manual_seed(pixels))
    x[:, 0] = x[:, 0].abs()
    x[:, -1] = -x[:, -1].abs()
    if last:
        x = channels_last(x)
    constants = Prepared(None)
    found, target = buffer(constants, samples, channels)
    assert kernel.into(x, "relu", None, 1, constants, target)
    expected = kernel.sums(x, x.relu(), None, 1, constants)
    assert expected is not None
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["hardswish", "silu"])
@pytest.mark.parametrize("last", [False, True])
def test_the_kernel_computes_outputs(kernel: NativeSums, last: bool, name: str) -> None:
    x = torch.linspace(-87, 87, 3 * 40 * 203).reshape(3, 40, 203)
    given = channels_last(x) if last else x
    found = kernel.sums(given, name, None, 1, Prepared(None))
    wide, y = x.double().numpy(), getattr(functional, name)(x.double()).numpy()
    means, own = wide.mean(2), y.mean(2)
    a, b = wide - means[..., None], y - own[..., None]
    assert found is not None
    size = np.abs(y).mean(2)
    np.testing.assert_array_less(np.abs(found[2].numpy() - own), 3e-7 * size + 1e-30)
    deviation, spread = np.sqrt((b**2).sum(2)), np.sqrt((a**2).sum(2))
    error = 1e-6 * np.sqrt((y**2).sum(2)) + 1e-30
    np.testing.assert_array_less(np.abs(np.sqrt(found[3].numpy()) - deviation), error)
    np.testing.assert_array_less(np.abs(found[4].numpy() - (a * b).sum(2)), error * spread)


@pytest.mark.parametrize("name", ["relu", "hardswish", "silu"])
def test_the_kernel_computes_outputs_of_every_size(kernel: NativeSums, name: str) -> None:
    values = [-3e38, -1e30, -1e5, -100, -89, -88.5, -1e-3, -1e-30, 0, 1e-30, 1e-3, 3, 89, 1e5, 3e37]
    x = torch.zeros(1, len(values), 2)
    x[0, :, 0] = torch.tensor(values)
    found = kernel.sums(x, name, None, 1, Prepared(None))
    assert found is not None
    y = getattr(functional, name)(x.double())[0, :, 0]
    torch.testing.assert_close(2 * found[2, 0], y, rtol=3e-7, atol=1e-36)


def convolutions(count: int, channels: int) -> nn.ModuleList:
    torch.manual_seed(3)
    return nn.ModuleList(
        nn.Conv2d(channels if index else 3, channels, 3, padding=1) for index in range(count)
    )


class Mixed(nn.Module):
    """ReLUs that overwrite their input, as modules and in every spelling; one is called twice."""

    def __init__(self, channels: int = 20) -> None:
        super().__init__()
        self.convs = convolutions(6, channels)
        self.first, self.twice = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        convs = iter(self.convs)
        x = self.first(next(convs)(x))
        x = x + self.twice(next(convs)(x))
        x = self.twice(next(convs)(x))
        x = x + functional.relu(next(convs)(x), inplace=True)
        x = torch.relu_(next(convs)(x))
        return next(convs)(x).relu_()


class Own(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_(min=0.2)


class Leaky(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("relu", "relu_"):
            return functional.leaky_relu(args[0], 0.3, inplace=True)
        return func(*args, **(kwargs or {}))


def batches(*, last: bool = False, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    layout = torch.channels_last if last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, 3, 9, 7, generator=generator) for n in (4, 4, 4, 2)]
    return [x.to(dtype).contiguous(memory_format=layout) for x in drawn]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, kernel: NativeSums) -> list[str]:
    """Return a list of the layers that are summed before they run, call by call."""
    names: list[str] = []
    original = Accumulator.observe_input

    def observe_input(self: Accumulator, layer: Any, call: int, x: Tensor) -> bool:
        done = original(self, layer, call, x)
        names.extend([layer.name] * done)
        return done

    monkeypatch.setattr(Accumulator, "observe_input", observe_input)
    return names


class Smooth(nn.Module):
    """SiLUs and Hardswishes that overwrite their input, as modules and as functions."""

    def __init__(self, channels: int = 20) -> None:
        super().__init__()
        self.convs = convolutions(4, channels)
        self.silu, self.hardswish = nn.SiLU(inplace=True), nn.Hardswish(inplace=True)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.hardswish(self.convs[1](self.silu(self.convs[0](x))))
        x = functional.silu(self.convs[2](x), inplace=True)
        return functional.hardswish(self.convs[3](x), inplace=True)


def recorded(
    model: nn.Module, given: list[Tensor], *, copies: bool = False
) -> tuple[dict[str, pd.DataFrame], list[Tensor]]:
    """Return all tables of linearity, and the outputs; with `copies` as other activations are."""
    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        if copies:
            patched.setattr(layer_hooks, "runs_alone", lambda _layer: False)
        with acon.record(model) as recording:
            outputs = [model(x.clone(memory_format=torch.preserve_format)) for x in given]
    tables = {by: recording.linearity(by, columns="all") for by in ("layer", "channel", "sample")}
    return tables, outputs


def require_same(model: nn.Module, given: list[Tensor], tolerance: float = 0) -> None:
    """Compare tables with those from copies, and outputs with those of the network alone."""
    with torch.no_grad():
        bare = [model(x.clone(memory_format=torch.preserve_format)) for x in given]
    found, outputs = recorded(model, given)
    expected, _ = recorded(model, given, copies=True)
    for by, table in found.items():
        pd.testing.assert_frame_equal(table, expected[by], rtol=tolerance, atol=tolerance)
    for own, other in zip(outputs, bare, strict=True):
        assert torch.equal(own.nan_to_num(7.0), other.nan_to_num(7.0))


@pytest.mark.parametrize("channels", [4, 20, 64])
@pytest.mark.parametrize("last", [False, True])
def test_tables_are_those_of_copies(channels: int, last: bool, taken: list[str]) -> None:
    model = Mixed(channels)
    if last:
        model = model.to(memory_format=torch.channels_last)
    require_same(model, batches(last=last))
    functions = [":relu#0", ":relu#1", ":relu#2"]
    # Of two batches: not of the first, which proves, nor of the last, which is smaller.
    assert sorted(taken) == sorted(2 * ["first", "twice", "twice", *functions])


@pytest.mark.parametrize("channels", [4, 20, 64])
@pytest.mark.parametrize("last", [False, True])
def test_tables_of_smooth_ones_are_those_of_copies(
    channels: int, last: bool, taken: list[str]
) -> None:
    model = Smooth(channels)
    if last:
        model = model.to(memory_format=torch.channels_last)
    require_same(model, batches(last=last), tolerance=1e-6)
    assert sorted(taken) == sorted(2 * ["silu", "hardswish", ":silu#0", ":hardswish#0"])


def test_values_of_smooth_ones_do_not_depend_on_the_batch(taken: list[str]) -> None:
    # Of the first batch the output is known only after it has run, of the last the size is unusual.
    model, given = Smooth(), batches()
    whole, _ = recorded(model, given)
    assert taken
    for first, part in [(0, given[:1]), (4, given[1:2]), (8, given[2:]), (12, given[3:])]:
        found, _ = recorded(model, part)
        table = found["sample"]
        expected = whole["sample"]
        expected = expected[expected["sample"].between(first, first + table["sample"].max())]
        drop = ["sample"]
        pd.testing.assert_frame_equal(
            table.drop(columns=drop),
            expected.drop(columns=drop).reset_index(drop=True),
            rtol=0,
            atol=0,
        )


def test_values_of_smooth_ones_are_those_of_numpy(taken: list[str]) -> None:
    model, given = Smooth(6), batches()
    found, _ = recorded(model, given)
    with torch.no_grad():
        x = model.convs[0](torch.cat(given)).double().transpose(0, 1).flatten(1).numpy()
    wanted = [np.corrcoef(row, row / (1 + np.exp(-row)))[0, 1] ** 2 for row in x]
    own = found["channel"].query("layer == 'silu'")["L"]
    np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-6)
    assert taken.count("silu") == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_smooth_ones_of_other_dtypes_are_copied(dtype: torch.dtype, taken: list[str]) -> None:
    require_same(Smooth().to(dtype), batches(dtype=dtype))
    assert not taken


def test_smooth_ones_that_someone_changes_are_copied(taken: list[str]) -> None:
    model = Smooth()
    model.silu.register_forward_hook(lambda _module, _given, output: output * 2)
    model.hardswish.register_forward_pre_hook(lambda _module, given: (given[0] + 0.5,))
    require_same(model, batches(), tolerance=1e-6)
    assert set(taken) == {":silu#0", ":hardswish#0"}


def test_a_capture_takes_them_too(
    tmp_path: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = Mixed(), batches()

    def captured(name: str) -> pd.DataFrame:
        run = acon.capture(model, given, tmp_path / name, progress=False)
        return run.linearity("sample", columns="all")

    found = captured("found")
    assert taken.count("first") == 2  # the first batch proves, the last is smaller
    monkeypatch.setattr(layer_hooks, "runs_alone", lambda _layer: False)
    pd.testing.assert_frame_equal(found, captured("copied"), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_every_dtype(dtype: torch.dtype, taken: list[str]) -> None:
    require_same(Mixed().to(dtype), batches(dtype=dtype))
    assert bool(taken) == (dtype is not torch.float64)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_left_out_as_ever(value: float, taken: list[str]) -> None:
    given = batches()
    given[1][2, 1, 3, 3] = value
    require_same(Mixed(), given)
    assert taken


def test_values_are_those_of_numpy(taken: list[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True)).eval()
    given = batches()
    with torch.no_grad():
        x = model[0](torch.cat(given)).double().transpose(0, 1).flatten(1).numpy()
    wanted = [np.corrcoef(row, np.maximum(row, 0))[0, 1] ** 2 for row in x]
    found, _ = recorded(model, given)
    np.testing.assert_allclose(found["channel"]["L"], wanted, rtol=0, atol=1e-6)
    assert taken == ["1", "1"]


def hooked(change: Callable[[nn.Module], object]) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3))
    model.eval()
    change(model[1])
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda relu: relu.register_forward_hook(lambda _module, _given, output: output * 2),
        lambda relu: relu.register_forward_pre_hook(lambda _module, given: (given[0] + 0.5,)),
        lambda relu: relu.register_full_backward_hook(lambda *_: None),
        lambda relu: setattr(relu, "forward", lambda x: x.clamp_(min=0.1)),
        lambda relu: setattr(relu, "__class__", Own),
    ],
    ids=["hook", "pre-hook", "backward hook", "other forward", "subclass"],
)
def test_where_others_have_a_say_the_input_is_copied(
    change: Callable[[nn.Module], object], taken: list[str]
) -> None:
    torch.manual_seed(0)
    require_same(hooked(change), batches())
    assert not taken


def test_a_hook_that_comes_later_is_seen(taken: list[str]) -> None:
    torch.manual_seed(0)
    model, given = hooked(lambda _relu: None), batches()[:3]

    def run(*, copies: bool) -> pd.DataFrame:
        with pytest.MonkeyPatch.context() as patched, torch.no_grad():
            if copies:
                patched.setattr(layer_hooks, "runs_alone", lambda _layer: False)
            with acon.record(model) as recording:
                model(given[0])
                model(given[1])
                handle = model[1].register_forward_pre_hook(lambda _, args: (args[0] - 0.3,))
                model(given[2])
                handle.remove()
        return recording.linearity("channel", columns="all")

    found = run(copies=False)
    assert taken == ["1"]
    pd.testing.assert_frame_equal(found, run(copies=True), rtol=0, atol=0)


def test_a_mode_of_someone_else_is_seen(taken: list[str]) -> None:
    model, given = Mixed(), batches()
    with Leaky():
        require_same(model, given)
    assert not taken


def test_it_goes_on_after_a_pass_that_failed(taken: list[str]) -> None:
    torch.manual_seed(0)
    model, given = hooked(lambda _relu: None), batches()[:3]
    with torch.no_grad(), acon.record(model) as recording:
        model(given[0])
        with pytest.raises(RuntimeError, match="channels"):
            model(given[0].repeat(1, 2, 1, 1))
        model(given[1])
        model(given[2])
    expected, _ = recorded(model, given, copies=True)
    pd.testing.assert_frame_equal(
        recording.linearity("channel", columns="all"), expected["channel"], rtol=0, atol=0
    )
    assert taken == ["1", "1"]
