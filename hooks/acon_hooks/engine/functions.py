"""Torch functions and operators inside a forward pass: listened to by modes, call by call."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from acon_hooks.engine.sites import Args, Kwargs

#: Runs a torch function or operator, or something else instead, and returns the result.
FunctionHandler = Callable[[Callable[..., Any], Args, Kwargs], Any]

#: Number of active function modes: 0 where no function is listened to.
listening: Callable[[], int] = torch._C._len_torch_function_stack


#: Other spellings of functions.
_SPELLINGS = {
    "expit": "sigmoid", "log_sigmoid": "logsigmoid", "_threshold": "threshold", "clip": "clamp",
    "absolute": "abs", "__abs__": "abs", "multiply": "mul", "divide": "div", "true_divide": "div",
    "subtract": "sub", "negative": "neg", "__rsub__": "rsub", "__rdiv__": "rdiv",
}  # fmt: skip

#: The elementwise functions whose calls are layers, under the names that sites have.
ELEMENTWISE = frozenset({
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish",
    "softplus", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "logsigmoid", "tanh", "softsign",
    "tanhshrink", "hardshrink", "softshrink", "threshold", "clamp", "clamp_min", "clamp_max",
    "maximum", "minimum", "abs", "sin", "square", "exp",
})  # fmt: skip


def function_name(func: Any) -> str:
    """Return one name for the spellings of a torch function: sigmoid, sigmoid_, expit, ..."""
    name = str(getattr(func, "__name__", "")).removeprefix("special_")
    if name in ("default", "out", "overload"):  # an operator of torch.ops
        name = str(func).split(".")[-2]
    return name if name.startswith("__") else name.rstrip("_")


def site_function(func: Any) -> str:
    """Return the name that a function has in the names of sites, the same for all spellings."""
    name = function_name(func)
    return _SPELLINGS.get(name, name)


class Listener:
    """Hands torch functions to a handler: inside its context, or from `on` to `off`."""

    # The handler runs the function once; functions that it calls itself are not handed to it.
    def __init__(self, handler: FunctionHandler) -> None:
        self._mode: Any = _Mode(handler)

    def on(self) -> None:
        """Listen from now on."""
        self.off()  # an interrupted forward pass may have left it on
        self._mode.__enter__()

    def off(self) -> None:
        """Listen no longer, also where other modes were activated since."""
        if listening():
            leave(self._mode, _get_current_function_mode_stack())  # type: ignore[no-untyped-call]

    def __enter__(self) -> None:
        self.on()

    def __exit__(self, *exc: object) -> None:
        self.off()


class OperatorListener(Listener):
    """The same of the operators that functions, modules and scripted code come down to."""

    def __init__(self, handler: FunctionHandler) -> None:
        self._mode = _DispatchMode(handler)

    def off(self) -> None:
        """Listen no longer, also where other modes were activated since."""
        leave(self._mode, _get_current_dispatch_mode_stack())


def leave(mode: Any, stack: list[Any]) -> None:
    """Leave a mode on a stack of modes, if it is there; those above it stay."""
    if mode in stack:
        above = stack[stack.index(mode) + 1 :]
        for one in reversed([mode, *above]):
            one.__exit__(None, None, None)
        for one in above:
            one.__enter__()


def only_ours() -> bool:
    """Return whether no function mode but our listeners is active."""
    if not listening():
        return True
    stack: list[Any] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return all(isinstance(mode, _Mode) for mode in stack)


class _Mode(TorchFunctionMode):
    def __init__(self, handler: FunctionHandler) -> None:
        super().__init__()
        self.handler = handler

    def __torch_function__(self, func: Any, types: Any, args: Args = (), kwargs: Any = None) -> Any:
        return self.handler(func, args, kwargs or {})


class _DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, since nothing is compiled while a network is watched."""
        # True would load the compiler, which takes seconds, at the first operator.
        return False

    def __init__(self, handler: FunctionHandler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.handler = handler

    def __torch_dispatch__(self, func: Any, types: Any, args: Args = (), kwargs: Any = None) -> Any:
        return self.handler(func, args, kwargs or {})
