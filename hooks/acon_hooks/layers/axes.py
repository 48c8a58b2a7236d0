"""Which axis holds the channels: followed from function to function through a forward pass."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.weak import WeakTensorKeyDictionary

from acon_hooks.engine.functions import Listener, function_name
from acon_hooks.layers.elementwise import channel_axis
from acon_hooks.layers.scan import Layer

#: The axes of the channels: one, or several where channels were taken apart; none is not known.
Axes = tuple[int, ...]

#: Functions whose result has its channels on the last axis, whatever the axes of the input mean.
_LAST = frozenset({
    "linear", "embedding", "layer_norm", "rms_norm", "lstm", "gru", "rnn_tanh", "rnn_relu",
    "multi_head_attention_forward", "addmm", "scaled_dot_product_attention",
})  # fmt: skip
#: Products of matrices: the last axis is that of the second factor.
_PRODUCTS = frozenset({"matmul", "mm", "__matmul__", "__rmatmul__", "bmm"})
#: Functions whose result has its channels after the axis of the samples.
_FIRST = frozenset({"batch_norm", "instance_norm", "group_norm"})
#: Functions that move values without changing them, or reduce some axes.
REARRANGING = frozenset({
    "reshape", "view", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "squeeze", "unsqueeze", "expand", "expand_as", "view_as",
    "reshape_as", "chunk", "split", "tensor_split", "unbind", "select", "narrow",
    "__getitem__", "__get__", "roll", "flip", "repeat", "repeat_interleave", "index_select",
    "diagonal", "unfold", "t", "adjoint", "mean", "sum", "amax", "amin",
})  # fmt: skip
#: Functions whose axes are named by a formula.
_UNKNOWN = frozenset({"einsum", "tensordot"})


class ChannelAxes:
    """Knows the channel axes of every tensor of a forward pass, while it listens.

    Convolutions and batch normalisations put the channels on axis 1, linear layers, layer
    normalisations, embeddings and recurrent layers on the last axis. Elementwise functions keep
    the axis; what moves axes is applied to the channels' numbers too, which shows where they go.
    Channels may be taken apart (heads and their features, anchors and classes): they have several
    axes then.
    """

    def __init__(self) -> None:
        self._axes = WeakTensorKeyDictionary()
        self._unknown = 1
        self._listener = Listener(self._follow)

    def start(self, sample_axis: int = 0) -> None:
        """Follow the functions that are called from now on; the samples are on `sample_axis`."""
        self._unknown = 1 if sample_axis == 0 else -1
        self._listener.on()

    def stop(self) -> None:
        """Follow no longer."""
        self._listener.off()
        self._axes = WeakTensorKeyDictionary()

    def axis(self, layer: Layer, tensors: Sequence[Tensor]) -> tuple[int, bool]:
        """Return `axis_of` an activation's input, the first of its arguments `tensors`."""
        x = tensors[0]
        if layer.function is None:
            own = channel_axis(layer.module, x.ndim)
        else:
            weights = tensors[1].numel() if layer.function[0] == "prelu" else 0
            # PReLU with a slope for each channel has them on axis 1.
            own = 1 if weights > 1 else None
        return (own, True) if own is not None else self.axis_of(x)

    def axis_of(self, x: Tensor) -> tuple[int, bool]:
        """Return the channel axis of a tensor, and whether it is known."""
        if x.ndim < 3:
            return min(1, x.ndim - 1), True
        found = self._known(x)
        # Of several axes the last; without evidence axis 1, or the last one where the samples are
        # not on axis 0.
        return (found[-1], len(found) == 1) if found else (self._unknown % x.ndim, False)

    def _known(self, x: Any) -> Axes:
        return self._axes[x] if _plain(x) and x in self._axes else ()

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        name = function_name(func)
        before = [(x, self._known(x)) for x in _tensors((*args, *kwargs.values()))]
        shapes = [tuple(x.shape) for x, _ in before]
        out = func(*args, **kwargs)
        made = [y for y in _tensors((out,)) if y.is_floating_point()]
        if made and before:
            with torch._C.DisableTorchFunction():
                self._note(name, func, args, kwargs, before, shapes, made)
        return out

    def _note(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        before: list[tuple[Tensor, Axes]],
        shapes: list[tuple[int, ...]],
        made: list[Tensor],
    ) -> None:
        """Write down the axes of what a function has returned."""
        if name == "einsum" and len(before) == 1:  # it moves or reduces axes
            found = _moved(lambda x: func(args[0], x), (before[0][0],), {}, before)
        elif name in _UNKNOWN:
            return
        elif name in REARRANGING:
            found = _moved(func, args, kwargs, before)
        else:
            axis = _set_by(name, made[0], before)
            if axis is None:
                dim = (
                    kwargs.get("dim", args[1] if len(args) > 1 else 0) if name == "stack" else None
                )
                axes = _kept(made[0], before, shapes, dim)
            else:
                axes = (axis,)
            found = [axes if y.ndim == made[0].ndim else () for y in made]
        for y, axes in zip(made, found, strict=False):
            if axes:
                self._axes[y] = axes


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor) and not is_functorch_wrapped_tensor(value)


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among some values, and in tuples and lists among them."""
    for value in values:
        if _plain(value):
            yield value
        elif isinstance(value, tuple | list):
            yield from (inner for inner in value if _plain(inner))


def _set_by(name: str, y: Tensor, before: list[tuple[Tensor, Axes]]) -> int | None:
    """Return the axis that a function puts the channels on, if it decides that."""
    if name.startswith("conv"):
        spatial = int(name[-2]) if name[-1] == "d" and name[-2].isdigit() else y.ndim - 2
        return max(0, y.ndim - spatial - 1)
    if name in _FIRST and y.ndim > 1:
        return 1
    if name in _LAST:
        return y.ndim - 1
    if name in _PRODUCTS and len(before) > 1:
        second, axes = before[0 if name == "__rmatmul__" else 1]
        if isinstance(second, nn.Parameter) or second.ndim == 2 or axes == (second.ndim - 1,):
            return y.ndim - 1
    return None


def _kept(
    y: Tensor, before: list[tuple[Tensor, Axes]], shapes: list[tuple[int, ...]], stacked: int | None
) -> Axes:
    """Return the axes that a function leaves where the first input with known axes has them."""
    for (_, axes), shape in zip(before, shapes, strict=True):
        if not axes:
            continue
        if stacked is not None:
            return tuple(axis + (stacked % y.ndim <= axis) for axis in axes)
        if len(shape) == y.ndim:
            return axes
        if len(shape) < y.ndim and axes[-1] == len(shape) - 1:  # broadcast
            return tuple(axis + y.ndim - len(shape) for axis in axes)
    return ()


def _moved(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    before: list[tuple[Tensor, Axes]],
) -> list[Axes]:
    """Apply a function to the numbers of the channels; return the axes along which they differ."""
    source = next(((x, axes) for x, axes in before if axes), None)
    if source is None or not args or source[0] is not args[0]:
        return []
    x, axes = args[0], source[1]
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    numbers = torch.arange(math.prod(shape), dtype=torch.float32, device=x.device)
    try:
        out = func(numbers.reshape(shape).expand(x.shape), *args[1:], **kwargs)
    except Exception:  # what works on the values need not work on the numbers
        return []
    return [_varying(y, first=0 in axes) for y in _tensors((out,))]


def _varying(numbers: Tensor, *, first: bool) -> Axes:
    """Return the axes along which numbers differ; the first one, that of the samples, if asked."""
    return tuple(
        axis
        for axis, size in enumerate(numbers.shape)
        if size > 1 and (axis or first) and bool((numbers != numbers.narrow(axis, 0, 1)).any())
    )
