"""What is visited, and by whom: sites of a network, their calls, and visitors."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from acon_hooks.engine.aliases import Given

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A part of a network that has inputs and an output: a module, or a call of a function."""

    # Its name in `named_modules()`, or of a function `MODULE:FUNCTION#NUMBER`.
    name: str
    # The part itself, or the innermost module that calls the function.
    module: nn.Module = field(repr=False)
    # Which of its uses within one forward pass is visited; None for all.
    call: int | None = None
    # Channel axis of its input and output.
    axis: int = 1
    # Whether it is a part of another site: its calls are not counted, not compared between forward
    # passes, and may happen outside of one.
    inner: bool = False
    argument: int | str | None = None
    # The function, and which of its calls within one call of the module; None for the module
    # itself. The function in a further call of the module is a further call of the site.
    function: tuple[str, int] | None = None
    # Whether that function is a product of two tensors that is visited with both, not the last step
    # of an activation of one tensor.
    product: bool = False


def split_name(name: str) -> tuple[str, tuple[str, int] | None]:
    """Return the module in a site's name, and of a function its name and number."""
    owner, colon, rest = name.rpartition(":")
    function, mark, number = rest.partition("#")
    if not (colon and mark and number.isdecimal()):
        return name, None
    return owner, (function, int(number))


class SiteCall(NamedTuple):
    """One call of a site."""

    site: Site
    # Which of its calls within the forward pass; 0 for inner sites.
    number: int
    # A site that works in place overwrites them.
    args: Args
    kwargs: Kwargs
    # The tensors among them as they were before the call, after it, for a visitor that replaces.
    given: tuple[Given, ...] = ()

    def tensors(self) -> Iterator[Tensor]:
        """Yield the arguments that are tensors."""
        return (v for v in (*self.args, *self.kwargs.values()) if isinstance(v, Tensor))

    def input_before(self) -> Tensor | None:
        """Return the site's input as it was before the call; None where nothing is given."""
        if not self.given:
            return None
        keys = (*range(len(self.args)), *self.kwargs)
        values = zip(keys, (*self.args, *self.kwargs.values()), strict=True)
        tensors = [key for key, value in values if isinstance(value, Tensor)]
        wanted = self.site.argument
        return self.given[tensors.index(wanted) if wanted in tensors else 0].before


class Visitor:
    """Looks at sites, or changes what they return; an exception ends the forward pass."""

    __slots__ = ()

    def replaces(self, site: Site) -> bool:
        """Return whether `after` may replace a site's output."""
        return False

    def begin(self) -> None:
        """Prepare for a forward pass of the model."""

    def before(self, call: SiteCall) -> None:
        """See the arguments of a site before it runs."""

    def after(self, call: SiteCall, output: Any) -> Any:
        """See the output of a site; return None, or a new one, also for an overwritten input."""

    def unseen(self, call: SiteCall, reason: str) -> None:
        """Learn that tensors of a call cannot be read; the site is left alone from then on."""

    def fixed_axis(self, call: SiteCall) -> int | None:
        """Return the only axis of fixed size among forward passes; None: all but the samples'."""
        return None

    def raised(self, site: Site) -> None:
        """Learn that the forward of a site has raised an exception."""

    def end(self) -> None:
        """Finish a forward pass that has succeeded."""

    def ended(self) -> None:
        """Go on after a forward pass that has been counted; the model may be run `again`."""

    def abort(self) -> None:
        """Forget a forward pass that has failed or was interrupted."""
