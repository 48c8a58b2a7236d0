"""What the registry knows of a figure; it decorates the figure's function in its own file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

if TYPE_CHECKING:
    from acon_figures.style import AconFigure

#: The parameters that every figure has, as they stand in docstrings.
OF_ALL = """\
width : {"single", "double"} or float
    3.25, 6.75 or any number of inches; panels of a narrow figure stand below one another.
context : {"paper", "talk"}
    Whose sizes of text and lines it has.
"""

Result = TypeVar("Result")
Plot = TypeVar("Plot", bound="Callable[..., AconFigure]")


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """One figure of the registry.

    As a decorator, ``@figure(kind="measured", needs=("depth",))``, it describes the function of a
    plot's file and adds `OF_ALL` to its docstring. The registry reads the arguments, which must be
    literals, from the text of the file, so that a list of the figures imports none of them.

    Attributes
    ----------
    name : str
        Its name on the command line, also that of its function and file, which give it.
    description : str
        One line: the first of its file.
    kind : {"formula", "printed numbers", "measured"}
        Where its numbers come from; a figure never mixes them unmarked.
    needs : tuple of str
        Inputs that the function takes, by argument name: those of `acon_figures.inputs.PROVIDES`,
        or functions of its own file that take captured runs and return a frame, or None for
        nothing. Empty: it needs no data.
    options : tuple of str
        Inputs that it takes as well where a run has them, by argument name.
    variants : mapping of str to mapping
        Further ways to draw it that are worth keeping: a suffix of the name, and the arguments.
    bundle : str
        The one input that holds all of `needs` and `options`, as a mapping; empty where each is
        an input of its own.
    heading : str
        What the report of a run calls it; empty: a report does not show it.
    table : str
        A function of its file that takes the same inputs and returns the numbers that it draws,
        for readers of a report; empty: its inputs are these numbers.
    one_layer : bool
        Whether it draws one layer, whatever its inputs hold.
    order : int
        Its position in the gallery, in lists and in reports; equal ones are sorted by name.
    """

    kind: Literal["formula", "printed numbers", "measured"]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bundle: str = ""
    heading: str = ""
    table: str = ""
    one_layer: bool = False
    order: int = 1000
    name: str = ""
    description: str = ""

    def __call__(self, function: Plot) -> Plot:
        """Return the function that it decorates, with the parameters of all in its docstring."""
        before, returns, after = cleandoc(function.__doc__ or "").partition("\nReturns\n")
        if "\nParameters\n" not in before:
            before += "\nParameters\n----------\n"
        function.__doc__ = before + OF_ALL + returns + after
        return function

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the inputs without which it cannot be drawn."""
        return (self.bundle,) if self.bundle else self.needs

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all inputs that it draws."""
        return (self.bundle,) if self.bundle else (*self.needs, *self.options)

    @property
    def function(self) -> "Callable[..., AconFigure]":
        """Draws it; takes the inputs of `needs` first, ``width`` and ``context`` as keywords."""
        return cast("Callable[..., AconFigure]", self.own(self.name))

    def draw(self, frames: Mapping[str, Any], **arguments: Any) -> "AconFigure":
        """Draw it from inputs by name; those of `required` must be there."""
        return self._apply(self.function, frames, **arguments)

    def numbers(self, frames: Mapping[str, Any]) -> Any:
        """Return the frame of `table`, from inputs by name; None if the inputs are the numbers."""
        return self._apply(self.own(self.table), frames) if self.table else None

    def own(self, name: str) -> Any:
        """Return what the figure's file holds under a name, or None."""
        return getattr(import_module(f"acon_figures.plots.{self.name}"), name, None)

    def _apply(
        self, function: Callable[..., Result], frames: Mapping[str, Any], **arguments: Any
    ) -> Result:
        """Call a function of the figure's file with its inputs."""
        given = frames[self.bundle] if self.bundle else frames
        options = {one: given[one] for one in self.options if one in given}
        return function(*(given[one] for one in self.needs), **options, **arguments)


figure = FigureSpec
