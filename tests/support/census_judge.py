"""A census compared with what values show: see `operator_oracle`."""

from collections import Counter
from typing import Any

import torch
from torch import nn

from acon_hooks.census.census import Census
from acon_hooks.census.classify import operator_name
from acon_hooks.engine.visiting import visiting
from operator_oracle import affine, differs, operations


def counted(model: nn.Module, *args: Any, **kwargs: Any) -> Census:
    census = Census()
    with visiting(model, census.sites(model), census), torch.no_grad():
        census.of(model, args, kwargs)
    return census


def compared(
    model: nn.Module, first: tuple[Any, ...], second: tuple[Any, ...]
) -> tuple[Counter[str], list[Any]]:
    """Compare a census with values of two inputs: counts of calls, and those that disagree.

    Counted are calls whose result depends on the input, by class; "changed", whose results differ;
    "confirmed", nonlinear by their values; "untried", linear ones that could not be tried.
    """
    operations(model, first, values=False)  # what torch computes once a process
    census = counted(model, *first)
    one, other = operations(model, first), operations(model, second)
    found: Counter[str] = Counter(calls=len(one))
    wrong: list[Any] = []
    if [call.operator for call in census.calls] != [operator_name(o.operator) for o in one]:
        wrong.append("the census counts other calls than the dispatcher")
    if [o.name for o in one] != [o.name for o in other]:
        found["branches"] = 1  # calls after the first that differs cannot be compared
    for call, a, b in zip(census.calls, one, other, strict=False):
        if a.name != b.name:
            break
        kind, _, depends = call.verdict
        changed = differs(a, b)
        straight = affine(a, b) if depends else None
        if (changed and not depends) or (kind == "linear" and straight is False):
            wrong.append(call)
        found[kind] += depends
        found["confirmed"] += kind == "nonlinear" and straight is False
        found["untried"] += depends and kind == "linear" and straight is None
        found["changed"] += changed
    return found, wrong


def judge(model: nn.Module, first: tuple[Any, ...], second: tuple[Any, ...]) -> Counter[str]:
    """Compare a census with values of two inputs, which must agree."""
    found, wrong = compared(model, first, second)
    assert not wrong, wrong
    assert not found["branches"]
    return found
