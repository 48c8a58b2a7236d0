"""Operators inside a forward pass: followed by a dispatch mode, call by call."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from acon_hooks.engine.functions import leave
from acon_hooks.engine.sites import Args, Kwargs

#: Runs an operator, or something else instead, and returns the result.
OperatorHandler = Callable[[Any, Args, Kwargs], Any]


class OperatorListener:
    """Hands the operators that torch dispatches to a handler, while it is on.

    Operators are what functions, modules, scripted code and custom autograd functions come down to.
    The handler runs each once; those that it runs itself are not handed to it.
    """

    def __init__(self, handler: OperatorHandler) -> None:
        self._mode: Any = _Mode(handler)

    def on(self) -> None:
        """Listen from now on, in this thread."""
        self.off()  # an interrupted forward pass may have left it on
        self._mode.__enter__()

    def off(self) -> None:
        """Listen no longer, also where other modes were activated since."""
        leave(self._mode, _get_current_dispatch_mode_stack())


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, since nothing is compiled while a network is watched."""
        # True would load the compiler, which takes seconds, at the first operator.
        return False

    def __init__(self, handler: OperatorHandler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.handler = handler

    def __torch_dispatch__(self, func: Any, types: Any, args: Args = (), kwargs: Any = None) -> Any:
        return self.handler(func, args, kwargs or {})
