"""What a network's operators depend on, and in what they are linear, by value.

A dispatch mode of its own writes down every operator with its arguments and results for two
inputs. Nothing of the project computes a number here.
"""

# mypy: disable-error-code="no-any-return"

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

#: Largest difference, of the size of the values, that counts as rounding in float64.
ROUNDING = 1e-9


@dataclass
class Operation:
    """One operator that was dispatched: its arguments before the call, its results after it."""

    operator: Any
    arguments: tuple[Any, Any]
    results: list[Tensor]

    @property
    def name(self) -> str:
        return str(self.operator)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down operators; tensors of the network itself are not copied."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, *, values: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = values
        self.operations: list[Operation] = []
        own = [*model.parameters(), *model.buffers()]
        self._own = {value.untyped_storage()._cdata for value in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_map(self._copied, (args, kwargs)) if self.values else ((), {})
        output = func(*args, **kwargs)
        found = tensors(output) or list(written(func, args, kwargs))
        results = list(map(self._copied, found)) if self.values else []
        self.operations.append(Operation(func, given, results))
        return output

    def _copied(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.is_nested or value.layout is not torch.strided:
            return value.detach().clone()
        own = value.untyped_storage()._cdata in self._own
        return value.detach() if own else value.detach().clone()


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def written(operator: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Yield the tensors that an operator overwrites."""
    schema = getattr(operator, "_schema", None)
    for index, argument in enumerate([] if schema is None else schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[index] if index < len(args) else kwargs.get(argument.name)
            yield from tensors(given)


def operations(
    model: nn.Module, args: tuple[Any, ...], kwargs: Any = None, *, values: bool = True
) -> list[Operation]:
    """Return the operators of a forward pass, with encoders run module by module."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    recorder = Recorder(model, values=values)
    given = copy.deepcopy((args, kwargs or {}))
    try:
        with torch.no_grad(), recorder:
            model(*given[0], **given[1])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return recorder.operations


def differs(one: Operation, other: Operation) -> bool:
    """Return whether the results of an operator differ between two inputs."""
    if "empty" in one.name:  # memory as it was found
        return False
    pairs = zip(one.results, other.results, strict=False)
    return any(not same(a, b) for a, b in pairs) or len(one.results) != len(other.results)


def same(one: Tensor, other: Tensor) -> bool:
    if one.is_nested:
        return all(map(same, one.unbind(), other.unbind()))
    if one.shape != other.shape:
        return False
    both = one.isnan() & other.isnan() if one.is_floating_point() else torch.zeros_like(one).bool()
    return bool(((one == other) | both).all())


def affine(one: Operation, other: Operation) -> bool | None:
    """Return whether an operator's result at the mean of its arguments is the mean of its results.

    Everything is computed in float64. None where this cannot be tried: arguments that are no
    floating-point tensors differ, or the operator does not take float64.
    """
    first, spec = tree_flatten(one.arguments)
    second, other_spec = tree_flatten(other.arguments)
    if spec != other_spec or any(map(_unlike, first, second)):
        return None
    doubles = [_double(leaf) for leaf in first]
    second = [
        mine if _one_memory(a, b) else _double(b)
        for mine, a, b in zip(doubles, first, second, strict=True)
    ]
    first = doubles
    middle = [_mean(a, b) for a, b in zip(first, second, strict=True)]
    try:
        low, high, between = (
            _result(one.operator, tree_unflatten(leaves, spec))
            for leaves in (first, second, middle)
        )
    except (RuntimeError, TypeError, NotImplementedError, ValueError):
        return None
    if any(value.is_nested or value.layout is not torch.strided for value in low):
        return None
    return all(map(_is_mean, low, high, between))


def _one_memory(one: Any, other: Any) -> bool:
    """Whether two arguments are the same tensor of the network itself."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.is_nested:
        return False
    return one.numel() > 0 and one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _unlike(one: Any, other: Any) -> bool:
    """Whether two arguments differ and are no tensors of real numbers of one shape."""
    if not isinstance(one, Tensor):
        return not isinstance(other, Tensor) and one != other
    if one.is_nested or one.layout is not torch.strided or one.shape != other.shape:
        return True
    return not (one.is_floating_point() or one.is_complex()) and not same(one, other)


def _double(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return torch.float64 if value is torch.float32 else value
    if value.is_complex():
        return value.to(torch.complex128)
    return value.double() if value.is_floating_point() else value.clone()


def _mean(one: Any, other: Any) -> Any:
    if isinstance(one, Tensor) and (one.is_floating_point() or one.is_complex()):
        return one if one is other else (one + other) / 2
    return one


def _result(operator: Any, arguments: tuple[Any, Any]) -> list[Tensor]:
    args, kwargs = tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, arguments)
    output = operator(*args, **kwargs)
    found = tensors(output) or list(written(operator, args, kwargs))
    return [value.clone() for value in found]


def _is_mean(low: Tensor, high: Tensor, between: Tensor) -> bool:
    if low.dtype is torch.bool or not (low.is_floating_point() or low.is_complex()):
        return same(low, between) and same(high, between)
    if not low.numel():
        return True
    expected = (low + high) / 2
    size = torch.stack([low.abs().max(), high.abs().max(), torch.ones_like(low.abs().max())]).max()
    finite = expected.isfinite()
    gap = (between - expected).abs()[finite]
    return not gap.numel() or bool(gap.max() <= ROUNDING * size)
