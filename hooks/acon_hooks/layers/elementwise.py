"""Which modules are elementwise activations: torch.nn's by list, third-party ones by behaviour.

A third-party module is tried on a deep copy of it, so that looking at a network never changes it.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.visiting import visiting

_NN_ACTIVATIONS = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.RReLU, nn.ReLU, nn.ReLU6, nn.SELU,
    nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    nn.Threshold,
)  # fmt: skip

#: Modules of torch.nn that may be parts of a third-party activation, besides activations.
_PASSIVE = (nn.Identity, nn.Dropout, nn.Sequential, nn.ModuleList, nn.ParameterList)

#: A module with more values of its own is no activation.
_MOST_VALUES = 1 << 14


def is_activation(module: nn.Module) -> bool:
    """Return whether a module is an elementwise, nonlinear activation; it stays as it is.

    A module of torch.nn is looked up. A third-party one is an activation if, on copies of it and
    small inputs, every output element depends on the input element at its position alone, by the
    same rule within a channel, and not by a straight line. A module that only hands on what an
    activation inside it returns is none: the inner one is.
    """
    if isinstance(module, _NN_ACTIVATIONS):
        return True
    if not _may_be_activation(module):
        return False
    devices = {value.device for value in _values(module) if value.is_cuda}
    with torch.random.fork_rng(list(devices)), torch.no_grad():
        answers = (_answer(module, size, axis) for size, axis in _sizes(module))
        return next((answer for answer in answers if answer is not None), False)


def channel_axis(module: nn.Module, ndim: int) -> int | None:
    """Return the axis on which an activation's own parameters put its input's channels, or None."""
    if isinstance(module, nn.PReLU):
        return 1 if module.num_parameters > 1 else None
    for tensor in _values(module):
        wide = [axis for axis, size in enumerate(tensor.shape) if size != 1]
        if len(wide) == 1 and tensor.ndim > 1 and wide[0] - tensor.ndim + ndim > 0:
            return wide[0] - tensor.ndim + ndim
    return None


def _may_be_activation(module: nn.Module) -> bool:
    """Return whether a third-party module consists of nothing but activations and a few values."""
    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
        return False
    parts = list(module.modules())
    if any(not _third_party(part) and not _small_part(part) for part in parts):
        return False
    values = list(_values(module))
    return (
        _third_party(module)
        and sum(value.numel() for value in values) <= _MOST_VALUES
        and all(value.is_floating_point() for value in module.parameters())
    )


def _third_party(module: nn.Module) -> bool:
    """Return whether a class is not torch's, and not derived from a layer of torch's."""
    homes = {cls.__module__.partition(".")[0] for cls in type(module).__mro__[:-1]}
    layers = [cls for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn.modules")]
    plain = all(cls in (nn.Module, nn.Sequential) for cls in layers)
    return homes != {"torch"} and not type(module).__module__.startswith("torch.") and plain


def _small_part(module: nn.Module) -> bool:
    return (
        isinstance(module, _NN_ACTIVATIONS + _PASSIVE) or "parametrize" in type(module).__module__
    )


def _values(module: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters and buffers of a module and of its parts."""
    yield from module.parameters()
    yield from module.buffers()


def _sizes(module: nn.Module) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the shapes of inputs to try, with their channel axis: those the parameters ask for."""
    usual = (2, 3, 5, 4)
    channels = 3
    for value in _values(module):
        wide = [axis for axis, size in enumerate(value.shape) if size != 1]
        if len(wide) != 1:
            continue
        channels = value.numel()
        if value.ndim > 1:
            shape = value.shape if wide[0] else (1, *value.shape)
            axis = max(1, wide[0])
            yield tuple(s if s != 1 else usual[min(i, 3)] for i, s in enumerate(shape)), axis
    yield (2, channels, 3, 4), 1
    yield (2, channels), 1
    yield (2, 5, channels), 2
    yield (2, channels, 5), 1
    yield (2, channels, 3, 2, 4), 1


def _answer(module: nn.Module, size: tuple[int, ...], axis: int) -> bool | None:
    """Try a module on one shape; None where it raises or is not elementwise on that shape."""
    try:
        return _Trial(module, size, axis).answer()
    except Exception:  # whatever a third-party forward raises
        return None


class _Trial:
    """The properties of an activation on one shape, on values from -4 to 4, each on a copy."""

    def __init__(self, module: nn.Module, size: tuple[int, ...], axis: int) -> None:
        self.module = module
        floats = (value for value in _values(module) if value.is_floating_point())
        like = next(floats, torch.empty(0))
        generator = torch.Generator().manual_seed(0)
        self.x = (8 * torch.rand(size, generator=generator) - 4).to(like.device, like.dtype)
        #: Axes along which elements may be exchanged without changing channels.
        self.moving = [0, *(a for a in range(1, len(size)) if a != axis)][:2]

    def run(self, x: Tensor) -> Tensor:
        """Return what a fresh copy makes of an input, without the module's own hooks."""
        made: Tensor = _bare_copy(self.module).forward(x.clone())
        return made

    def answer(self) -> bool | None:
        """Return whether an elementwise module with one rule for a channel bends its input."""
        x, y = self.x, self.run(self.x)
        if type(y) is not Tensor or y.shape != x.shape or not y.is_floating_point():
            return None
        ones = [1] * len(self.moving)
        back = self.run(x.roll(ones, self.moving)).roll([-1] * len(ones), self.moving)
        changed = x.clone()
        changed.view(-1)[0] += 1
        elsewhere = self.run(changed).reshape(-1)[1:]
        if not torch.equal(back, y) or not torch.equal(elsewhere, y.reshape(-1)[1:]):
            return None
        origin = self.run(torch.zeros_like(x))
        # Both are 0 for a straight line; the first alone also for ReLU, the second for tanh.
        doubled = self.run(2 * x) - 2 * y + origin
        mirrored = self.run(-x) + y - 2 * origin
        bent = any(bool((gap.abs() > 1e-3 * (1 + y.abs())).any()) for gap in (doubled, mirrored))
        return bent and not self._hands_on(y)

    def _hands_on(self, y: Tensor) -> bool:
        """Return whether the output is that of a module inside."""
        own, outputs = _bare_copy(self.module), _Outputs()
        sites = [Site(name, part, inner=True) for name, part in own.named_modules() if name]
        if not sites or isinstance(own, torch.jit.ScriptModule):
            return False
        with visiting(own, sites, outputs):
            own(self.x.clone())
        return any(torch.equal(made, y) for made in outputs.made)


class _Outputs(Visitor):
    """Keeps what inner modules return."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []

    def after(self, call: SiteCall, output: Any) -> None:
        """Keep a copy."""
        if isinstance(output, Tensor):
            self.made.append(output.clone())


def _bare_copy(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, without hooks."""
    own = copy.deepcopy(module, _shared(module)).eval()
    for part in own.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    return own


def _shared(module: nn.Module) -> dict[int, Any]:
    """Return what stands for attributes that cannot be copied: they, or a tensor's values."""
    memo: dict[int, Any] = {}
    for value in (value for part in module.modules() for value in vars(part).values()):
        try:
            copy.deepcopy(value, dict(memo))
        except Exception:  # a lock, a file, a tensor with a gradient
            memo[id(value)] = value.detach().clone() if isinstance(value, Tensor) else value
    return memo
