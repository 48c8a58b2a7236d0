"""What is written down about one activation."""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Line(NamedTuple):
    """An asymptote: f(x) - (slope x + intercept) goes to 0."""

    slope: Any
    intercept: Any


class Limits(NamedTuple):
    """The asymptotes for x -> -inf and x -> +inf. Slope 0: the limit is the intercept."""

    left: Line
    right: Line


#: The asymptotes 0 and x.
RECTIFIER = Limits(Line(0.0, 0.0), Line(1.0, 0.0))


def fixed_limits(left: Line, right: Line) -> Callable[[], Limits]:
    """Return the asymptotes of a function without parameters."""
    return lambda: Limits(left, right)


def fixed_bounds(low: float, high: float) -> Callable[[], tuple[float, float]]:
    """Return the bounds of the derivative of a function without parameters."""
    return lambda: (low, high)


@dataclass(frozen=True)
class Source:
    """Where an activation was published; one of doi, arxiv and url is given at least."""

    text: str
    doi: str = ""
    arxiv: str = ""
    url: str = ""

    def __str__(self) -> str:
        """Return one line: text, DOI, arXiv number, address."""
        parts = [self.text]
        parts += [f"doi:{self.doi}"] if self.doi else []
        parts += [f"arXiv:{self.arxiv}"] if self.arxiv else []
        parts += [self.url] if self.url else []
        return ", ".join(parts)


#: The paper of ACON-A to C, of the smooth maximum and of ACON-FReLU.
ACON_PAPER = Source(
    "Ma, Zhang, Liu, Sun: Activate or Not: Learning Customized Activation, CVPR 2021",
    doi="10.1109/CVPR46437.2021.00794",
    arxiv="2009.04759",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Activation:
    """One activation: its functions and the facts about it.

    Attributes
    ----------
    title : str
        Name in text and figures, such as ``"ACON-C"``.
    function : callable
        ``function(*arguments, **parameters)``; numpy or torch in, the same out.
    derivative : callable
        Called alike. For one argument f'(x); for two a tuple of the partial derivatives; for
        ``smooth_maximum`` the n partial derivatives along the same axis.
    arguments : tuple of str
        Names of the arguments that are data; one (``("x",)``) for most.
    parameters : mapping of str to float or tuple of float
        Names and defaults of the parameters. A default is the published or usual value; where
        there is none (p1 and p2 of ACON-C, Maxout's pieces) it is an example.
    formula, derivative_formula : str
        Plain text, in Python's notation; ``sigmoid`` is the logistic function, ``softplus`` is
        log(1 + e^x), ``normal_cdf`` and ``normal_pdf`` belong to the standard normal distribution.
    latex : str
        The function in the subset of LaTeX's mathematics that matplotlib sets, without dollar
        signs.
    source : Source
        Where it was published.
    limits : callable or None
        ``limits(**parameters)`` returns the asymptotes; None for functions of several arguments.
    derivative_bounds : callable
        ``derivative_bounds(**parameters)`` returns (infimum, supremum) of the derivative, or of
        each partial derivative, over all real arguments.
    aliases : tuple of str
        Other names that `get` takes.
    """

    title: str
    function: Callable[..., Any]
    derivative: Callable[..., Any]
    formula: str
    derivative_formula: str
    latex: str
    source: Source
    derivative_bounds: Callable[..., tuple[Any, Any]]
    limits: Callable[..., Limits] | None = None
    arguments: tuple[str, ...] = ("x",)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Key in ``ACTIVATIONS`` and name of the function, such as ``"acon_c"``."""
        return self.function.__name__

    def __post_init__(self) -> None:
        """Make the defaults read-only: they are shared by everyone."""
        object.__setattr__(self, "parameters", types.MappingProxyType(dict(self.parameters)))

    def __call__(self, *arguments: Any, **parameters: Any) -> Any:
        """Return the function's value, with the default of each parameter not given."""
        return self.function(*arguments, **{**self.parameters, **parameters})
