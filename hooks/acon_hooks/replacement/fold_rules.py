"""How a line on every channel goes into a convolution, a linear layer or a normalisation.

All products are taken in float64 and rounded once. New parameters take the place of the old ones,
so that modules sharing a parameter keep theirs.
"""

import torch
from torch import Tensor, nn

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def foldable(module: nn.Module) -> bool:
    """Tell whether lines can go into a module: a normalisation needs statistics of its own."""
    if isinstance(module, _NORMS):
        return module.running_mean is not None and module.running_var is not None
    return isinstance(module, (*_CONVS, *_TRANSPOSED, nn.Linear))


def exact_intercept(module: nn.Module) -> bool:
    """Tell whether a constant added to a module's input is a constant at its output.

    Not so behind zero padding: at the border part of the kernel sees zeros, not the constant; nor
    in a transposed convolution, whose border outputs see part of the kernel. Padding that repeats
    values of the input repeats the constant as well.
    """
    if isinstance(module, _TRANSPOSED):
        return False
    if not isinstance(module, _CONVS) or module.padding_mode != "zeros":
        return True
    if isinstance(module.padding, str):
        return module.padding == "valid" or all(size == 1 for size in module.kernel_size)
    return not any(module.padding)


def fold_before(module: nn.Module, slope: Tensor, intercept: Tensor) -> None:
    """Change a module so that its output is slope·(what it was) + intercept, channel by channel.

    Parameters
    ----------
    module : Module
        As `foldable` tells.
    slope, intercept : Tensor
        (C,), C its output channels.
    """
    a, b = slope.double(), intercept.double()
    if isinstance(module, _NORMS):
        weight, bias = _norm_parameters(module)
        _set(module, weight * a, bias * a + b)
        return
    weight = _tensor(module.weight).double()
    groups = module.groups if isinstance(module, _TRANSPOSED) else 1
    if isinstance(module, _TRANSPOSED):  # (in, out / groups, ...)
        parts = weight.reshape(groups, -1, *weight.shape[1:])
        scale = a.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        scaled = (parts * scale).reshape(weight.shape)
    else:
        scaled = weight * a.reshape(-1, *[1] * (weight.ndim - 1))
    _set(module, scaled, _bias(module, a) * a + b)


def fold_after(module: nn.Module, slope: Tensor, intercept: Tensor) -> None:
    """Change a module so that it does to x what it did to slope·x + intercept.

    Parameters
    ----------
    module : Module
        As `foldable` tells; for an intercept other than 0 one with an `exact_intercept`.
    slope, intercept : Tensor
        (C,), C its input channels.
    """
    a, b = slope.double(), intercept.double()
    if isinstance(module, _NORMS):
        weight, bias = _norm_parameters(module)
        mean = _tensor(module.running_mean).double()
        deviation = (_tensor(module.running_var).double() + module.eps).sqrt()
        _set(module, weight * a, bias + weight * (a * mean + b - mean) / deviation)
        return
    weight = _tensor(module.weight).double()
    if isinstance(module, _TRANSPOSED):  # (in, out / groups, ...)
        _set(module, weight * a.reshape(-1, *[1] * (weight.ndim - 1)), None)
        return
    groups = int(module.groups) if isinstance(module, _CONVS) else 1
    parts = weight.reshape(
        groups, -1, *weight.shape[1:]
    )  # (groups, out / groups, in / groups, ...)
    shape = (groups, 1, -1, *[1] * (weight.ndim - 2))
    constant = (parts * b.reshape(shape)).flatten(2).sum(2).reshape(-1)
    scaled = (parts * a.reshape(shape)).reshape(weight.shape)
    if bool(b.any()):
        _set(module, scaled, _bias(module, constant) + constant)
    else:
        _set(module, scaled, None)


def _norm_parameters(module: nn.Module) -> tuple[Tensor, Tensor]:
    like = _tensor(module.running_mean).double()
    weight, bias = module.weight, _bias(module, like)
    scale = _tensor(weight).double() if isinstance(weight, Tensor) else torch.ones_like(like)
    return scale, bias


def _tensor(value: Tensor | nn.Module | None) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor, got {type(value).__name__}")
    return value.detach()


def _bias(module: nn.Module, like: Tensor) -> Tensor:
    bias = module.bias
    return _tensor(bias).double() if isinstance(bias, Tensor) else torch.zeros_like(like)


def _set(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Give a module new parameters of its old dtype; bias None leaves the old bias."""
    old = module.weight if isinstance(module.weight, Tensor) else module.running_mean
    like = _tensor(old)
    module.weight = nn.Parameter(weight.to(like.dtype))
    if bias is not None:
        module.bias = nn.Parameter(bias.to(like.dtype))
