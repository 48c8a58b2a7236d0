"""A visitor that counts the operators of a forward pass, by module, and what each of them is."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from acon_analysis.columns import NONLINEARITY_COLUMNS, dtypes, names
from acon_hooks.census.classify import (
    Verdict,
    loses_digits,
    named_arguments,
    operator_name,
    verdict,
    written,
)
from acon_hooks.census.marks import Marks
from acon_hooks.engine.functions import OperatorListener
from acon_hooks.engine.outputs import tensors_in
from acon_hooks.engine.sites import Args, Kwargs, Site, SiteCall, Visitor
from acon_hooks.layers.scan import Layer

_UNSEEN = (
    "an output does not come from the input by operators that were seen; it is constant, or "
    "computed elsewhere (numpy, another thread, a replayed graph)"
)
_NOTHING = (
    "what the network returned, of type {}, holds no tensor; what is computed of it later is not "
    "seen"
)
_ORDER = ("linear", "unknown", "nonlinear")


class Call(NamedTuple):
    """One call of an operator."""

    # Module path of the innermost module that was running.
    name: str
    # The measured layer inside which it ran, or empty.
    layer: str
    operator: str
    # Of its output.
    elements: int
    verdict: Verdict


class Census(Visitor):
    """Counts every operator of the last forward pass, as `calls` in the order of execution."""

    def __init__(self, layers: Iterable[Layer] = ()) -> None:
        self.layers = {layer.name: layer for layer in layers}
        own = [(layer.name, piece) for layer in self.layers.values() for piece in layer.pieces]
        self._pieces = [piece for _, piece in own]
        self._measured = {piece.name: name for name, piece in own}  # name of a site -> its layer
        self._measured |= {name: name for name in self.layers}
        self.calls: list[Call] = []
        self.incomplete = ""
        self.missing = 0  # elements of outputs that are not marked
        self.marks = Marks()
        self._running: list[Site] = []
        self._model: nn.Module | None = None
        self._listener = OperatorListener(self._run)

    def sites(self, model: nn.Module) -> list[Site]:
        """Return what it sees: modules, which name calls, and functions that are layers."""
        # Modules inside TorchScript are not seen; their operators count for the outer one.
        self._model = model
        functions = [layer.site() for layer in self.layers.values() if layer.function is not None]
        named = dict(model.named_modules())
        scripted = [n for n, module in named.items() if isinstance(module, torch.jit.ScriptModule)]
        modules = [
            Site(name, module)
            for name, module in named.items()
            if not any(name.startswith(f"{outer}.") for outer in scripted if outer)
        ]
        return [*modules, *functions, *self._pieces]

    def of(self, run: Callable[..., Any], args: Args, kwargs: Kwargs) -> None:
        """Count the operators of a forward pass, which `run` makes of args and kwargs."""
        self.calls, self.incomplete, self.marks = [], "", Marks()
        self.marks.mark((args, kwargs))
        self._running.clear()
        with self._listener:
            output = run(*args, **kwargs)
        found = list(tensors_in(output))
        unseen = [tensor for tensor in found if not self.marks.on(tensor)]
        self.missing = sum(tensor.numel() for tensor in unseen)
        if unseen or not found:
            self.incomplete = _UNSEEN if found else _NOTHING.format(type(output).__name__)

    def before(self, call: SiteCall) -> None:
        """Enter a site; what the network is given depends on the input, however it was made."""
        if call.site.module is self._model and not any(map(self.marks.on, call.tensors())):
            self.marks.mark((call.args, call.kwargs))
        self._running.append(call.site)

    def after(self, call: SiteCall, output: Any) -> None:
        """Leave a site."""
        self._running.pop()

    def raised(self, site: Site) -> None:
        """Leave a site that has raised an exception, or returned nothing."""
        self._running.pop()

    def frame(self) -> pd.DataFrame:
        """Return a row a module, operator and verdict, in order: `columns.NONLINEARITY_COLUMNS`."""
        rows: dict[tuple[Any, ...], list[int]] = {}
        for call in self.calls:
            kind, reason, _ = call.verdict
            key = (call.name, call.operator, kind, bool(call.layer), call.layer, reason)
            count = rows.setdefault(key, [0, 0])
            count[0] += 1
            count[1] += call.elements
        # A last row without operator and calls stands for outputs of the network whose way from the
        # input was not seen.
        if self.incomplete:
            reason = f"census incomplete: {self.incomplete}"
            rows["", "", "unknown", False, "", reason] = [0, self.missing]
        found = [
            (name, operator, calls, elements, *rest)
            for (name, operator, *rest), (calls, elements) in rows.items()
        ]
        frame = pd.DataFrame(found, columns=names(NONLINEARITY_COLUMNS))
        return frame.astype(dtypes(NONLINEARITY_COLUMNS))

    def _run(self, operator: Any, args: Args, kwargs: Kwargs) -> Any:
        """Run an operator, count it and mark what depends on the input."""
        arguments = named_arguments(operator, args, kwargs)
        parts = _parts(operator, arguments)
        verdicts = [verdict(operator, part, self.marks) for part in parts]
        output = operator(*args, **kwargs)
        results = [(output, arguments)]
        if len(parts) > 1:
            results = list(zip(output or [None] * len(parts), parts, strict=True))
        for i, (result, part) in enumerate(results):
            if verdicts[i].kind == "linear" and verdicts[i].depends and loses_digits(part, result):
                verdicts[i] = Verdict("nonlinear", "rounding", depends=True)
            if verdicts[i].depends:
                self.marks.mark((result, list(written(operator, part))))
        worst = max(verdicts, key=lambda one: (one.depends, _ORDER.index(one.kind)))
        layers = (self._measured.get(site.name) for site in self._running)
        layer = next((name for name in layers if name), "")
        modules = (site.name for site in reversed(self._running) if site.function is None)
        name = next(modules, "")
        count = _elements(output, operator, arguments)
        self.calls.append(Call(name, layer, operator_name(operator), count, worst))
        return output


def _parts(operator: Any, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the arguments of each element of an operator on lists; of others, the arguments."""
    if not operator_name(operator).startswith("_foreach_"):
        return [dict(arguments)]
    size = max(len(value) for value in arguments.values() if isinstance(value, list | tuple))
    return [
        {k: v[i] if isinstance(v, list | tuple) else v for k, v in arguments.items()}
        for i in range(size)
    ]


def _elements(output: Any, operator: Any, arguments: Mapping[str, Any]) -> int:
    """Return the elements of what an operator has made: of its first result, or of a list."""
    first = output[0] if isinstance(output, tuple) and output else output
    if first is None:
        first = list(written(operator, arguments))
    tensors = list(tensors_in(first))
    if not tensors:
        return int(isinstance(first, int | float | complex))
    return sum(tensor.numel() for tensor in tensors)
