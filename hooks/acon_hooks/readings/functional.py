"""Activations that a model calls as functions: hooks cannot reach them, so they are reported."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from acon_hooks.engine.functions import Listener, function_name
from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.visiting import visiting
from acon_hooks.guards import unwrap
from acon_hooks.layers.scan import PLAIN_KINDS, scan_layers
from acon_hooks.readings.second_look import copied

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


class _Counter(Visitor):
    """Counts activation functions by the innermost module that is running."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self._listener = Listener(self._count)

    def begin(self) -> None:
        """Listen to the forward pass."""
        self._listener.on()

    def before(self, call: SiteCall) -> None:
        """Enter a module."""
        self.running.append(call.site.name)

    def after(self, call: SiteCall, output: Any) -> None:
        """Leave a module."""
        self.running.pop()

    def end(self) -> None:
        """Stop listening."""
        self._listener.off()

    def abort(self) -> None:
        """Stop listening."""
        self._listener.off()
        self.running.clear()

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = function_name(func)
        first = args[0] if args else None
        if name in _ACTIVATIONS and isinstance(first, Tensor) and first.is_floating_point():
            self.counts[self.running[-1] if self.running else "", name] += 1
        return func(*args, **kwargs)


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

    modules = dict(unwrap(model).named_modules())
    kinds = ("meta_acon", "acon", "acon_plain_gate", "acon_frelu", *PLAIN_KINDS)
    watched = {part for layer in scan_layers(model, kinds) for part in layer.module.modules()}
    counter = _Counter()
    sites = [
        Site(name, module)
        for name, module in modules.items()
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    with visiting(model, sites, counter), torch.no_grad():
        model(*copied(example)) if isinstance(example, tuple) else model(copied(example))
    rows = [
        {
            "layer": name,
            "class_name": type(modules[name]).__name__,
            "function": function,
            "calls": calls,
        }
        for (name, function), calls in counter.counts.items()
        if modules[name] not in watched
    ]
    return pd.DataFrame(rows, columns=["layer", "class_name", "function", "calls"])
