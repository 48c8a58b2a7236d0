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


def judge(model: nn.Module, first: tuple[Any, ...], second: tuple[Any, ...]) -> Counter[str]:
    """Compare a census with values of two inputs; return how often what was confirmed by value."""
    operations(model, first, values=False)  # what torch computes once a process
    census = counted(model, *first)
    one, other = operations(model, first), operations(model, second)
    assert [call.operator for call in census.calls] == [operator_name(o.operator) for o in one]
    assert [o.name for o in one] == [o.name for o in other]
    found: Counter[str] = Counter()
    for call, a, b in zip(census.calls, one, other, strict=True):
        kind, _, depends = call.verdict
        changed = differs(a, b)
        assert depends or not changed, call
        straight = affine(a, b) if depends else None
        assert kind != "linear" or straight is not False, call
        found[kind] += depends
        found["confirmed"] += kind == "nonlinear" and straight is False
        found["changed"] += changed
    return found
