"""Activations that a network calls as functions, as straight lines in a copy of the network."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from acon_analysis.screen import counted
from acon_hooks.engine.function_calls import RunningModules, activated_first
from acon_hooks.engine.functions import Listener, site_function
from acon_hooks.engine.sites import split_name
from acon_hooks.engine.sources import FOLLOWED, JOINS, Sources
from acon_hooks.errors import HookError

#: Name of the module that holds the lines, in the copy.
CHILD = "linearized_functions"


class LinearizedFunctions(nn.Module):
    """The lines that replace what functions return; a part of the copy, whose forward listens."""

    # `lines`: called with input and output of a function (layer, call); their `in_place` says
    # whether it overwrites a tensor. `calls`: how often each function is called within a forward
    # pass.
    def __init__(
        self, lines: Mapping[tuple[str, int], nn.Module], calls: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.uses = list(lines)
        self.calls = dict(calls)
        self.lines = nn.ModuleList(lines.values())

    def extra_repr(self) -> str:
        """Return the layers for `print`."""
        return ", ".join(f"{name!r} call {call}" for name, call in self.uses)


def forward_with_lines(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run the forward of a linearised copy, which has `LinearizedFunctions` as its part `CHILD`."""
    lines = getattr(model, CHILD)
    with Listener(_Pass(model, lines).run):
        return type(model).forward(model, *args, **kwargs)


class _Pass:
    """One forward pass of a copy: which function is called, and what its line makes of it."""

    def __init__(self, model: nn.Module, functions: LinearizedFunctions) -> None:
        modules = dict(model.named_modules())
        self.calls = functions.calls
        self.lines = dict(zip(functions.uses, functions.lines, strict=True))
        self.names: dict[Any, str] = {}
        for name in functions.calls:
            owner, function = split_name(name)
            self.names[modules[owner], function] = name
        self.wanted = {function[0] for _, function in self.names if function is not None}
        self.follows = not JOINS.isdisjoint(self.wanted)
        self.wanted |= FOLLOWED if self.follows else set()
        self.running, self.sources = RunningModules(model), Sources()
        self.turns: Counter[str] = Counter()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function, with its line instead of what it returns."""
        function = site_function(func)
        numbered = self.running.number(function) if function in self.wanted else None
        if numbered is None:
            return func(*args, **kwargs)
        number, _, module = numbered
        given = activated_first(args, kwargs)
        source = self.sources.of(function, given) if self.follows else None
        if source is not None and function in JOINS:
            given = (source, *given)
        line = self._line(self.names.get((module, (function, number)), ""))
        output = (
            func(*args, **kwargs) if line is None else _replaced(line, given[0], func, args, kwargs)
        )
        if source is not None:
            self.sources.note(function, given, source, output)
        return output

    def _line(self, name: str) -> nn.Module | None:
        """Count a call of a layer; return its line, if it has one."""
        if not name:
            return None
        turn = self.turns[name]
        self.turns[name] += 1
        if turn >= self.calls[name]:
            raise HookError(
                f"layer {name!r} ran {counted(turn + 1, 'time')} in one forward pass, but "
                f"{counted(self.calls[name], 'time')} when the plan was made"
            )
        return self.lines.get((name, turn))


def _replaced(line: Any, x: Tensor, func: Any, args: tuple[Any, ...], kwargs: Any) -> Tensor:
    """Return what a line makes of x and of a function's output, written where that is written."""
    if not line.in_place:
        new: Tensor = line(x, x if line.whole else func(*args, **kwargs))
        return new
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    target = kwargs["out"] if "out" in kwargs else next(tensors)
    if line.whole:
        return target.copy_(line(x, x))
    own, before = target.clone(), x.clone()  # what the function overwrites, and its input
    named = {name: own if value is target else value for name, value in kwargs.items()}
    output = func(*(own if value is target else value for value in args), **named)
    return target.copy_(line(before, output))
