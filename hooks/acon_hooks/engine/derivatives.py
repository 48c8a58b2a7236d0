"""The derivative of a part of a network in a direction, by whichever way its operations allow."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import batch_norm

from acon_hooks.engine.functions import Listener, function_name
from acon_hooks.guards import SharedSetting

forward: Any = forward_ad

#: From the input to the output, both (N, ...).
Function = Callable[[Tensor], Tensor]

#: Functions that are linear in their first argument; weight and bias follow.
_LINEAR = frozenset(
    {"linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))}
)

#: Further arguments of a batch normalisation, in order.
_OF_BATCH_NORM = (
    "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"
)  # fmt: skip

#: By how much a derivative may differ from a difference quotient, relative to the larger one. Bends
#: that the quotient's step crosses make up a tenth in deep networks.
_TOLERANCE = 0.3


@contextmanager
def dual_numbers() -> Iterator[None]:
    """Differentiate in forward mode inside the context, `forward` making the dual numbers."""
    with forward.dual_level(), warnings.catch_warnings():
        # The first dual number makes PyTorch script some functions of its own.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        with Listener(_twice_not_thrice):
            yield


def _twice_not_thrice(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function; of linear ones in their input, on a dual number and its tangent."""
    # PyTorch would also run a convolution or linear layer on the tangent of its weight, which is 0,
    # and take a batch normalisation apart into many functions.
    first = args[0] if args else None
    named = kwargs | dict(zip(_OF_BATCH_NORM, args[1:], strict=False))
    fixed = func is batch_norm and not named.get("training", False)
    if not (fixed or function_name(func) in _LINEAR) or not isinstance(first, Tensor):
        return func(*args, **kwargs)
    if is_functorch_wrapped_tensor(first):  # inside vmap a tangent cannot be seen
        return func(*args, **kwargs)
    x, tangent = forward.unpack_dual(first)
    others = [v for v in (*args[1:], *kwargs.values()) if isinstance(v, Tensor)]
    if tangent is None or any(forward.unpack_dual(v).tangent is not None for v in others):
        return func(*args, **kwargs)
    if fixed:
        centred = named | {"running_mean": torch.zeros_like(named["running_mean"]), "bias": None}
        return forward.make_dual(func(x, **named), func(tangent, **centred))
    no_bias = {name: None if name == "bias" else value for name, value in kwargs.items()}
    rest = [None if index == 1 else value for index, value in enumerate(args[1:])]
    return forward.make_dual(func(x, *args[1:], **kwargs), func(tangent, *rest, **no_bias))


def directional(f: Function, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(x) and its derivative in a direction, J(x)·direction; f may overwrite its argument.

    By forward-mode differentiation; where an operation has none (recurrent layers, functions with a
    backward of their own), by two backward passes, or else a RuntimeError. Attention is computed by
    plain operators, since fused ones have neither.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            with dual_numbers():
                y, slope = forward.unpack_dual(f(forward.make_dual(x.clone(), direction)))
                return y, torch.zeros_like(y) if slope is None else slope
        except RuntimeError:  # NotImplementedError is one
            return _backward_twice(f, x, direction)


def _without_libraries() -> Callable[[], None]:
    """Switch off the recurrent layers of oneDNN and cuDNN: they cannot be differentiated twice."""
    c: Any = torch._C
    before = c._get_mkldnn_enabled(), c._get_cudnn_enabled()

    def switch(mkldnn: bool, cudnn: bool) -> None:
        c._set_mkldnn_enabled(mkldnn)
        c._set_cudnn_enabled(cudnn)

    switch(False, False)
    return lambda: switch(*before)


_plain_kernels = SharedSetting(_without_libraries)


def _backward_twice(f: Function, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(x) and J·direction: u -> uᵀJ is linear, and its derivative is Jᵀ."""
    with torch.enable_grad(), _plain_kernels.hold():
        start = x.detach().clone().requires_grad_()
        y = f(start.clone())
        if not y.requires_grad:
            return y, torch.zeros_like(y)
        u = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, start, u, create_graph=True)
        (slope,) = torch.autograd.grad(pulled, u, direction)
    return y.detach(), slope.detach()


def moved_off_kinks(x: Tensor, direction: Tensor) -> Tensor:
    """Return x moved a little, at random: where values are equal, a maximum has no derivative."""
    # Such as in the flat parts of a picture. A kink of one sample would contradict its derivative;
    # the steps of `contradiction` are a twentieth of the move.
    generator = torch.Generator(x.device).manual_seed(0)
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + 20 * _step(x) * direction.std() * noise


def _step(x: Tensor, power: float = 0.4) -> float:
    """Return the step of a difference quotient."""
    return float(torch.finfo(x.dtype).eps ** power)


def contradiction(f: Function, x: Tensor, direction: Tensor, slope: Tensor) -> str:
    """Return how a derivative differs from central difference quotients; empty if it does not.

    It does where a network computes with values that autograd does not see (numpy, detached
    tensors), or gives a gradient that is not its derivative (straight-through estimators). Where
    the input has a few values far from the others a step crosses many bends: smaller ones decide,
    as long as they can be distinguished from rounding.
    """
    worst = 0.0
    for power in (0.4, 0.5, 0.6):
        missed, rounding = _difference(f, x, direction, slope, _step(x, power))
        if not missed > _TOLERANCE + rounding:  # NaN contradicts nothing
            return ""
        worst = worst or missed
        if rounding > _TOLERANCE:
            break
    return (
        f"its derivative differs from a difference quotient by {worst:.0%}: it computes "
        "with values that autograd does not see, or has a gradient that is not its derivative"
    )


def _difference(
    f: Function, x: Tensor, direction: Tensor, slope: Tensor, step: float
) -> tuple[float, float]:
    """Return by how much a derivative misses a quotient, and what rounding explains of it."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        above, below = (f(x + sign * step * direction).double() for sign in (1, -1))
    quotient = (above - below) / (2 * step)
    rounding = 10 * torch.finfo(x.dtype).eps / step * float(above.norm())
    larger = max(float(quotient.norm()), float(slope.double().norm()), 1e-300)
    return float((quotient - slope.double()).norm()) / larger, rounding / larger
