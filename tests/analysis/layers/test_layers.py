"""The layers against numpy oracles: values, gradients, memory, number formats."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import layer_oracles as oracle
from acon_analysis.layers import AconA, AconB, AconC, Maxout, MetaAconC
from layer_cases import ALL, ANY_RANK, CHANNELS, MAPS, SHAPES, TWO_DIMENSIONAL, data, make


def expected(name: str, layer: nn.Module, x: oracle.Array) -> oracle.Array:
    """Compute the layer in numpy from its formula."""
    w = oracle.weights_of(layer)
    one = np.ones(CHANNELS)
    if name == "acon_a":
        return oracle.acon_c(x, one, 0 * one, w["beta"][:, :, 0, 0])
    if name == "acon_b":
        return oracle.acon_c(x, one, w["p"], w["beta"][:, :, 0, 0])
    if name == "acon_c":
        return oracle.acon_c(x, w["p1"], w["p2"], w["beta"][:, :, 0, 0])
    if name == "meta_layer":
        total = x.reshape(len(x), -1).sum(1)
        beta = oracle.sigmoid(np.repeat(total[:, None], CHANNELS, 1))
        return oracle.acon_c(x, w["p1"], w["p2"], beta)
    if name == "meta_pixel":
        return oracle.acon_c(x, w["p1"], w["p2"], oracle.sigmoid(x))
    if name in ("meta_channel", "meta_no_norm"):
        beta = oracle.meta_beta(x, w, norm=name == "meta_channel")
        return oracle.acon_c(x, w["p1"], w["p2"], beta)
    return expected_of_others(name, w, x)


def expected_of_others(name: str, w: oracle.Weights, x: oracle.Array) -> oracle.Array:
    """Compute the layers without p1 and p2."""
    if name == "maxout":
        lines = [
            np.moveaxis(np.moveaxis(x, 1, -1) * slope + intercept, -1, 1)
            for slope, intercept in zip(w["slopes"], w["intercepts"], strict=True)
        ]
        return np.asarray(np.max(lines, axis=0))
    if name == "squeeze":
        hidden = np.maximum(oracle.dense(oracle.spatial_mean(x), w, "fc1"), 0)
        gate = oracle.sigmoid(oracle.dense(hidden, w, "fc2"))
        return np.asarray(x * gate.reshape(gate.shape + (1,) * (x.ndim - 2)))
    if name == "frelu":
        condition = oracle.batch_norm(oracle.depthwise(x, w, "conv_frelu"), w, "bn_frelu")
        return np.asarray(np.maximum(x, condition))
    stride = 2 if name == "acon_frelu_2" else 1
    x1 = oracle.max_pool(x) if stride == 2 else x
    x2 = oracle.batch_norm(oracle.depthwise(x, w, "conv_frelu", stride), w, "bn1")
    return oracle.batch_norm((x1 - x2) * oracle.sigmoid(x1 - x2) + x2, w, "bn2")


CASES = [(name, shape) for name in ANY_RANK for shape in [*SHAPES, (CHANNELS, CHANNELS)]]
CASES += [(name, shape) for name in TWO_DIMENSIONAL for shape in MAPS]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_values_follow_the_formula_and_the_input_stays(name: str, shape: tuple[int, ...]) -> None:
    layer, x = make(name), data(shape)
    before = x.clone()
    truth = expected(name, layer, x.numpy())
    outputs = [layer(x)]
    with torch.no_grad():
        outputs.append(layer(x))
    with torch.inference_mode():
        outputs.append(layer(x).clone())
    for out in outputs:
        np.testing.assert_allclose(out.detach().numpy(), truth, rtol=1e-12, atol=1e-13)
        assert out.is_contiguous()
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ALL)
def test_gradients(name: str) -> None:
    shapes = [(3, 6), (2, 6, 3), (2, 6, 2, 2), (2, 6, 1, 2, 2)] if name in ANY_RANK else [MAPS[0]]
    for shape in shapes:
        layer, x = make(name), data(shape).requires_grad_()
        names, parameters = zip(*layer.named_parameters(), strict=True)

        def run(x: Tensor, *values: Tensor, layer: Any = layer, names: Any = names) -> Any:
            return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

        assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_meta_training_mode_uses_the_batch(shape: tuple[int, ...]) -> None:
    layer, x = make("meta_channel").train(), data(shape)
    w = oracle.weights_of(layer)
    beta = oracle.meta_beta(x.numpy(), w, training=True)
    truth = oracle.acon_c(x.numpy(), w["p1"], w["p2"], beta)
    np.testing.assert_allclose(layer(x).detach().numpy(), truth, rtol=1e-11, atol=1e-12)


def test_initial_values() -> None:
    torch.manual_seed(3)
    layer = AconC(4000)
    for slopes in (layer.p1, layer.p2):
        assert abs(slopes.mean().item()) < 0.06
        assert abs(slopes.std().item() - 1) < 0.05
    assert torch.equal(layer.beta, torch.ones_like(layer.beta))
    torch.manual_seed(3)
    assert torch.equal(AconC(4000).p1, layer.p1)


def test_known_members_of_the_family() -> None:
    x = data((4, 6, 5))
    torch.testing.assert_close(AconA(6).double()(x), nn.functional.silu(x))
    sharp = AconB(6).double()
    nn.init.constant_(sharp.beta, 1e6)
    torch.testing.assert_close(sharp(x), nn.functional.prelu(x, torch.tensor([0.25]).double()))
    pieces = Maxout(6, 2).double()
    with torch.no_grad():
        pieces.slopes.copy_(torch.tensor([[1.0], [0.25]]).expand(2, 6))
    torch.testing.assert_close(pieces(x), sharp(x))
    line = AconC(6).double()
    nn.init.zeros_(line.beta)
    mean = ((line.p1 + line.p2) / 2).reshape(1, 6, 1)
    torch.testing.assert_close(line(x), mean * x)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations on whole maps and the maps they make anew."""

    def __init__(self, numel: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel, self.operations, self.allocations = numel, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.numel() == self.numel:
            self.operations += 1
            self.allocations += not func.overloadpacket.__name__.endswith("_")
        return out


def test_passes_over_memory() -> None:
    x = torch.randn(4, 16, 8, 8)
    for layer, operations in ((AconA(16), 3), (AconC(16), 5), (MetaAconC(16).eval(), 5)):
        with torch.no_grad(), Counter(x.numel()) as counter:
            layer(x)
        assert (counter.operations, counter.allocations) == (operations, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["acon_a", "acon_b", "acon_c", "meta_channel", "meta_pixel"])
def test_the_dtype_stays(name: str, dtype: torch.dtype) -> None:
    layer, x = make(name), data((4, 6, 5, 5))
    truth = layer(x)
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float32: 1e-5}[dtype]
    with torch.no_grad():
        out = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), truth.detach(), rtol=tolerance, atol=tolerance)


def test_large_values_stay_finite() -> None:
    layer = AconC(1)
    nn.init.constant_(layer.p1, 1.0)
    nn.init.constant_(layer.p2, -1.0)
    x = torch.tensor([[60000.0], [-60000.0]])
    for grad in (True, False):  # d·x alone would overflow in half precision
        with torch.set_grad_enabled(grad):
            out = copy.deepcopy(layer).half()(x.half())
        assert torch.isfinite(out).all()
        assert torch.equal(out.float(), x.half().float().abs())
    with torch.no_grad():
        assert torch.equal(layer(torch.tensor([[3e38], [-3e38]])), torch.full((2, 1), 3e38))


def test_memory_formats() -> None:
    layer = make("meta_channel")
    x = data((3, 6, 5, 4))
    permuted = data((5, 6, 3)).transpose(0, 2)
    for given in (x.to(memory_format=torch.channels_last), permuted, x[:, :, ::2]):
        with torch.no_grad():
            torch.testing.assert_close(layer(given), layer(given.contiguous()))


def test_empty_input() -> None:
    for name in ANY_RANK:
        for shape in ((0, 6), (0, 6, 3), (2, 6, 0)):
            assert make(name)(data(shape)).shape == shape
