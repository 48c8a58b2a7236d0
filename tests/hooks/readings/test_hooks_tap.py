"""`Tap`, `record` and their tables: shapes, dtypes, observers, spreads and maps."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.layers import MetaAconC
from acon_hooks import HookError, Layer, Tap, find_layers, record, to_host
from acon_hooks.layers.reading import fold
from networks import Network
from support_variants import (
    Detector,
    Hidden,
    LayerWise,
    Official,
    Outer,
    PixelWise,
    SpatialParent,
    Speech,
    Static,
    shaken,
    tensor,
)

C = 8


@pytest.fixture
def mixed() -> Any:
    """One layer of every granularity, named by it."""
    torch.manual_seed(5)
    return _chain({"channel": Official(C), "layer": LayerWise(C), "pixel": PixelWise(C)})


def _chain(parts: dict[str, nn.Module]) -> Any:
    model = nn.Sequential()
    for name, part in {**parts, "static": Static(C)}.items():
        model.add_module(name, part)
    return shaken(model)


def test_a_batch_in_the_place_of_kinds_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not a Tensor; a batch is given as example="):
        find_layers(nn.ReLU(), torch.randn(2, 3))


def test_frame_of_betas_has_one_row_for_each_value(mixed: Any) -> None:
    with torch.no_grad(), record(mixed) as recording:
        for n in (4, 3):
            mixed(tensor("map", n, C))
    frame = recording.betas()
    assert frame.dtypes.astype(str).to_dict() == {
        "sample": "int64",
        "layer": "str",
        "call": "int64",
        "channel": "int64",
        "beta": "float32",
    }
    rows = frame.groupby("layer", sort=False).size().to_dict()
    assert rows == {"channel": 7 * C, "layer": 7, "pixel": 7 * C, "static": C}
    one = frame[frame["layer"] == "channel"]
    assert one["sample"].tolist() == np.repeat(np.arange(7), C).tolist()
    assert one["channel"].tolist() == list(range(C)) * 7
    np.testing.assert_array_equal(one["beta"].to_numpy(), recording.beta_matrix("channel").ravel())
    assert (frame.loc[frame["layer"] == "static", "sample"] == -1).all()
    assert recording.samples == 7


def test_pixel_wise_beta_gives_mean_spread_and_on_request_everything(mixed: Any) -> None:
    with torch.no_grad(), record(mixed, full=True) as recording:
        for n in (4, 3):
            mixed(tensor("map", n, C))
    last = mixed.pixel.truth
    assert torch.equal(torch.from_numpy(recording.maps("pixel"))[-3:], last)
    spread = recording.spreads()
    assert spread["layer"].unique().tolist() == ["pixel"]
    expected = last.flatten(2).std(2, correction=0).numpy().ravel()
    np.testing.assert_allclose(spread["spread"].to_numpy()[-3 * C :], expected, rtol=1e-4)
    with pytest.raises(UsageError, match=r"'channel' is the same at all pixels: see beta_matrix"):
        recording.maps("channel")
    with pytest.raises(UsageError, match=r"no β of layer 'chanel', .*did you mean 'channel'"):
        recording.maps("chanel")
    with torch.no_grad(), record(mixed) as recording:
        mixed(tensor("map", 2, C))
    with pytest.raises(UsageError, match=r"full=True"):
        recording.maps("pixel")


def test_spatial_beta_of_one_channel_for_all() -> None:
    class Attention(SpatialParent):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return self.use(x, torch.sigmoid(self.condition(condition)[:, :1]))

    model = shaken(Outer(Attention(C)))
    with torch.no_grad(), record(model) as recording:
        for n in (4, 2):
            model(tensor("map", n, C), tensor("map", n, C))
    assert recording.beta_matrix("act").shape == (6, 1)
    assert recording.reports[0].status == "proved"


def test_nothing_recorded_and_unknown_names_are_readable(mixed: Any) -> None:
    with record(mixed) as recording:
        pass
    for call in (recording.betas, lambda: recording.beta_matrix("channel")):
        with pytest.raises(HookError, match="nothing was recorded: run the model inside"):
            call()
    with torch.no_grad(), record(mixed) as recording:
        mixed(tensor("map", 2, C))
    with pytest.raises(UsageError, match=r"no β of layer 'chanel'.*did you mean 'channel'"):
        recording.beta_matrix("chanel")
    with pytest.raises(UsageError, match=r"call 1: its calls are \[0\]"):
        recording.beta_matrix("channel", call=1)


def test_layers_are_chosen_by_name_by_object_and_by_kind(mixed: Any) -> None:
    x = tensor("map", 2, C)
    by_name = ["pixel"]
    by_object = find_layers(mixed)[2:3]
    for layers in (by_name, by_object):
        with torch.no_grad(), record(mixed, layers) as recording:
            mixed(x)
        assert [layer.name for layer in recording.layers] == ["pixel"]
    with torch.no_grad(), record(mixed, kinds="acon") as recording:
        mixed(x)
    assert [layer.name for layer in recording.layers] == ["static"]
    with pytest.raises(UsageError, match=r"no layer 'pixels' of kind.*did you mean 'pixel'"):
        Tap(mixed, ["pixels"])
    with pytest.raises(UsageError, match="belongs to another model"):
        Tap(_chain({"pixel": PixelWise(C)}), by_object)
    with pytest.raises(
        UsageError, match="unknown kind of layer 'metaacon': did you mean 'meta_acon'"
    ):
        record(mixed, kinds=("metaacon",)).__enter__()
    with pytest.raises(UsageError, match="no layer of kind 'gate'; it has 3 of kind 'meta_acon'"):
        Tap(mixed, kinds=("gate",))
    with pytest.raises(UsageError, match="no layers given"):
        Tap(mixed, [])
    with pytest.raises(UsageError, match="no kind of layer given"):
        find_layers(mixed, ())


def test_proved_layers_can_be_trusted_next_time(mixed: Any) -> None:
    x = tensor("map", 3, C)
    known = find_layers(mixed, example=x)
    with torch.no_grad(), record(mixed, known, prove=False) as recording:
        mixed(x)
        mixed(x[:2])
    assert recording.reports == []
    with torch.no_grad(), record(mixed) as expected:
        mixed(x)
        mixed(x[:2])
    pd.testing.assert_frame_equal(recording.betas(), expected.betas())


def test_observer_sees_input_output_and_beta_of_every_call(mixed: Any) -> None:
    seen: list[str] = []

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        assert layer.reading is not None
        assert beta is not None
        assert call == 0
        assert layer.p1 is not None
        assert layer.p2 is not None
        folded, p2 = fold(x, layer.axis), layer.p2[:, None]
        d = (layer.p1[:, None] - p2) * folded
        rebuilt = d * torch.sigmoid(beta * d) + p2 * folded
        torch.testing.assert_close(rebuilt, fold(y, layer.axis))
        seen.append(layer.name)

    with torch.no_grad(), Tap(mixed, observe=observe) as tap:
        for n in (4, 2):
            mixed(tensor("map", n, C))
            tap.take()
    assert seen == ["channel", "layer", "pixel", "static"] * 2


def test_observer_gets_the_output_with_the_channels_where_the_input_has_them() -> None:
    class Turned(Speech):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).transpose(1, 2)

    shapes = []
    model = shaken(Outer(Turned(C)))
    with torch.no_grad():
        tap = Tap(model, observe=lambda layer, call, x, y, beta: shapes.append((x.shape, y.shape)))
        with tap:
            for n in (4, 2):
                model(tensor("tokens", n, C))
                tap.take()
    assert all(x == y for x, y in shapes)
    assert tap.layers[0].axis == 2


def test_host_copy_keeps_values_shapes_dtypes_and_order() -> None:
    values = {("a", 0): torch.rand(3, 4), ("a", 1): torch.rand(3, 1), ("b", 0): torch.rand(4, 3).T}
    for more in ({}, {("c", 0): torch.rand(2, 4).half()}, {("e", 0): torch.rand(0, 4)}):
        host = to_host({**more, **values})
        assert list(host) == [*more, *values]
        for key, value in {**more, **values}.items():
            np.testing.assert_array_equal(host[key], value.numpy(), strict=True)
    brain = to_host({("b", 0): torch.ones(2, 1, dtype=torch.bfloat16)})
    assert [str(value.dtype) for value in brain.values()] == ["float32"]
    assert to_host({}) == {}


def test_values_do_not_change_after_they_were_taken() -> None:
    model = shaken(Network(lambda n, x: n.act(x).relu_().mul_(0), act=Detector(C)))
    kept: list[Tensor] = []
    with torch.no_grad(), Tap(model, observe=lambda *a: kept.append(a[3].clone())) as tap:
        x = tensor("map", 3, C)
        model(x)
        first = tap.take()["act", 0]
        copied = first.clone()
        model(2 * x)
        tap.take()
    assert torch.equal(first, copied)
    assert (kept[0] < 0).any()


def test_gradients_flow_through_a_recorded_model(mixed: Any) -> None:
    x = tensor("map", 3, C)

    def gradient() -> Tensor:
        mixed.zero_grad()
        mixed(x).sum().backward()
        found: Tensor = mixed.channel.fc1.weight.grad.clone()
        return found

    bare = gradient()
    with record(mixed) as recording:
        assert torch.equal(gradient(), bare)
        assert torch.equal(gradient(), bare)
    assert recording.samples == 6
    seen: list[Tensor | None] = []
    with Tap(mixed, observe=lambda layer, call, *tensors: seen.extend(tensors)) as tap:
        for _ in range(3):
            mixed(x)
            assert not any(value.requires_grad for value in tap.take().values())
    assert len(seen) == 36
    assert not any(tensor is not None and tensor.requires_grad for tensor in seen)
    hidden = shaken(Outer(Hidden(C)))
    with Tap(hidden) as tap:
        for _ in range(2):
            hidden(tensor("map", 3, C).requires_grad_())
            assert not tap.take()["act", 0].requires_grad


def test_users_own_hooks_and_modes_survive(mixed: Any) -> None:
    doubled = mixed.channel.bn2.register_forward_hook(lambda module, args, out: 2 * out)
    with torch.no_grad(), record(mixed) as recording:
        for n in (3, 2):
            mixed(tensor("map", n, C))
            found = torch.from_numpy(recording.beta_matrix("channel"))[-n:]
            assert torch.equal(found, mixed.channel.truth.flatten(1))
    assert doubled.id in mixed.channel.bn2._forward_hooks


class Outside(nn.Module):
    """Runs the module that β is read from once more, before or after the layer."""

    def __init__(self, when: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.act, self.when = nn.Conv2d(3, 16, 3), MetaAconC(16), when
        self.eval()

    def other(self, x: Tensor) -> Tensor:
        small = x.mean((2, 3), keepdim=True)[:, : self.act.fc2.in_channels]
        found: Tensor = self.act.bn2(self.act.fc2(small))
        return found

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        before = self.other(x) if self.when == "before" else 0
        y = self.act(x) + before
        y = y + (self.other(x) if self.when == "after" else 0)
        return torch.as_tensor(y)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_module_of_beta_may_also_run_outside_of_its_layer(when: str) -> None:
    model = Outside(when)
    batches = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    with torch.no_grad(), acon.record(model) as recording:
        for x in (*batches, batches[0]):
            model(x)
    act = model.act
    with torch.no_grad():
        means = [model.conv(x).mean((2, 3), keepdim=True) for x in (*batches, batches[0])]
        betas = [torch.sigmoid(act.bn2(act.fc2(act.bn1(act.fc1(m))))).flatten(1) for m in means]
    torch.testing.assert_close(
        torch.from_numpy(recording.beta_matrix("act").copy()), torch.cat(betas)
    )


@pytest.mark.parametrize("moments", [False, True])
def test_a_later_batch_inside_vmap_is_refused(moments: bool) -> None:
    model = Outside("")
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad(), acon.record(model, moments=moments):
        model(x)
        with pytest.raises(HookError, match=r"runs inside torch\.func"):
            torch.vmap(model)(torch.stack([x, x]))
