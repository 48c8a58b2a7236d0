"""Activations that a model calls as functions: hooks cannot reach them, so they are reported."""

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from acon_hooks.guards import eager, exclusive, refuse_unwatchable, unwrap
from acon_hooks.layers.scan import find_layers
from acon_hooks.readings.call_trace import function_name

if TYPE_CHECKING:
    import pandas as pd

_ACTIVATIONS = frozenset(
    [
        "celu",
        "elu",
        "expit",
        "gelu",
        "hardshrink",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "log_sigmoid",
        "logsigmoid",
        "mish",
        "prelu",
        "relu",
        "relu6",
        "rrelu",
        "selu",
        "sigmoid",
        "silu",
        "softplus",
        "softshrink",
        "softsign",
        "tanh",
        "tanhshrink",
        "threshold",
    ]
)


class _Listener(TorchFunctionMode):
    """Counts activation functions by the innermost module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = [""]
        self.counts: Counter[tuple[str, str]] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = function_name(func)
        first = args[0] if args else None
        if name in _ACTIVATIONS and isinstance(first, Tensor) and first.is_floating_point():
            self.counts[self.running[-1], name] += 1
        return func(*args, **(kwargs or {}))

    def enter(self, name: str) -> Any:
        def before(_module: nn.Module, _args: Any) -> None:
            self.running.append(name)

        return before

    def leave(self) -> Any:
        def after(_module: nn.Module, _args: Any, _output: Any) -> None:
            self.running.pop()

        return after


def functional_activations(model: nn.Module, example: Any) -> "pd.DataFrame":
    """Count the activations that a model calls as functions in one forward pass.

    ``F.relu(x)``, ``torch.relu(x)`` or ``x.relu_()`` inside a forward have no module and so no
    hook: no `Layer` stands for them, and no capture sees them. Calls by activation modules
    and inside ACON layers do not count, as those layers can be watched.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    example : Tensor or tuple
        A batch; a tuple is handed over as the model's arguments.

    Returns
    -------
    DataFrame
        A row for each module and function: ``layer`` (the innermost module that was running),
        ``class_name``, ``function`` and ``calls``, the number of calls in the pass.

    Raises
    ------
    HookError
        If the model cannot be watched.
    """
    import pandas as pd

    inner = unwrap(model)
    refuse_unwatchable(model, [])
    modules = dict(inner.named_modules())
    kinds = ("meta_acon", "acon", "acon_plain_gate", "acon_frelu", "activation")
    watched = {part for layer in find_layers(inner, kinds) for part in layer.module.modules()}
    listener = _Listener()
    with ExitStack() as stack:
        stack.enter_context(exclusive(inner))
        stack.enter_context(eager())
        stack.enter_context(torch.no_grad())
        for name, module in modules.items():
            if not isinstance(module, torch.jit.ScriptModule):
                before = module.register_forward_pre_hook(listener.enter(name), prepend=True)
                stack.callback(before.remove)
                after = module.register_forward_hook(listener.leave(), always_call=True)
                stack.callback(after.remove)
        stack.enter_context(listener)
        inner(*example) if isinstance(example, tuple) else inner(example)
    rows = [
        {
            "layer": name,
            "class_name": type(modules[name]).__name__,
            "function": function,
            "calls": calls,
        }
        for (name, function), calls in listener.counts.items()
        if modules[name] not in watched
    ]
    return pd.DataFrame(rows, columns=["layer", "class_name", "function", "calls"])
