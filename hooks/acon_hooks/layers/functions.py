"""Activations that a network calls as functions: which calls are layers of kind "activation"."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils._pytree import tree_leaves

from acon_analysis.errors import UsageError, closest
from acon_hooks.engine.function_calls import FunctionCall
from acon_hooks.engine.functions import ELEMENTWISE, Listener, function_name
from acon_hooks.engine.sites import split_name
from acon_hooks.engine.sources import JOINS
from acon_hooks.engine.trees import count_samples
from acon_hooks.layers.elementwise import is_activation
from acon_hooks.layers.scan import Layer, is_acon_frelu, slopes

#: Functions of the input and of tensors that are to be constant: bounds, and those with weights.
_BOUNDED = frozenset({"clamp", "clamp_min", "clamp_max", "maximum", "minimum"})
_OF_SEVERAL = _BOUNDED | {"prelu"}
#: Functions that are arithmetic as well: layers only where they see the samples of the batch.
_ARITHMETIC = _BOUNDED | {"abs", "sin", "square", "exp"}
#: Functions that read only the shape of their argument, as all whose names begin with new_.
_SHAPE_ONLY = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")
#: Functions that make a tensor of what is not torch's; of arrays they may be data.
_FROM_OUTSIDE = frozenset({"tensor", "as_tensor", "asarray", "from_numpy", "frombuffer"})


def silent_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules that are measured as a whole: functions inside are parts of them."""
    return {
        module
        for module in model.modules()
        if slopes(module) is not None
        or isinstance(module, nn.GLU)
        or is_acon_frelu(module)
        or is_activation(module)
    }


def function_layer(
    model: nn.Module, name: str, asked: tuple[str, ...], formula: str = "", kind: str = "activation"
) -> Layer:
    """Return the layer that a name such as `layer1.0:relu#1` means."""
    owner, called = split_name(name)
    modules = dict(model.named_modules())
    if owner not in modules:
        raise UsageError(f"no module {owner!r} in layer {name!r}: {closest(owner, modules)}")
    known = ELEMENTWISE | JOINS | {"glu"}
    if called is None or called[0] not in known:
        function = name if called is None else called[0]
        raise UsageError(
            f"layer {name!r} is no elementwise function and no product: {closest(function, known)}"
        )
    kind = "product" if called[0] == "glu" else kind
    # Of an activation in pieces such as `:mul#0` the formula is x*sigmoid(x).
    return Layer(
        name, kind, None, "elementwise", "", formula or called[0], modules[owner],
        asked=asked, function=called,
    )  # fmt: skip


class DataDependence:
    """Knows which tensors of a forward pass do not depend on its inputs, while it listens.

    These are the network's parameters and buffers and what is computed from them alone. Whatever
    is not known to be such is taken to depend on the data. Storages are marked, not tensors, so
    that views and in-place writes are followed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.samples = 0
        self._constant: dict[int, Any] = {}  # the storages, which are kept alive
        self._listener = Listener(self._follow)

    def start(self, given: Any) -> None:
        """Follow the functions of a forward pass with the given arguments."""
        own = [*self.model.parameters(), *self.model.buffers()]
        self._constant = dict(map(_marked, filter(_has_storage, own)))
        self.samples = count_samples(given)
        self._forget(_tensors(given))
        self._listener.on()

    def stop(self) -> None:
        """Follow no longer."""
        self._listener.off()
        self._constant = {}

    def depends(self, x: Tensor) -> bool:
        """Return whether a tensor may depend on the data."""
        return not _has_storage(x) or x.untyped_storage()._cdata not in self._constant

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        name = function_name(func)
        with torch._C.DisableTorchFunction():
            given, made = list(_tensors((args, kwargs))), list(_tensors(out))
            new_from = name.startswith("new_") or name in _SHAPE_ONLY
            if new_from or not any(map(self.depends, given)):
                numbers = (isinstance(one, float | int | Tensor) for one in tree_leaves(args))
                if name not in _FROM_OUTSIDE or all(numbers):
                    self._constant.update(map(_marked, filter(_has_storage, made)))
            elif written := written_by(func, args, kwargs):
                self._forget(written)
        return out

    def _forget(self, tensors: Any) -> None:
        """Let tensors depend on the data from now on."""
        for tensor in tensors:
            if _has_storage(tensor):
                self._constant.pop(tensor.untyped_storage()._cdata, None)


def is_layer(call: FunctionCall, silent: set[nn.Module], data: DataDependence) -> bool:
    """Return whether a call is an elementwise activation of the data outside measured modules."""
    x, *others = call.tensors
    name = "" if call.site.function is None else call.site.function[0]
    if not could_be_layer(call, silent, data.samples) or not data.depends(x):
        return False
    if name in _BOUNDED and any(_widens(x, other) for other in others):
        return False
    return name not in _OF_SEVERAL or not any(map(data.depends, others))


def _has_samples(x: Tensor, count: int) -> bool:
    """Return whether a tensor has an axis of the samples and one of channels."""
    return x.ndim > 1 and (x.shape[0] == count or (x.ndim > 2 and x.shape[1] == count))


def _widens(x: Tensor, other: Tensor) -> bool:
    """Return whether an elementwise function of two tensors is larger than the first."""
    ends = zip(reversed(x.shape), reversed(other.shape), strict=False)
    return other.ndim > x.ndim or any(mine < its for mine, its in ends)


def could_be_layer(call: FunctionCall, silent: set[nn.Module], samples: int) -> bool:
    """Return what `is_layer` does, where only the number of samples is known of the data."""
    x, function = call.tensors[0], call.site.function
    if function is not None and function[0] in _ARITHMETIC and not _has_samples(x, samples):
        return False
    usable = x.is_floating_point() and x.ndim > 0 and not isinstance(x, nn.Parameter)
    return usable and silent.isdisjoint(call.running)


def written_by(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that a function writes to."""
    name = str(getattr(func, "__name__", ""))
    out = kwargs.get("out")
    in_place = (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace") is True
    if in_place or name == "__setitem__" or name.startswith("__i"):
        return list(_tensors((args[:1], out)))
    return list(_tensors(out))


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested values whose memory can be followed."""
    return filter(_has_storage, _tensors(values))


def _has_storage(value: Tensor) -> bool:
    return (
        not is_functorch_wrapped_tensor(value)
        and value.layout is torch.strided
        and not value.is_nested
    )


def _marked(value: Tensor) -> tuple[int, Any]:
    storage = value.untyped_storage()
    return storage._cdata, storage
