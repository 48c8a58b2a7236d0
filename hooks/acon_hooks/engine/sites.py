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
    """A part of a network that has inputs and an output: a module, or a call of a function.

    Parameters
    ----------
    name : str
        Its name in `named_modules()`, or of a function `MODULE:FUNCTION#NUMBER`.
    module : Module
        The part itself, or the innermost module that calls the function.
    call : int or None
        Which of its uses within one forward pass is visited; None for all.
    axis : int
        Channel axis of its input and output.
    inner : bool
        Whether it is a part of another site: its calls are not counted, not compared between
        forward passes, and may happen outside of one.
    function : tuple of (str, int) or None
        The function, and which of its calls within one call of the module; None for the module
        itself. The function in a further call of the module is a further call of the site.
    product : bool
        Whether that function is a product of two tensors that is visited with both, not the last
        step of an activation of one tensor.
    """

    name: str
    module: nn.Module = field(repr=False)
    call: int | None = None
    axis: int = 1
    inner: bool = False
    argument: int | str | None = None
    function: tuple[str, int] | None = None
    product: bool = False


def function_site(owner: str, module: nn.Module, function: str, number: int) -> Site:
    """Return the site of a call of a function in a module of the given name."""
    return Site(f"{owner}:{function}#{number}", module, function=(function, number))


def split_name(name: str) -> tuple[str, tuple[str, int] | None]:
    """Return the module in a site's name, and of a function its name and number."""
    owner, colon, rest = name.rpartition(":")
    function, mark, number = rest.partition("#")
    if not (colon and mark and number.isdecimal()):
        return name, None
    return owner, (function, int(number))


class SiteCall(NamedTuple):
    """One call of a site.

    Parameters
    ----------
    site : Site
        Which site.
    number : int
        Which of its calls within the forward pass; 0 for inner sites.
    args, kwargs
        The arguments; a site that works in place overwrites them.
    given : tuple of Given
        The tensors among them as they were before the call, after it, for a visitor that replaces.
    """

    site: Site
    number: int
    args: Args
    kwargs: Kwargs
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
    """Looks at sites, or changes what they return. Override what is needed.

    An exception that a method raises ends the forward pass.
    """

    def replaces(self, site: Site) -> bool:
        """Return whether `after` may return what takes the place of a site's output."""
        return False

    def begin(self) -> None:
        """Prepare for a forward pass of the model."""

    def before(self, call: SiteCall) -> None:
        """See the arguments of a site before it runs."""

    def after(self, call: SiteCall, output: Any) -> Any:
        """See the output of a site; return None, or what takes the output's place.

        Where the site has overwritten its input, the new values are written there as well.
        """

    def unseen(self, call: SiteCall, reason: str) -> None:
        """Learn that tensors of a call cannot be read; the site is left alone from then on."""

    def fixed_axis(self, call: SiteCall) -> int | None:
        """Return the only axis along which inputs must be as large as in the first forward pass.

        None, the default, compares all axes but that of the samples.
        """
        return None

    def raised(self, site: Site) -> None:
        """Learn that the forward of a site has raised an exception."""

    def end(self) -> None:
        """Finish a forward pass that has succeeded."""

    def ended(self) -> None:
        """Go on after a forward pass that has been counted; the model may be run `again`."""

    def abort(self) -> None:
        """Forget a forward pass that has failed or was interrupted."""
