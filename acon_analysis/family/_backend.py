"""One formula, two libraries: what a kernel needs from numpy or torch, and how it is chosen.

A kernel is a function ``kernel(ops, x, ...)`` written against `Ops`. `elementwise` turns it into
the public function: it looks at the arguments, takes torch if one of them is a tensor and numpy
otherwise, brings all of them to one working precision, and casts the result back. torch is never
imported here: a tensor can only come from a caller who has imported it already.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import numpy as np

from acon_analysis.errors import UsageError
from acon_analysis.family._numpy_ops import NumpyOps
from acon_analysis.family._torch_ops import TorchOps

P = ParamSpec("P")


#: What a kernel may use. Arrays are numpy arrays or torch tensors, never mixed.
Ops = NumpyOps | TorchOps


@functools.cache
def _numpy_ops() -> Ops:
    return NumpyOps()


@functools.cache
def _torch_ops() -> Ops:
    return TorchOps(sys.modules["torch"])


def choose(owner: str, named: dict[str, Any]) -> Ops:
    """Return the library that a call needs; a list of tensors, which numpy would detach, raises."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", ())  # unloaded: nothing is a tensor
    for name, value in named.items():
        if isinstance(value, (list, tuple)) and any(isinstance(item, tensor) for item in value):
            raise UsageError(
                f"{owner}: {name} is a {type(value).__name__} of tensors; expected one tensor "
                f"(torch.stack({name}, dim=-1) makes it)"
            )
    if any(isinstance(value, tensor) for value in named.values()):
        return _torch_ops()
    return _numpy_ops()


def check_shapes(owner: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise a UsageError that names all shapes if they do not broadcast."""
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UsageError(f"{owner}: these shapes do not broadcast: {listed}") from None


def elementwise(kernel: Callable[Concatenate[Ops, P], Any]) -> Callable[P, Any]:
    """Turn a kernel into a public function of numbers, numpy arrays or torch tensors.

    Positional parameters broadcast; keyword-only ones are options, handed on as they are.
    """
    return _public(kernel, broadcast=True)


def over_pieces(kernel: Callable[Concatenate[Ops, P], Any]) -> Callable[P, Any]:
    """Do as `elementwise` for a kernel that runs over an axis, and so checks the shapes itself."""
    return _public(kernel, broadcast=False)


def _public(kernel: Callable[Concatenate[Ops, P], Any], *, broadcast: bool) -> Callable[P, Any]:
    signature = inspect.signature(kernel)
    parameters = list(signature.parameters.values())[1:]
    arrays = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    signature = signature.replace(parameters=parameters)
    owner = kernel.__name__

    @functools.wraps(kernel)
    def function(*args: P.args, **kwargs: P.kwargs) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = {name: bound.arguments.pop(name) for name in arrays}
        ops = choose(owner, named)
        run: Callable[..., Any] = kernel
        # numpy would warn of each overflow; the kernels are written so that it ends in the limit.
        with np.errstate(all="ignore"):
            prepared, restore = ops.prepare(owner, named)
            if broadcast:
                shapes = {n: tuple(v.shape) for n, v in zip(named, prepared, strict=True)}
                check_shapes(owner, shapes)
            result = run(ops, *prepared, **bound.arguments)
            if isinstance(result, tuple):
                return tuple(restore(part) for part in result)
            return restore(result)

    function.__signature__ = signature  # type: ignore[attr-defined]
    del function.__wrapped__  # or help() would show the kernel's own signature
    return function
