"""What a layer does during one call, caught on the first batch for the search of β."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.hooks import RemovableHandle

from acon_hooks.layers.elementwise import is_activation
from acon_hooks.layers.reading import GATES

#: Function outputs beyond this size are kept only if the function is one that makes gates.
_SMALL = 1 << 16
_GATE_MAKERS = {"sigmoid", "expit", "hardsigmoid", "softplus", "tanh", "softmax", "exp", "relu"}


@dataclass
class Fired:
    """One call of an inner module.

    Parameters
    ----------
    path : str
        Its name inside the layer.
    ordinal : int
        Which of its calls within one call of the layer.
    output : Tensor
        A copy of what it returned.
    taken : Tensor or None
        A copy of its first argument.
    activated : bool
        Whether it is an activation, or ends in one.
    """

    path: str
    ordinal: int
    output: Tensor
    taken: Tensor | None
    activated: bool


@dataclass
class Called:
    """One function called inside the layer's forward: its name, which call of it, the result."""

    name: str
    ordinal: int
    output: Tensor


@dataclass
class Seen:
    """All that was caught in one call of a layer; copies, so nothing can overwrite them."""

    arguments: dict[int | str, Tensor] = field(default_factory=dict)
    pointers: dict[int | str, int] = field(default_factory=dict)  # where the originals lie
    fired: list[Fired] = field(default_factory=list)
    called: list[Called] = field(default_factory=list)
    gates: dict[str, Called] = field(default_factory=dict)  # the last gate's argument, by name
    gated: int = 0  # how much of `called` came before the last gate of full size
    counts: Counter[str] = field(default_factory=Counter)

    def largest(self) -> int:
        """Return the size of the largest argument."""
        return max((t.numel() for t in self.arguments.values()), default=0)


def function_name(func: Any) -> str:
    """Return one name for the spellings of a torch function: sigmoid, sigmoid_, expit, ..."""
    name = str(getattr(func, "__name__", "")).removeprefix("special_")
    if name in ("default", "out", "overload"):  # an operator of torch.ops
        name = str(func).split(".")[-2]
    return name if name.startswith("__") else name.rstrip("_")


def _lasts(value: Any) -> bool:
    """Tell whether a value is a tensor that may be used after the call: none inside vmap is."""
    return isinstance(value, Tensor) and not is_functorch_wrapped_tensor(value)


class CallRecorder(TorchFunctionMode):
    """Writes down what torch functions return while it is active."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the function; keep small results, possible gates, and the arguments of gates."""
        name = function_name(func)
        ordinal = self.seen.counts[name]
        self.seen.counts[name] += 1
        if name in GATES and args and _lasts(args[0]):
            self.seen.gates[name] = Called(name, ordinal, args[0].detach().clone())
            if args[0].numel() >= self.seen.largest():
                self.seen.gated = len(self.seen.called)
        out = func(*args, **(kwargs or {}))
        if _lasts(out) and out.is_floating_point() and (self._small(out) or name in _GATE_MAKERS):
            self.seen.called.append(Called(name, ordinal, out.detach().clone()))
        return out

    def _small(self, out: Tensor) -> bool:
        return out.ndim <= 2 or out.numel() < max(_SMALL, self.seen.largest())


def hook_before(module: nn.Module, hook: Callable[..., None]) -> RemovableHandle:
    """Register hook(module, args, kwargs), to run last before a module's forward.

    Called on the class, since TorchScript modules block the method though their hooks work.
    """
    return nn.Module.register_forward_pre_hook(module, hook, with_kwargs=True)


def hook_after(module: nn.Module, hook: Callable[..., None]) -> RemovableHandle:
    """Register hook(module, args, kwargs, output), to run first after a module's forward.

    It runs, with None for the output, also where the forward raises an `Exception`.
    """
    return nn.Module.register_forward_hook(
        module, hook, prepend=True, with_kwargs=True, always_call=True
    )


class ModeSwitch:
    """Pushes a function mode before a layer's forward and pops it after, whatever happened."""

    def __init__(self) -> None:
        self.mode: TorchFunctionMode | None = None

    def on(self, mode: TorchFunctionMode) -> None:
        """Activate a mode; one that an interrupted forward has left behind goes first."""
        self.off()
        mode.__enter__()  # type: ignore[no-untyped-call]
        self.mode = mode

    def off(self) -> None:
        """Deactivate the mode, also where others were pushed on top of it."""
        mode, self.mode = self.mode, None
        if mode is None:
            return
        stack: list[Any] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        if mode not in stack:
            return
        above = stack[stack.index(mode) + 1 :]
        for top in reversed([mode, *above]):
            top.__exit__(None, None, None)
        for other in above:
            other.__enter__()


class Watcher:
    """Catches everything that happens inside one layer during its calls in the first batch.

    Parameters
    ----------
    module : Module
        The layer.
    inside : bool
        Whether inner modules and functions matter; not for plain activations.
    owner : int
        The thread whose calls count; others may run the same model meanwhile.
    """

    def __init__(self, module: nn.Module, *, inside: bool, owner: int) -> None:
        self.module = module
        self.inside = inside
        self.owner = owner
        self.seen: Seen | None = None
        self.switch = ModeSwitch()

    def attach(self) -> list[RemovableHandle]:
        """Register hooks on the inner modules; the caller removes them."""
        if not self.inside or isinstance(self.module, torch.jit.ScriptModule):
            return []
        return [
            inner.register_forward_hook(self._hook(path, inner))
            for path, inner in self.module.named_modules()
            if path and not isinstance(inner, torch.jit.ScriptModule)
        ]

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start watching one call; copies the arguments."""
        given: dict[int | str, Any] = dict(enumerate(args))
        given.update(kwargs)
        floats = {
            key: value
            for key, value in given.items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        self.seen = Seen(
            {key: value.detach().clone() for key, value in floats.items()},
            {key: value.data_ptr() for key, value in floats.items()},
        )
        if self.inside:
            self.switch.on(CallRecorder(self.seen))

    def after(self) -> Seen | None:
        """End the call; return what was seen, or None if its beginning was missed."""
        seen = self.seen
        self.stop()
        return seen

    def stop(self) -> None:
        """Forget what was seen and leave the function mode."""
        self.seen = None
        self.switch.off()

    def _hook(self, path: str, inner: nn.Module) -> Callable[..., None]:
        leaves = [m for m in inner.modules() if next(m.children(), None) is None]
        activated = bool(leaves) and is_activation(leaves[-1])

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen = self.seen
            if module is not inner or seen is None or threading.get_ident() != self.owner:
                return
            key = f"module {path}"
            seen.counts[key] += 1
            if not _lasts(output) or not output.is_floating_point():
                return
            taken = args[0] if args and _lasts(args[0]) else None
            with torch._C.DisableTorchFunction():  # these copies are ours, not the layer's
                copies = output.detach().clone(), None if taken is None else taken.detach().clone()
            seen.fired.append(Fired(path, seen.counts[key] - 1, *copies, activated))

        return hook
