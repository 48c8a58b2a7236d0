"""Where the factors of a product come from: followed from function to function on the first batch.

A product of two tensors of the data is a layer if one factor comes from an elementwise activation,
which is then its gate, or if both come from linear operators. Factors from a reciprocal square
root, a division by data or a softmax make it none: norms and attention are no gates.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from acon_hooks.engine.function_calls import FunctionSites
from acon_hooks.engine.functions import ELEMENTWISE, Listener, site_function
from acon_hooks.engine.sites import Site
from acon_hooks.engine.sources import JOINS
from acon_hooks.layers.functions import DataDependence, tensors_in, written_by

#: Linear operators of one tensor of the data and of weights.
_LINEAR = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "tensordot",
})  # fmt: skip
#: Functions of one tensor of the data that keep its elements apart and in order, up to constants.
_AFFINE = frozenset({
    "add", "sub", "rsub", "mul", "div", "neg", "batch_norm", "dropout", "alpha_dropout",
    "feature_dropout", "dropout1d", "dropout2d", "dropout3d", "contiguous", "clone", "to",
    "type_as", "float", "double", "half", "bfloat16", "reshape", "flatten",
})  # fmt: skip
#: What norms, divisions and attention multiply with.
_NO_FACTOR = frozenset({
    "rsqrt", "reciprocal", "rdiv", "softmax", "log_softmax", "softmin", "normalize",
})  # fmt: skip
#: Gates that are preferred where both factors come from an activation.
_GATES = ("sigmoid", "hardsigmoid")


Kind = Literal["elementwise", "affine", "linear", "blocked"]


class View(NamedTuple):
    """Which elements of a storage a tensor shows."""

    storage: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, x: Tensor) -> "View":
        """Return the view that a tensor is."""
        return cls(x.untyped_storage()._cdata, x.size(), x.stride(), int(x.storage_offset()))


@dataclass(frozen=True, eq=False)
class Origin:
    """What made a tensor."""

    # "affine": a function of `_AFFINE`.
    kind: Kind
    made: View
    # What it was made of, as it was before; None of a linear operator.
    parent: Tensor | None = None
    # What made the parent; None also where that is a part of what was made, or in another order.
    above: "Origin | None" = None
    # How often the parent's storage had been written to.
    version: int = 0
    # Of an activation, the call of its function, and which call of that site it is.
    site: Site | None = None
    number: int = 0
    # Which tensor argument of the site the parent is.
    argument: int = 0
    # Whether that site overwrites it.
    in_place: bool = False


@dataclass(frozen=True, eq=False)
class Gated:
    """How a product of two tensors is read."""

    # Which of the tensors is the gate; None where both come from linear operators.
    gate: int | None
    # The elementwise call that makes the gate.
    source: Origin | None


class Provenance:
    """Knows what made the tensors of a forward pass, while it and `data` listen."""

    def __init__(self, data: DataDependence, functions: FunctionSites) -> None:
        self.data, self.functions = data, functions
        self._listener = Listener(self._follow)
        self._origins: dict[int, tuple[StorageWeakRef, Origin]] = {}
        self._writes: Counter[int] = Counter()
        self._calls: Counter[str] = Counter()

    def start(self) -> None:
        """Follow the functions of a forward pass."""
        self.stop()
        self._listener.on()

    def stop(self) -> None:
        """Follow no longer."""
        self._listener.off()
        self._origins, self._writes, self._calls = {}, Counter(), Counter()

    def gated(self, tensors: tuple[Tensor, ...]) -> Gated | None:
        """Return how the product of two tensors is read; None where it is no layer."""
        known = list(tensors_in(tensors))  # the others have no memory to follow
        if len(tensors) != 2 or len(known) != 2 or not all(self._usable(x) for x in tensors):
            return None
        origins = [self._origin(x) for x in tensors]
        if any(o is not None and _root(o).kind == "blocked" for o in origins):
            return None
        sources = {i: o for i, x in enumerate(tensors) if (o := self._source(x)) is not None}
        if not sources:
            both = all(o is not None and _root(o).kind == "linear" for o in origins)
            return Gated(None, None) if both else None
        chosen = max(sources, key=lambda i: (_switches(sources[i]), -tensors[i].numel(), i))
        return Gated(chosen, sources[chosen])

    def module(self, site: Site, x: Tensor, output: Tensor) -> None:
        """Note that a module is an activation that made a tensor of another."""
        origin = self._elementwise(site, x, output)
        found = self._origin(output)
        if found is None or found.site is None or found.site.module is not site.module:
            self._note(output, origin)

    def _usable(self, x: Tensor) -> bool:
        return x.is_floating_point() and x.ndim > 0 and self.data.depends(x)

    def _origin(self, x: Tensor) -> Origin | None:
        """Return what made a tensor, or the tensor that it is a view of."""
        reference, origin = self._origins.get(View.of(x).storage, (None, None))
        if reference is None or origin is None or _gone(reference):
            return None
        return origin if _shows_only(x, origin.made) else None

    def _above(self, x: Tensor) -> Origin | None:
        """Return what made a tensor; None if it is a part of that, or in another order."""
        origin = self._origin(x)
        linear = origin is not None and _root(origin).kind in ("linear", "blocked")
        return origin if origin is not None and (linear or in_order(x, origin.made)) else None

    def _source(self, x: Tensor) -> Origin | None:
        """Return the elementwise call that a tensor comes from, if its input is still there."""
        origin = self._origin(x)
        if origin is not None and origin.kind != "elementwise" and not in_order(x, origin.made):
            return None
        while origin is not None and origin.kind == "affine":
            origin = origin.above
        if origin is None or origin.kind != "elementwise" or origin.parent is None:
            return None
        written = self._writes[View.of(origin.parent).storage] != origin.version
        return None if written else origin

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a function, and note what made its results."""
        name = site_function(func)
        with torch._C.DisableTorchFunction():
            moving = [x for x in tensors_in((args, kwargs)) if self.data.depends(x)]
            written = {View.of(x).storage for x in written_by(func, args, kwargs)}
            kind, of = self._kind(name, moving, args), moving[0] if moving else None
            source = self._source_of_pieces() if name in JOINS else None
            if source is not None:
                kind, of = "elementwise", source
            step = None if of is None else self._step(kind, of, written)
        out = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            for storage in written:
                self._writes[storage] += 1
            shown = {View.of(x).storage for x in moving} - written
            for y in tensors_in(out):
                if View.of(y).storage not in shown:  # no view
                    self._note(y, None if step is None else step(y))
        return out

    def _source_of_pieces(self) -> Tensor | None:
        """Return the tensor that both factors of the product that runs are made of, if one is."""
        call = self.functions.running
        if call is None or len(call.factors) < 2 or not all(map(self.data.depends, call.factors)):
            return None
        source = call.tensors[0]
        return source if self.functions.sources.common(*call.factors) is source else None

    def _step(
        self, kind: Kind | None, x: Tensor, written: set[int]
    ) -> Callable[[Tensor], Origin | None]:
        """Prepare the origin of what a function is about to make of a tensor."""
        above, call = self._above(x), self.functions.running
        in_place = View.of(x).storage in written
        parent = x.clone() if in_place and kind in ("elementwise", "affine") else x
        argument = 0
        if call is not None:
            argument = next((i for i, given in enumerate(call.tensors) if given is x), 0)

        def step(y: Tensor) -> Origin | None:
            if kind == "elementwise" and call is not None:
                found = self._elementwise(call.site, parent, y, argument)
                return replace(found, above=above, in_place=in_place)
            if kind == "affine" and x.numel() == y.numel():
                version = self._writes[View.of(parent).storage]
                return Origin("affine", View.of(y), parent, above, version)
            return Origin(kind, View.of(y)) if kind in ("linear", "blocked") else None

        return step

    def _kind(self, name: str, moving: list[Tensor], args: tuple[Any, ...]) -> Kind | None:
        """Return what a function makes of the tensors of the data among its arguments."""
        if name in _NO_FACTOR:
            return "blocked"
        if name == "pow" and len(args) > 1 and isinstance(args[1], float | int) and args[1] < 0:
            return "blocked"
        if name == "div" and moving and (len(moving) > 1 or moving[0] is not args[0]):
            return "blocked"
        if len(moving) != 1:
            return None
        if not moving[0].is_floating_point():
            return "blocked"  # a mask
        if name in ELEMENTWISE:
            return "elementwise"
        if name in _LINEAR:
            return "linear"
        return "affine" if name in _AFFINE else None

    def _elementwise(self, site: Site, x: Tensor, y: Tensor, argument: int = 0) -> Origin:
        """Return the origin of what a call of a site has made of a tensor."""
        number = self._calls[site.name]
        self._calls[site.name] += 1
        version = self._writes[View.of(x).storage]
        return Origin("elementwise", View.of(y), x, self._above(x), version, site, number, argument)

    def _note(self, y: Tensor, origin: Origin | None) -> None:
        """Keep what made a tensor while its storage lives."""
        gone = [key for key, (reference, _) in self._origins.items() if _gone(reference)]
        for key in [*gone, View.of(y).storage]:
            self._origins.pop(key, None)
        if origin is not None:
            storage = y.untyped_storage()
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self._origins[storage._cdata] = reference, origin


def _gone(reference: StorageWeakRef) -> bool:
    """Return whether a storage is freed."""
    return bool(reference.expired())  # type: ignore[no-untyped-call]


def _switches(origin: Origin) -> bool:
    """Return whether an elementwise call is a gate before others."""
    function = None if origin.site is None else origin.site.function
    return function is not None and function[0] in _GATES


def _root(origin: Origin) -> Origin:
    """Return what made a tensor, before affine functions of it."""
    while origin.kind == "affine" and origin.above is not None:
        origin = origin.above
    return origin


def _shows_only(x: Tensor, made: View) -> bool:
    """Return whether all elements of a tensor are among those of a view of its storage."""
    if in_order(x, made):
        return True
    last = sum((n - 1) * step for n, step in zip(made.size, made.stride, strict=True))
    if (
        x.numel() == 0
        or last + 1 == made.size.numel() == x.untyped_storage().nbytes() // x.itemsize
    ):
        return True  # it is the whole storage
    own = View.of(x)
    seen = torch.zeros(x.untyped_storage().nbytes() // x.itemsize, dtype=torch.bool)
    seen.as_strided(made.size, made.stride, made.offset).fill_(True)
    return bool(seen.as_strided(own.size, own.stride, own.offset).all())


def in_order(x: Tensor, made: View) -> bool:
    """Return whether a tensor shows all elements of a view, in its order."""
    own = View.of(x)
    if own == made:
        return True
    if own.storage != made.storage or own.offset != made.offset or x.numel() != made.size.numel():
        return False
    try:
        return bool(x.as_strided(made.size, made.stride).view(x.size()).stride() == x.stride())
    except RuntimeError:  # no view of that size
        return False
