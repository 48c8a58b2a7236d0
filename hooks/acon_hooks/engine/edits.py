"""What replaces a site's output, and the visitor that does so.

``with visiting(model, edits, Editing(edits)): model(x)``
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import hardswish, relu

from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.errors import HookError


class Edit(Protocol):
    """What replaces a site's output."""

    @property
    def reads_input(self) -> bool:
        """Whether `apply` needs the site's input."""

    def apply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the new output, of y's shape; x is the first tensor argument before the call."""


#: What is edited in a forward pass, and how.
Edits = Mapping[Site, Edit]


@dataclass(frozen=True, eq=False)
class Resample:
    """What other samples had in the unchanged network: one edit for each batch."""

    # One row a sample, (samples, ...); may be a file that is mapped to memory.
    recorded: npt.NDArray[Any]
    # sample_id of each row, ascending, and the row of its donor.
    ids: npt.NDArray[np.int64]
    donors: npt.NDArray[np.int64]
    # Returns the edit that sets such rows, (N, ...), one for each sample of a batch.
    edit: Callable[[Tensor], Edit]

    def of(self, ids: Sequence[int]) -> Edit:
        """Return the edit for a batch of these samples, all of which must be recorded."""
        rows = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        if not np.array_equal(self.ids[rows], ids):
            missing = np.asarray(ids)[self.ids[rows] != ids][0]
            raise HookError(
                f"sample {missing} is not among those that were recorded: the data differ from one "
                "pass to the next"
            )
        return self.edit(torch.from_numpy(np.array(self.recorded[self.donors[rows]])))


#: A plan: what is edited, and how. The empty plan is the unchanged network.
EditPlan = Mapping[Site, Edit | Resample]


def edits_of(plan: EditPlan, ids: Sequence[int]) -> Edits:
    """Return the edits of a plan for a batch of samples."""
    return {
        site: edit.of(ids) if isinstance(edit, Resample) else edit for site, edit in plan.items()
    }


@dataclass(frozen=True, eq=False, kw_only=True)
class Form(ABC):
    """A fixed function of each value, on some channels; its tensors are taken to the dtype of x."""

    reads_input: ClassVar[bool] = True
    # Bool, (C,): the other channels keep their output. None for all channels.
    chosen: Tensor | None = None
    axis: int = 1

    def apply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y with the function of x on the chosen channels."""
        new = self.of(x)
        if self.chosen is None:
            return new
        return torch.where(_along(self.chosen, y, self.axis), new, y)

    @abstractmethod
    def of(self, x: Tensor) -> Tensor:
        """Return the function of x, on all channels."""

    def _like(self, values: Tensor, x: Tensor) -> Tensor:
        """View (C,) values along the channel axis of x, in its dtype."""
        return _along(values.to(x), x, self.axis)


@dataclass(frozen=True, eq=False)
class Line(Form):
    """A straight line: slope·x + intercept, (C,) each."""

    slope: Tensor
    intercept: Tensor

    def of(self, x: Tensor) -> Tensor:
        """Return the lines of x."""
        slope, intercept = (self._like(v, x) for v in (self.slope, self.intercept))
        return torch.addcmul(intercept, x, slope)


@dataclass(frozen=True, eq=False)
class TwoPiece(Line):
    """Two lines that meet at the hinge: slope·x + intercept + bend·relu(x - hinge), (C,) each."""

    bend: Tensor
    hinge: Tensor

    def of(self, x: Tensor) -> Tensor:
        """Return the two lines of x."""
        bend, hinge = (self._like(v, x) for v in (self.bend, self.hinge))
        return torch.addcmul(super().of(x), torch.relu(x - hinge), bend)


@dataclass(frozen=True, eq=False)
class Polynomial(Form):
    """A polynomial of the standardised input: Σ_k coefficients_k·z^k, z = (x - center)/scale."""

    # (C, degree + 1), that of the constant first; center and scale (C,).
    coefficients: Tensor
    center: Tensor
    scale: Tensor

    def of(self, x: Tensor) -> Tensor:
        """Return the polynomials of x, by Horner's rule."""
        z = (x - self._like(self.center, x)) / self._like(self.scale, x)
        *lower, total = (self._like(own, x) for own in self.coefficients.unbind(1))
        for own in reversed(lower):
            total = torch.addcmul(own, total, z)
        return total


#: Elementwise functions that every compiler of networks has.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "hardswish": hardswish}


@dataclass(frozen=True, eq=False)
class Function(Form):
    """The same function of `FUNCTIONS` on all channels."""

    name: str

    def of(self, x: Tensor) -> Tensor:
        """Return the function of x."""
        return FUNCTIONS[self.name](x)


@dataclass(frozen=True, eq=False)
class Mixed(Form):
    """Different forms on different channels; no channel is chosen in two of them."""

    # Their own axes do not count.
    parts: tuple[Form, ...]

    def of(self, x: Tensor) -> Tensor:
        """Return each channel's function of x; x itself where there is none."""
        y = x
        for part in self.parts:
            y = replace(part, axis=self.axis).apply(x, y)
        return y


@dataclass(frozen=True, eq=False)
class Hold:
    """A constant on some channels: 0, or their mean, whatever the input is."""

    reads_input: ClassVar[bool] = False
    # (C,); taken to the dtype and device of y.
    value: Tensor
    # Bool, (C,): the other channels keep their output.
    chosen: Tensor
    axis: int = 1

    def apply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y with the constants on the chosen channels."""
        chosen, value = (_along(v, y, self.axis) for v in (self.chosen, self.value.to(y)))
        return torch.where(chosen, value, y)


class Editing(Visitor):
    """Replaces outputs by `edits`, which may change between passes; each site has to run."""

    def __init__(self, edits: Edits) -> None:
        self.edits = edits
        self._edited: set[Site] = set()

    def replaces(self, site: Site) -> bool:
        """Return whether there is an edit of a site."""
        return site in self.edits

    def after(self, call: SiteCall, output: Any) -> Any:
        """Return the new output."""
        edit = self.edits.get(call.site)
        if edit is None:
            return None
        self._edited.add(call.site)
        where = f"layer {call.site.name!r} cannot be edited"
        if not isinstance(output, Tensor):
            raise HookError(f"{where}: it returns a {type(output).__name__}, not one tensor")
        if edit.reads_input and not call.given:
            raise HookError(
                f"{where}: {type(edit).__name__} needs its input, and no tensor is among its "
                "arguments"
            )
        x = call.input_before()
        return self.edit(call.site, edit, output if x is None else x, output)

    def unseen(self, call: SiteCall, reason: str) -> None:
        """Refuse to edit what cannot be seen."""
        if call.site in self.edits:
            raise HookError(f"layer {call.site.name!r} cannot be edited: {reason}")

    def fixed_axis(self, call: SiteCall) -> int:
        """Return the channel axis: edits are by channel."""
        return call.site.axis

    def edit(self, site: Site, edit: Edit, x: Tensor, y: Tensor) -> Tensor | None:
        """Return what an edit makes of one output; None leaves it as it is."""
        return edit.apply(x, y)

    def end(self) -> None:
        """Raise if an edit was not made."""
        left = [site for site in self.edits if site not in self._edited]
        self.abort()
        if left:
            call = "" if left[0].call is None else f" has no call {left[0].call}, or"
            raise HookError(
                f"layer {left[0].name!r}{call} did not run in this forward pass, so it could not "
                "be edited"
            )

    def abort(self) -> None:
        """Forget the forward pass."""
        self._edited.clear()


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """View (C,) values so that they broadcast along the channel axis of another tensor."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)
