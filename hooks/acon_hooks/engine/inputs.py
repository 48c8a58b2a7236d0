"""How samples enter a network: what it is called with, and which of their positions hold data."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.screen import counted
from acon_analysis.usercode import module_label
from acon_hooks.engine.items import Signature, split_item, whole_item
from acon_hooks.engine.rows import Valid
from acon_hooks.engine.trees import count_samples, described, sample_axis
from acon_hooks.guards import unwrap

#: Calls a network on a batch: (model, batch) -> output.
Forward = Callable[[Any, Any], Any]
#: Names the key of a batch, or returns, for a batch, which positions hold data: bool (N, T).
OneMask = str | int | Callable[[Any], Any]
#: One for all layers, or by the module path of the layers that it holds for.
Mask = OneMask | Mapping[str, OneMask]


@dataclass(frozen=True)
class InputOptions:
    """How samples enter a network."""

    signature: Signature = field(default_factory=Signature)
    # (model, batch) -> output. By default arguments are those of the signature.
    forward: Forward | None = None
    # Which positions hold data, True or 1, and which are padded: the key of the batch, or a
    # callable that is given the batch; (N, T). Where parts of a network have positions of their
    # own: such masks by module path, {"encoder": "attention_mask", "decoder": ...}.
    mask: Mask | None = None
    # Of the samples in tensors that are given to the network.
    sample_axis: int = 0

    def __post_init__(self) -> None:
        if self.forward is not None and not callable(self.forward):
            raise UsageError(
                f"forward must be a callable (model, batch) -> output; got {self.forward!r}"
            )
        for mask in self.masks.values():
            if not callable(mask) and not isinstance(mask, str | int):
                raise UsageError(f"mask must be a key of the batch or a callable; got {mask!r}")
            if isinstance(mask, str) and "padding" in mask:
                raise UsageError(
                    f"mask {mask!r} looks like PyTorch's padding masks, which are True where a "
                    "position is padded; mask= is True where it holds data: give "
                    f"mask=lambda batch: ~batch[{mask!r}]"
                )
        if self.sample_axis < 0:
            raise UsageError(f"sample_axis must be 0 or more; got {self.sample_axis!r}")

    @property
    def masks(self) -> dict[str, OneMask]:
        """The masks by module path; one for all layers has the path ""."""
        if self.mask is None:
            return {}
        return dict(self.mask) if isinstance(self.mask, Mapping) else {"": self.mask}

    @property
    def identity(self) -> dict[str, Any]:
        """What of it makes two captures the same, where it is not the default."""
        masks = {path: _name(mask) for path, mask in self.masks.items()}
        mask = masks.get("") if set(masks) == {""} else masks or None
        forward = None if self.forward is None else _name(self.forward)
        found = {"forward": forward, "mask": mask, "sample_axis": self.sample_axis or None}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def plain(self) -> bool:
        """Whether nothing but the default is asked for."""
        return not self.identity

    def split(self, item: Any, what: str, *, batch: bool = False) -> tuple[Any, Any]:
        """Return what the network is given of an item or batch, and its label(s)."""
        if self.forward is not None:
            return whole_item(item, what, batch=batch)
        for mask in self.masks.values():
            if isinstance(item, Mapping) and isinstance(mask, str) and mask not in item:
                keys = [str(key) for key in item]
                raise UsageError(f"mask: {what} has no key {mask!r}; {closest(mask, keys)}")
        return split_item(item, what, self.signature, batch=batch, besides=self.masks.values())

    def call(self, model: nn.Module, inputs: Any) -> Any:
        """Run a network."""
        if self.forward is not None:
            return self.forward(model, inputs)
        if isinstance(inputs, tuple):
            return model(*inputs)
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)

    def valid(self, batch: Any, inputs: Any) -> Valid:
        """Return which positions of a batch hold data; none without a mask."""
        count = count_samples(inputs, self.sample_axis)
        return {path: self._valid(mask, batch, count) for path, mask in self.masks.items()}

    def _valid(self, mask: OneMask, batch: Any, count: int) -> Tensor:
        """Return which positions hold data by one mask, bool (N, T)."""
        name = getattr(mask, "__qualname__", mask)
        found = torch.as_tensor(mask(batch) if callable(mask) else _looked_up(batch, mask))
        if not callable(mask) and found.ndim == 2 and sample_axis(found, count, self.sample_axis):
            found = found.T
        if found.ndim != 2 or len(found) != count:
            raise UsageError(
                f"mask {name!r} has the shape {tuple(found.shape)}; expected is (N, T) for "
                f"N = {counted(count, 'sample')} and T positions"
            )
        odd = (found != 0) & (found != 1)
        if bool(odd.any()):
            raise UsageError(
                f"mask {name!r} holds other numbers than 0 (padded) and 1 (data), such as "
                f"{found[odd][0].item()}"
            )
        return found.bool()


def _looked_up(batch: Any, key: Any) -> Any:
    """Return what a batch holds under a key."""
    found = isinstance(batch, Mapping) and key in batch
    if isinstance(batch, tuple | list) and isinstance(key, int):
        found = -len(batch) <= key < len(batch)
    if not found:
        raise UsageError(
            f"mask {key!r} is no key of the batch, which is {described(batch)}; a callable, "
            "mask=lambda batch: ..., can make one"
        )
    return batch[key]


def input_options(
    model: nn.Module, forward: Forward | None = None, mask: Mask | None = None, sample_axis: int = 0
) -> InputOptions:
    """Return how samples enter a model; see `InputOptions`."""
    return InputOptions(Signature.of(unwrap(model)), forward, mask, sample_axis)


def _name(value: Any) -> Any:
    """Return an option as an identity holds it: a callable is known by its name and its code."""
    if not callable(value):
        return value
    if isinstance(value, partial):
        return f"{_name(value.func)} with {_plain([*value.args, *sorted(value.keywords.items())])}"
    value = inspect.unwrap(value)
    function = value if inspect.isroutine(value) else type(value).__call__
    code = getattr(function, "__code__", None)
    if code is None:  # not written in Python
        return _qualified(value)
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    steps = repr([_steps(code), _plain([function.__defaults__, *cells])])
    return f"{_qualified(value)} (code {sha256(steps.encode()).hexdigest()[:12]})"


def _qualified(value: Any) -> str:
    """Return module and name of a callable, or of its class; the file's name for user code."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{module_label(kind.__module__)}.{kind.__qualname__}"


def _steps(code: CodeType) -> list[Any]:
    """Return what code does, without its file and its lines."""
    found = [code.co_code.hex(), code.co_names, code.co_varnames]
    for const in code.co_consts:
        if isinstance(const, CodeType):
            found.append(_steps(const))
        else:  # a set's order is another one in each process
            found.append(sorted(map(repr, const)) if isinstance(const, frozenset) else repr(const))
    return found


def _plain(value: Any) -> Any:
    """Return numbers and texts in a value, and the names of functions; None for other objects."""
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if callable(value):
        return _qualified(value)
    return value if isinstance(value, str | bytes | int | float) else None
