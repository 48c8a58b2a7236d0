"""Calls of blocks: seen while the network runs, and run again by themselves."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from acon_analysis.screen import counted
from acon_hooks.blocks.finding import WHOLE
from acon_hooks.engine.edits import Editing, Edits
from acon_hooks.engine.rows import Rows
from acon_hooks.engine.sites import Args, Kwargs, Site, SiteCall, Visitor
from acon_hooks.engine.trees import leaves
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import HookError
from acon_hooks.layers.axes import ChannelAxes
from acon_hooks.readings.batch import Key

#: An axis, and the sizes of the parts along it.
Parts = tuple[int, list[int]]


def block_sites(blocks: Mapping[str, nn.Module]) -> dict[str, Site]:
    """Return the site of every block, by the block's name."""
    return {name: Site("" if name == WHOLE else name, module) for name, module in blocks.items()}


def real_tensor(value: Any) -> Tensor | None:
    """Return the first tensor of a floating-point type in an output; None if there is none."""
    return next((tensor for _, tensor in leaves(value) if tensor.is_floating_point()), None)


@dataclass(frozen=True, eq=False)
class Instead:
    """A tensor that replaces a whole output."""

    reads_input: ClassVar[bool] = False
    value: Tensor

    def apply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the tensor."""
        return self.value


@dataclass(frozen=True, eq=False)
class BlockCall:
    """One call of a block, as it was in the network."""

    site: Site
    # Which of its calls within the forward pass.
    number: int
    # x (a copy), y: its first input and its first output that are real numbers, (N, ...).
    x: Tensor
    y: Tensor
    # Which argument x is; for a network of whole numbers (the ids of tokens) the embedding whose
    # output x is.
    at: int | str | Site
    # Copies of all arguments; none where they were not kept.
    args: Args = ()
    kwargs: Kwargs = field(default_factory=dict)
    # Which positions of x and of y hold data, bool, of length 1 along the channels; None: all.
    valid: tuple[Tensor | None, Tensor | None] = (None, None)
    # Of an argument that is a list of tensors, which x is joined from: the axis and their sizes.
    parts: Parts | None = None

    def run(self, x: Tensor, edits: Edits | None = None) -> Tensor:
        """Run the block by itself on another x, which it may overwrite; return its y."""
        args, kwargs = copy.deepcopy((self.args, self.kwargs))
        plan = dict(edits or {})
        given = x if self.parts is None else list(torch.split(x, self.parts[1], self.parts[0]))
        if isinstance(self.at, Site):
            plan[self.at] = Instead(x)
        elif isinstance(self.at, int):
            args = (*args[: self.at], given, *args[self.at + 1 :])
        else:
            kwargs[self.at] = given
        with visiting(self.site.module, plan, Editing(plan)):
            y = real_tensor(self.site.module(*args, **kwargs))
        assert y is not None
        return y

    def masked(self, rows: Rows, axes: tuple[int, int]) -> "BlockCall":
        """Return the call with `valid` of a batch; axes are the channel axes of x and y."""
        at = self.at.name if isinstance(self.at, Site) else self.site.name
        pairs = zip((at, self.site.name), (self.x, self.y), axes, strict=True)
        try:
            x, y = (_positions(rows, name, value, axis) for name, value, axis in pairs)
        except ValueError as error:
            raise HookError(str(error)) from error
        return replace(self, valid=(x, y))

    def require_samples(self, count: int) -> None:
        """Raise a HookError unless each row of x belongs to one of so many samples."""
        if len(self.x) != count:
            raise HookError(
                f"its input {_of(self.x)} has {counted(len(self.x), 'row')} for "
                f"{counted(count, 'sample')}, so its first axis is not that of the samples: "
                "measure a module around it"
            )

    def size(self) -> int:
        """Return the bytes of x and of the arguments."""
        return self.x.nbytes + sum(value.nbytes for _, value in leaves((self.args, self.kwargs)))


def _positions(rows: Rows, name: str, value: Tensor, axis: int) -> Tensor | None:
    """Return which positions of a tensor hold data, of length 1 along the channels."""
    axis %= value.ndim
    found = rows.positions(name, value.shape, axis)
    if found is None:
        return None
    shape = [size for at, size in enumerate(value.shape) if at != axis]
    return found.reshape(shape).unsqueeze(axis).to(value.device)


def _joined(value: Any) -> tuple[Tensor, Parts | None] | None:
    """Return a copy of a tensor of real numbers, or a list of such joined; None without a fit."""
    if isinstance(value, Tensor):
        return (value.clone(), None) if value.is_floating_point() else None
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(one, Tensor) and one.is_floating_point() for one in value):
        return None
    shapes = [one.shape for one in value]
    if len({len(shape) for shape in shapes}) > 1 or len(shapes[0]) < 2:
        return None
    differ = [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]
    if differ[1:] or differ == [0]:
        return None
    axis = differ[0] if differ else 1
    return torch.cat(list(value), axis), (axis, [one.shape[axis] for one in value])


class Calls(Visitor):
    """Hands on calls of blocks to `seen`, with their inputs as they were before the block ran."""

    def __init__(self, seen: Callable[[BlockCall], None], embeddings: Iterable[Site] = ()) -> None:
        self.seen = seen
        # Their first output is the input of a network of whole numbers.
        self.embeddings = frozenset(embeddings)
        # Whether calls get copies of all arguments, so that they can be run again.
        self.keep = True
        # Why calls were not handed on, by (module path, number).
        self.unread: dict[Key, str] = {}
        self._open: dict[Key, tuple[Any, ...]] = {}
        self._embedded: tuple[Site, Tensor] | None = None

    def before(self, call: SiteCall) -> None:
        """Copy the arguments."""
        if call.site in self.embeddings:
            return
        named = [*enumerate(call.args), *call.kwargs.items()]
        found = ((at, one) for at, one in ((at, _joined(v)) for at, v in named) if one is not None)
        at, (x, parts) = next(found, (None, (None, None)))
        args, kwargs = call.args, call.kwargs
        if at is not None:  # x is copied by itself
            args = tuple(None if index == at else value for index, value in enumerate(args))
            kwargs = {name: None if name == at else value for name, value in kwargs.items()}
        kept = copy.deepcopy((args, kwargs)) if self.keep else ((), {})
        self._open[call.site.name, call.number] = at, x, parts, *kept

    def after(self, call: SiteCall, output: Any) -> None:
        """Hand on the call."""
        if call.site in self.embeddings:
            if self._embedded is None:
                self._embedded = Site(call.site.name, call.site.module, call.number), output.clone()
            return
        key = call.site.name, call.number
        at, x, parts, args, kwargs = self._open.pop(key)
        if x is None and not call.site.name and self._embedded is not None:
            at, x = self._embedded
        y = real_tensor(output)
        reason = _unfit(x, y)
        if x is None or y is None or reason:
            self.unread[key] = reason
            return
        self.seen(BlockCall(call.site, call.number, x, y, at, args, kwargs, parts=parts))

    def unseen(self, call: SiteCall, reason: str) -> None:
        """Note why a call cannot be seen."""
        self.unread[call.site.name, call.number] = reason

    def fixed_axis(self, call: SiteCall) -> int:
        """Return the channel axis: samples may differ in length."""
        return call.site.axis

    def end(self) -> None:
        """Forget the forward pass."""
        self.abort()

    def abort(self) -> None:
        """Forget the forward pass."""
        self._open.clear()
        self._embedded = None


def _unfit(x: Tensor | None, y: Tensor | None) -> str:
    """Return why a call is no map of real vectors, sample by sample; empty if it is one."""
    if x is None:
        return (
            "no argument is a tensor of real numbers, or a list of some that are alike on all axes "
            "but one"
        )
    if y is None:
        return "it returns no tensor of real numbers"
    if y.numel() == 1 and len(x) > 1:
        return (
            "it returns one number for all samples of a batch, such as their loss, where one row a "
            "sample is needed; let it return logits"
        )
    if x.ndim < 2 or y.ndim < 2 or len(x) != len(y):
        return f"samples are not the first axis of its input and output: {_of(x)} to {_of(y)}"
    return ""


def _of(value: Tensor) -> str:
    return str(tuple(value.shape))


@dataclass
class FirstCall:
    """A call in the first batch, and what it shows."""

    call: BlockCall
    # Channel axes of x and y.
    axes: tuple[int, int]
    # The uses of activation layers in it, in order of execution.
    inside: list[Key]


class FirstCalls(Calls):
    """Looks at the first batch: where channels are, and which activations run in which block."""

    def __init__(
        self, blocks: Iterable[Site], layers: Iterable[Site], embeddings: Iterable[Site]
    ) -> None:
        super().__init__(self._note, embeddings)
        self.blocks = frozenset(blocks)
        self.layers = {(site.module, site.function): site.name for site in layers}
        self.found: dict[Key, FirstCall] = {}
        self._axes = ChannelAxes()
        self._inside: dict[Key, list[Key]] = {}
        self._of_inputs: dict[Key, tuple[int, bool]] = {}

    def begin(self) -> None:
        """Follow the channels."""
        self._axes.start()

    def before(self, call: SiteCall) -> None:
        """Note the channel axis of a block's input."""
        if call.site in self.blocks:
            super().before(call)
            key = call.site.name, call.number
            self._inside[key] = []
            x = real_tensor([*call.args, *call.kwargs.values()])
            if x is not None:
                self._of_inputs[key] = self._axes.axis_of(x)

    def after(self, call: SiteCall, output: Any) -> None:
        """Note which activation has run, or hand on the call of a block."""
        layer = self.layers.get((call.site.module, call.site.function))
        if layer is not None:
            for inside in self._inside.values():
                inside.append((layer, call.number))
        if call.site in self.blocks or call.site in self.embeddings:
            super().after(call, output)
            self._inside.pop((call.site.name, call.number), None)

    def _note(self, call: BlockCall) -> None:
        """Keep a call of the first batch."""
        key = call.site.name, call.number
        x_axis, x_known = self._of_inputs.get(key, (call.x.ndim - 1, isinstance(call.at, Site)))
        y_axis, y_known = self._axes.axis_of(call.y)
        if call.x.ndim == call.y.ndim and x_known != y_known:
            x_axis = y_axis = x_axis if x_known else y_axis
        kept = replace(call, y=call.y.clone())
        self.found[key] = FirstCall(kept, (x_axis, y_axis), self._inside[key])

    def abort(self) -> None:
        """Forget the forward pass."""
        super().abort()
        self._axes.stop()
        self._inside.clear()


def embeddings_of(model: nn.Module) -> list[Site]:
    """Return the embeddings of a network, one of which may be where real numbers begin."""
    found = ((name, part) for name, part in model.named_modules())
    return [Site(name, part) for name, part in found if isinstance(part, nn.Embedding)]


def first_calls(
    model: nn.Module, blocks: Iterable[Site], layers: Iterable[Site], run: Callable[[], Any]
) -> FirstCalls:
    """Look at blocks while `run` runs the first batch; return calls as they end."""
    blocks, layers = list(blocks), list(layers)
    known = {site.module for site in blocks}  # an activation may be a block itself
    inner = [site for site in layers if site.function or site.module not in known]
    look = FirstCalls(blocks, layers, embeddings := embeddings_of(model))
    with torch.no_grad(), visiting(model, [*blocks, *embeddings, *inner], look):
        run()
    return look
