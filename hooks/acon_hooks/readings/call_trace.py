"""What a layer does during one call of the first batch: copies of all that β may be read from."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from acon_hooks.engine.functions import function_name
from acon_hooks.engine.sites import SiteCall
from acon_hooks.layers.reading import GATES

#: Function outputs beyond this size are kept only if the function is one that makes gates.
_SMALL = 1 << 16
_GATE_MAKERS = {"sigmoid", "expit", "hardsigmoid", "softplus", "tanh", "softmax", "exp", "relu"}


@dataclass
class ModuleCall:
    """One call of a module inside the layer."""

    # Its name inside the layer.
    path: str
    # Which of its calls within one call of the layer.
    ordinal: int
    # Copies of what it returned and of its first argument.
    output: Tensor
    taken: Tensor | None
    # Whether it is an activation, or ends in one.
    activated: bool


@dataclass
class FunctionCall:
    """One function called inside the layer's forward: its name, which call of it, the result."""

    name: str
    ordinal: int
    output: Tensor


@dataclass
class CallTrace:
    """All that was caught in one call of a layer; copies, so nothing can overwrite them."""

    arguments: dict[int | str, Tensor] = field(default_factory=dict)
    pointers: dict[int | str, int] = field(default_factory=dict)  # where the originals lie
    given: list[Tensor] = field(default_factory=list)  # the originals, for their identity
    modules: list[ModuleCall] = field(default_factory=list)
    functions: list[FunctionCall] = field(default_factory=list)
    gates: dict[str, FunctionCall] = field(default_factory=dict)  # the last gate's argument
    gated: int = 0  # how many of `functions` came before the last gate of full size
    counts: Counter[str] = field(default_factory=Counter)
    kept: bool = False  # whether the arguments are known not to be overwritten by the call

    @classmethod
    def of(cls, call: SiteCall) -> "CallTrace":
        """Begin a trace with copies of the floating-point arguments."""
        given: dict[int | str, Any] = dict(enumerate(call.args))
        given.update(call.kwargs)
        floats = {
            key: value
            for key, value in given.items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        return cls(
            {key: value.detach().clone() for key, value in floats.items()},
            {key: value.data_ptr() for key, value in floats.items()},
            list(floats.values()),
        )

    def module(self, call: SiteCall, output: Any, *, activated: bool) -> None:
        """Write down a call of an inner module."""
        path, args = call.site.name, call.args
        ordinal = self._count(f"module {path}")
        if not usable(output) or not output.is_floating_point():
            return
        taken = args[0].detach().clone() if args and usable(args[0]) else None
        self.modules.append(ModuleCall(path, ordinal, output.detach().clone(), taken, activated))

    def function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function; keep small results, possible gates, and the arguments of gates."""
        name = function_name(func)
        ordinal = self._count(name)
        if name in GATES and args and usable(args[0]):
            self.gates[name] = FunctionCall(name, ordinal, args[0].detach().clone())
            if args[0].numel() >= self._largest():
                self.gated = len(self.functions)
        out = func(*args, **kwargs)
        if usable(out) and out.is_floating_point() and (self._small(out) or name in _GATE_MAKERS):
            self.functions.append(FunctionCall(name, ordinal, out.detach().clone()))
        return out

    def _count(self, name: str) -> int:
        self.counts[name] += 1
        return self.counts[name] - 1

    def _small(self, out: Tensor) -> bool:
        return out.ndim <= 2 or out.numel() < max(_SMALL, self._largest())

    def _largest(self) -> int:
        return max((t.numel() for t in self.arguments.values()), default=0)


def usable(value: Any) -> bool:
    """Return whether a value is a tensor that may be used after the call: none inside vmap is."""
    return isinstance(value, Tensor) and not is_functorch_wrapped_tensor(value)
