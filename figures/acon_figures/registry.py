"""All figures by name: what each shows, what kind of numbers it draws and what it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from acon_analysis.errors import UsageError, closest
from acon_figures.plots.beta_distributions import beta_distributions
from acon_figures.plots.function_and_derivatives import function_and_derivatives
from acon_figures.style import AconFigure

Kind = Literal["formula", "printed numbers", "measured"]


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the registry.

    Attributes
    ----------
    name : str
        Its name on the command line, also the function's name.
    function : callable
        Draws it; takes the frames of `needs` first and ``width`` and ``context`` as keywords.
    description : str
        One line.
    kind : {"formula", "printed numbers", "measured"}
        Where its numbers come from; a figure never mixes them unmarked.
    needs : tuple of str
        Frames that the function takes, by argument name: "frame" (β of every sample) first.
        Empty: it draws itself.
    options : mapping of str to str
        Frames that it takes where they are there, by argument name, and what they are.
    variants : mapping of str to mapping
        Further ways to draw it that are worth keeping: a suffix of the name, and the arguments.
    """

    name: str
    function: Callable[..., AconFigure]
    description: str
    kind: Kind
    needs: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_PUBLISHED = {"as_published": {"as_published": True}}

_SPECS = (
    FigureSpec(
        "beta_distributions",
        beta_distributions,
        "densities of β over one layer's channels: each sample of Meta-ACON beside static ACON",
        "measured",
        needs=("frame",),
        options={
            "static": "β of a static ACON network's channels",
            "null": "BatchNorm's scale and shift before the sigmoid",
        },
        variants=_PUBLISHED,
    ),
    FigureSpec(
        "function_and_derivatives",
        function_and_derivatives,
        "ACON-C and its first derivative for several β, p1, p2, with the exact bounds",
        "formula",
        variants=_PUBLISHED,
    ),
)

FIGURES: dict[str, FigureSpec] = {spec.name: spec for spec in _SPECS}


def find(name: str) -> FigureSpec:
    """Return a figure of the registry; an unknown name raises a UsageError with near names."""
    if name not in FIGURES:
        raise UsageError(f"there is no figure {name!r}; {closest(name, FIGURES)}")
    return FIGURES[name]
