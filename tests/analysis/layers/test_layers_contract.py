"""What others rely on in the layers: names, hooks, tracing, errors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import layer_oracles as oracle
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers import (
    AconA,
    AconB,
    AconC,
    AconFReLU,
    Maxout,
    MetaAconC,
    ShapeError,
    SqueezeExcitation,
)
from layer_cases import ALL, ANY_RANK, SHAPES, TWO_DIMENSIONAL, data, make


@pytest.mark.parametrize("shape", SHAPES)
def test_hooks_on_the_beta_network_fire_once_and_read_beta(shape: tuple[int, ...]) -> None:
    layer, x = make("meta_channel"), data(shape)
    seen: dict[str, list[Tensor]] = {}
    for part in ("fc1", "bn1", "fc2", "bn2"):
        layer.get_submodule(part).register_forward_hook(
            lambda _m, _i, out, part=part: seen.setdefault(part, []).append(out)
        )
    with torch.no_grad():
        out = layer(x)
    assert {part: [tuple(t.shape) for t in calls] for part, calls in seen.items()} == {
        "fc1": [(5, 4, 1, 1)],
        "bn1": [(5, 4, 1, 1)],
        "fc2": [(5, 6, 1, 1)],
        "bn2": [(5, 6, 1, 1)],
    }
    beta = oracle.sigmoid(seen["bn2"][0].numpy()[:, :, 0, 0])
    w = oracle.weights_of(layer)
    truth = oracle.acon_c(x.numpy(), w["p1"], w["p2"], beta)
    np.testing.assert_allclose(out.numpy(), truth, rtol=1e-12, atol=1e-13)


def test_without_normalisation_bn2_still_reads_beta() -> None:
    layer, x = make("meta_no_norm"), data((5, 6, 3, 3))
    seen: list[Tensor] = []
    layer.get_submodule("bn2").register_forward_hook(lambda _m, _i, out: seen.append(out))
    layer(x)
    np.testing.assert_allclose(
        oracle.sigmoid(seen[0].detach().numpy()[:, :, 0, 0]),
        oracle.meta_beta(x.numpy(), oracle.weights_of(layer), norm=False),
        rtol=1e-12,
    )


def test_the_squeeze_gate_is_the_output_of_scale_activation() -> None:
    layer, x = make("squeeze"), data((5, 6, 4, 4))
    seen: list[Tensor] = []
    layer.get_submodule("scale_activation").register_forward_hook(lambda _m, _i, o: seen.append(o))
    out = layer(x)
    torch.testing.assert_close(out, x * seen[0])
    assert seen[0].shape == (5, 6, 1, 1)


OFFICIAL_KEYS = {
    "p1": (1, 40, 1, 1), "p2": (1, 40, 1, 1),
    "fc1.weight": (16, 40, 1, 1), "fc1.bias": (16,), "bn1.weight": (16,), "bn1.bias": (16,),
    "bn1.running_mean": (16,), "bn1.running_var": (16,), "bn1.num_batches_tracked": (),
    "fc2.weight": (40, 16, 1, 1), "fc2.bias": (40,), "bn2.weight": (40,), "bn2.bias": (40,),
    "bn2.running_mean": (40,), "bn2.running_var": (40,), "bn2.num_batches_tracked": (),
}  # fmt: skip


def shapes_of(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}


def test_state_dict_names_and_shapes() -> None:
    assert shapes_of(MetaAconC(40)) == OFFICIAL_KEYS
    slopes = {"p1": (1, 40, 1, 1), "p2": (1, 40, 1, 1)}
    assert shapes_of(AconC(40)) == {**slopes, "beta": (1, 40, 1, 1)}
    assert shapes_of(MetaAconC(40, "layer")) == slopes
    assert shapes_of(MetaAconC(40, "pixel")) == slopes
    bare = {key: shape for key, shape in OFFICIAL_KEYS.items() if not key.startswith("bn")}
    assert shapes_of(MetaAconC(40, batch_norm=False)) == bare
    assert shapes_of(AconA(3)) == {"beta": (1, 3, 1, 1)}
    assert shapes_of(AconB(3)) == {"p": (1, 3, 1, 1), "beta": (1, 3, 1, 1)}
    assert {name.partition(".")[0] for name in shapes_of(AconFReLU(3))} == {
        "conv_frelu",
        "bn1",
        "bn2",
    }
    assert shapes_of(AconFReLU(3))["conv_frelu.weight"] == (3, 1, 3, 3)


@pytest.mark.parametrize(
    ("channels", "r", "inner"),
    [(64, 16, 16), (512, 16, 32), (24, 8, 8), (1024, 8, 128), (8, 16, 16)],
)
def test_inner_width(channels: int, r: int, inner: int) -> None:
    assert MetaAconC(channels, r=r).fc1.out_channels == inner


@pytest.mark.parametrize("name", ALL)
def test_torch_fx_traces_through(name: str) -> None:
    layer, x = make(name), data((4, 6, 5, 5))
    traced = torch.fx.symbolic_trace(layer)
    torch.testing.assert_close(traced(x), layer(x))
    calls = {str(node.target) for node in traced.graph.nodes if node.op == "call_module"}
    if name == "meta_channel":
        assert calls == {"fc1", "bn1", "fc2", "bn2"}
    with pytest.raises(ShapeError):
        traced(data((4, 5, 6, 6)))


@pytest.mark.parametrize("name", ANY_RANK)
@pytest.mark.parametrize("shape", [(3, 5), (3, 7, 6), (6,), (), (2, 1, 4, 4), (4, 4, 4, 6)])
def test_wrong_shapes_are_errors_that_name_both(name: str, shape: tuple[int, ...]) -> None:
    layer = make(name)
    with pytest.raises(ShapeError, match="6") as caught:
        layer(torch.zeros(shape, dtype=torch.float64))
    assert str(shape) in str(caught.value)
    assert type(layer).__name__ in str(caught.value)
    assert isinstance(caught.value, AconError)
    assert isinstance(caught.value, ValueError)


def test_the_text_of_a_shape_error() -> None:
    with pytest.raises(ShapeError) as caught:
        AconC(32)(torch.zeros(2, 5, 32))
    assert str(caught.value) == (
        "AconC has parameters of shape (1, 32, 1, 1) and takes (N, 32, ...), but the input of "
        "shape (2, 5, 32) has 5 channels on axis 1; axis 2 has 32: are the channels there?"
    )


@pytest.mark.parametrize("name", TWO_DIMENSIONAL)
@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 5), (6, 5, 5), (3, 5, 6, 6), (1, 6, 2, 2, 2)])
def test_two_dimensional_layers_want_maps(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        make(name)(torch.zeros(shape, dtype=torch.float64))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 6), (1, 6, 4, 4)])
def test_a_training_batch_of_one_is_explained(shape: tuple[int, ...]) -> None:
    layer, x = make("meta_channel"), data(shape)
    with pytest.raises(ShapeError, match="at least 2 samples") as caught:
        layer.train()(x)
    assert str(shape) in str(caught.value)
    assert "batch_norm=False" in str(caught.value)
    assert layer.eval()(x).shape == shape
    assert make("meta_no_norm").train()(x).shape == shape
    frozen = make("meta_channel").train()
    for part in ("bn1", "bn2"):
        frozen.get_submodule(part).eval()
    assert frozen(x).shape == shape


def test_the_layers_print_what_they_are() -> None:
    assert str(AconC(5)) == "AconC(5)"
    assert str(MetaAconC(5, "pixel")) == "MetaAconC(5, granularity='pixel')"
    assert str(Maxout(5, 3)) == "Maxout(5, pieces=3)"


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: MetaAconC(4, "chanel"), "did you mean 'channel'"),  # type: ignore[arg-type]
        (lambda: MetaAconC(4, r=0), "at least 1, not 0"),
        (lambda: SqueezeExcitation(4, r=0), "at least 1, not 0"),
        (lambda: AconFReLU(4, 3), "must be 1 or 2, not 3"),
        (lambda: Maxout(4, 0), "at least 1 piece, not 0"),
    ],
)
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        build()
