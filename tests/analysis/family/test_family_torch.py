"""Tensors: gradients, second derivatives, precisions, devices, and torch's own functions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from acon_analysis import family
from acon_analysis.family import ACTIVATIONS, Activation
from family_oracle import one_argument

ELEMENTWISE = one_argument()
X = torch.linspace(-7.13, 7.09, 57, dtype=torch.float64)
KINKS = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 6.0], dtype=torch.float64)


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_autograd_gives_the_exact_derivative(activation: Activation) -> None:
    # Kinks included: the derivative states what autograd takes there.
    x = torch.cat([X, KINKS, torch.tensor([-500.0, 500.0])]).requires_grad_()
    (slope,) = torch.autograd.grad(activation(x).sum(), x)
    exact = activation.derivative(x.detach(), **activation.parameters)
    torch.testing.assert_close(slope, exact, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        activation.derivative(x.detach().numpy(), **activation.parameters), exact, rtol=1e-12
    )


#: Functions whose second derivative is continuous.
SMOOTH = {"swish", "gelu", "gelu_tanh", "mish", "softplus", "acon_b", "acon_c", "sigmoid"}


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_gradcheck_of_data_and_parameters(activation: Activation) -> None:
    x = torch.linspace(-4.1, 4.3, 9, dtype=torch.float64, requires_grad=True)
    parameters = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in activation.parameters.items()
    }

    def function(x: torch.Tensor, *values: torch.Tensor) -> Any:
        return activation.function(x, **dict(zip(parameters, values, strict=True)))

    assert gradcheck(function, (x, *parameters.values()))
    if activation.name in SMOOTH:
        assert gradgradcheck(function, (x, *parameters.values()))


TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "elu": F.elu,
    "selu": F.selu,
    "softplus": lambda x: F.softplus(x, threshold=1000.0),
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "mish": F.mish,
    "hardswish": F.hardswish,
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_has_the_same_function(name: str) -> None:
    x = torch.cat([X, KINKS, torch.tensor([-60.0, 60.0])])
    torch.testing.assert_close(ACTIVATIONS[name](x), TORCH[name](x), rtol=1e-12, atol=1e-14)
    single = x.float()
    result = ACTIVATIONS[name](single)
    # torch's own GELU loses digits in its left tail in float32; ours is held to the formula.
    torch.testing.assert_close(result, TORCH[name](single), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(TORCH.keys() - {"hardswish"}))
def test_torch_has_the_same_slope_even_at_the_kinks(name: str) -> None:
    # Hardswish's slope at +-3 is not compared: it has changed between versions of torch.
    x = torch.cat([X, KINKS]).requires_grad_()
    (slope,) = torch.autograd.grad(TORCH[name](x).sum(), x)
    activation = ACTIVATIONS[name]
    exact = activation.derivative(x.detach(), **activation.parameters)
    # torch's hard sigmoid has a sixth of single precision for its slope in float64 too.
    near = 4e-8 if name == "hardsigmoid" else 1e-11
    torch.testing.assert_close(slope, exact, rtol=near, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_half_precisions_are_rounded_once(activation: Activation, dtype: torch.dtype) -> None:
    x = X.to(dtype)
    for function in (activation.function, activation.derivative):
        result = function(x, **activation.parameters)
        assert result.dtype == dtype
        reference = function(x.double(), **activation.parameters)
        info = torch.finfo(dtype)
        few = 0.51 if dtype.itemsize == 2 else 16.0
        allowed = few * info.eps * reference.abs().clamp_min(info.tiny)
        if dtype == torch.float32:
            allowed = allowed + 4 * info.eps * x.abs().double()
        assert ((result.double() - reference).abs() <= allowed + 1e-7 * info.eps).all()


def test_half_precision_does_not_overflow_on_the_way() -> None:
    x = torch.tensor([-60000.0, 60000.0], dtype=torch.float16)
    p1, p2 = torch.tensor(1.0, dtype=torch.float16), torch.tensor(-1.0, dtype=torch.float16)
    assert family.acon_c(x, p1, p2, 1000.0).tolist() == [60000.0, 60000.0]
    assert family.derivative(x, p1, p2, 1000.0).tolist() == [-1.0, 1.0]
    (range_low, range_high) = family.derivative_range(p1, p2, 1000.0, *x)
    assert range_low.dtype == torch.float16
    assert (range_low.item(), range_high.item()) == pytest.approx((-1.2, 1.2), abs=1e-3)


def test_dtypes_follow_the_tensors() -> None:
    single, double = torch.zeros(3), torch.zeros(3, dtype=torch.float64)
    assert family.acon_c(single, 1.2, -0.8, 1).dtype == torch.float32
    assert family.acon_c(single, np.ones(3), np.float64(0.0), 1.0).dtype == torch.float32
    assert family.acon_c(single, double, 0.0, 1.0).dtype == torch.float64
    assert family.acon_c(single, double[0], 0.0, 1.0).dtype == torch.float32
    assert family.acon_c(single.half(), single.bfloat16(), 0.0).dtype == torch.float32
    assert family.acon_c(1.0, double[0], 0.0, 1.0).dtype == torch.float64
    assert family.acon_c(np.ones(3), single, 0.0, 1.0).dtype == torch.float32
    assert family.relu(torch.arange(3)).dtype == torch.get_default_dtype()
    assert family.relu(torch.tensor([True, False])).tolist() == [1.0, 0.0]
    assert family.swish(torch.zeros(2, 0)).shape == (2, 0)


def test_parameters_learn_and_beta_of_a_line_does_not() -> None:
    x = torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(2, 3, 4)
    p1 = torch.tensor([[1.0], [1.2], [0.5]], dtype=torch.float64, requires_grad=True)
    p2 = torch.tensor([[0.0], [-0.1], [0.5]], dtype=torch.float64, requires_grad=True)
    beta = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    family.acon_c(x, p1, p2, beta).sum().backward()
    assert p1.grad is not None
    assert p2.grad is not None
    assert beta.grad is not None
    torch.testing.assert_close(p1.grad + p2.grad, x.sum((0, 2)).reshape(3, 1))
    assert beta.grad[2].item() == 0.0
    assert (beta.grad[:2] > 0).all()


@pytest.mark.cuda
def test_tensors_stay_on_their_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = X.cuda()
    for activation in ELEMENTWISE:
        for function in (activation.function, activation.derivative):
            result = function(x, **activation.parameters)
            assert result.device == x.device
            reference = function(X, **activation.parameters)
            torch.testing.assert_close(result.cpu(), reference, rtol=1e-12, atol=1e-14)
    on_cpu = torch.tensor(1.2, dtype=torch.float64)
    low, high = family.derivative_range(on_cpu, -0.8, 1.0, x.min(), x.max())
    assert low.device == high.device
    assert family.acon_c(x, on_cpu, np.zeros(57), 1.0).device == x.device
    values = torch.stack([x, -x, 0.5 * x])
    result = family.smooth_maximum(values, beta=x, axis=0)
    torch.testing.assert_close(
        result.cpu(), family.smooth_maximum(values.cpu(), beta=X, axis=0), rtol=1e-12, atol=1e-14
    )
