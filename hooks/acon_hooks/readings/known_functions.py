"""Activations whose output is a known function of their input, before they run."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from acon_hooks.engine.aliases import same_values
from acon_hooks.engine.functions import only_ours
from acon_hooks.layers.scan import Layer

#: PyTorch's own modules and functions, by the function's name.
_MODULES = {"relu": nn.ReLU, "hardswish": nn.Hardswish, "silu": nn.SiLU}
_WRITTEN = {name: (kind.forward, getattr(functional, name)) for name, kind in _MODULES.items()}


def function_of(layer: Layer) -> str:
    """Return the name of the function that a layer is, as a module or as a function; else ""."""
    if layer.function is not None:
        return layer.function[0] if layer.function[0] in _MODULES and not layer.pieces else ""
    return next((name for name, kind in _MODULES.items() if type(layer.module) is kind), "")


def computes(name: str, x: Tensor, output: object) -> bool:
    """Return whether an output is, bit for bit, a function's: of float32, or ReLU's of any."""
    if name != "relu" and x.dtype != torch.float32:
        return False
    return isinstance(output, Tensor) and same_values(_WRITTEN[name][1](x), output)


def runs_alone(layer: Layer) -> bool:
    """Return whether nobody else can change what goes into a layer or comes out of it now."""
    if torch._C._len_torch_dispatch_stack() or not only_ours():
        return False
    if layer.function is not None:
        return True
    module, name = layer.module, layer.known
    others = module._backward_hooks or module._backward_pre_hooks or "forward" in vars(module)
    everywhere: bool = nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    hooks = module._forward_pre_hooks, module._forward_hooks
    return (
        not others
        and not everywhere
        and max(map(len, hooks)) < 2  # that one is ours
        and (_MODULES[name].forward, getattr(functional, name)) == _WRITTEN[name]
    )
