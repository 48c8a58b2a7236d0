"""The curves of the formula figures as tables; the formulas themselves live in `family`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis import family

FloatArray = npt.NDArray[np.float64]

PAIRS = ((1.0, 0.0), (1.2, -0.1), (0.8, 0.1))
"""The (p1, p2) of panels (a) and (c) of the paper's figure of function and derivatives."""

BETAS = (2.0, 1.0, 0.1)
"""The β of panel (b), where p1 = 1 and p2 = 0."""

STALE_FACTOR = 0.7
"""What stands in the published panels (b) and (c) where the formula has p1 - p2."""

PANEL_LIMITS = {"a": (-6.0, 6.0), "b": (-75.0, 75.0), "c": (-20.0, 20.0)}


def grid(low: float, high: float, points: int = 601, extra: npt.ArrayLike = ()) -> FloatArray:
    """Return rising abscissae from low to high that contain 0 and those of `extra` in between."""
    more = np.append(np.asarray(extra, dtype=np.float64), 0.0)
    inside = more[(more >= low) & (more <= high)]
    return np.union1d(np.linspace(low, high, points), inside)


def curve_table(
    functions: Mapping[str, Callable[[FloatArray], Any]], x: npt.ArrayLike
) -> pd.DataFrame:
    """Evaluate functions on x (n,): columns ``curve``, ``x``, ``y``, n rows a curve."""
    at = np.asarray(x, dtype=np.float64)
    parts = [pd.DataFrame({"curve": name, "x": at, "y": f(at)}) for name, f in functions.items()]
    return pd.concat(parts, ignore_index=True)


def function_and_derivatives(as_published: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the curves and bounds of the paper's figure of ACON-C and its first derivative.

    Columns of the curves: ``panel`` ("a": f; "b", "c": f'), ``curve`` (0, 1, 2 in the panel),
    ``p1``, ``p2``, ``beta``, ``x``, ``y``; of the bounds, one row a curve of panels b and c:
    ``low`` and ``high`` (the range of f') and ``x_low`` and ``x_high`` (where the formula reaches
    them: x = ∓u*/(β (p1 - p2)), for these β > 0 and p1 > p2).

    The published panels (b) and (c) do not follow the paper's own formula (Ma et al., CVPR 2021):
    their derivative is p2 + (p1 - p2) · h(0.7 β x) with h(u) = σ(u) + u σ(u) (1 - σ(u)), while
    the formula's argument is (p1 - p2) β x. The factor 0.7 = 0.8 - 0.1 is that of the last pair.
    Heights are right, but the extrema of the first pair lie 1/0.7 times too far out.
    ``as_published=True`` gives the published curves; panel (a) follows the formula in both.
    """
    settings = [("a", i, p1, p2, 1.0) for i, (p1, p2) in enumerate(PAIRS)]
    settings += [("b", i, 1.0, 0.0, beta) for i, beta in enumerate(BETAS)]
    settings += [("c", i, p1, p2, 1.0) for i, (p1, p2) in enumerate(PAIRS)]
    names = ("panel", "curve", "p1", "p2", "beta")
    heads = [dict(zip(names, one, strict=True)) for one in settings]
    bounds = pd.DataFrame([_bounds(head) for head in heads if head["panel"] != "a"])
    curves = [pd.DataFrame(head | _points(head, bounds, as_published)) for head in heads]
    return pd.concat(curves, ignore_index=True), bounds


def _bounds(head: dict[str, Any]) -> dict[str, Any]:
    """Add a curve's bounds of the derivative and where they are reached."""
    p1, p2, beta = head["p1"], head["p2"], head["beta"]
    low, high = family.derivative_bounds(p1, p2, beta)
    x_low, x_high = family.extremum_position(p1, p2, beta)
    ends = {"low": low, "high": high, "x_low": x_low, "x_high": x_high}
    return head | {name: float(value) for name, value in ends.items()}


def _points(head: dict[str, Any], bounds: pd.DataFrame, as_published: bool) -> dict[str, Any]:
    """Return the points of one curve of a panel."""
    panel, p1, p2, beta = head["panel"], head["p1"], head["p2"], head["beta"]
    here = bounds[bounds["panel"] == panel]
    # All curves of a panel share abscissae that hold the exact extrema of every one of them.
    reach = family.U_STAR / (STALE_FACTOR * here["beta"]) if as_published else here["x_high"]
    fine = np.linspace(-12.0, 12.0, 481)
    x = grid(*PANEL_LIMITS[panel], extra=np.concatenate([reach, -reach, fine]))
    if panel == "a":
        return {"x": x, "y": family.acon_c(x, p1, p2, beta)}
    if as_published:
        # silu_derivative(u) = σ(u) + u σ(u) (1 - σ(u)), the h of the docstring.
        y = p2 + (p1 - p2) * family.silu_derivative(STALE_FACTOR * beta * x)
        return {"x": x, "y": y}
    return {"x": x, "y": family.acon_c_derivative(x, p1, p2, beta)}


def acon_c_example() -> pd.DataFrame:
    """Return ACON-C between its two lines and their mean: ``curve`` (β or line), ``x``, ``y``."""
    p1, p2, betas = 1.2, -0.8, (0.01, 0.1, 1.0)
    lines: dict[str, Callable[[FloatArray], Any]] = {
        "p1": lambda x: p1 * x,
        "p2": lambda x: p2 * x,
        "mean": lambda x: 0.5 * (p1 + p2) * x,
    }
    smooth = {f"{beta:g}": partial(family.acon_c, p1=p1, p2=p2, beta=beta) for beta in betas}
    return curve_table({**lines, **smooth}, grid(-6.0, 6.0, 481))


def maxout_and_acon() -> pd.DataFrame:
    """Return each member of the Maxout family and its smooth partner for growing β.

    Columns ``member`` (A: lines x and 0; B: x and x/4; C: 1.2 x and -0.8 x), ``curve`` ("max", or
    β as text), ``x``, ``y``.
    """
    x, betas = grid(-3.0, 3.0, 301), (0.5, 1.0, 2.0, 8.0)
    lines = {"A": (1.0, 0.0), "B": (1.0, 0.25), "C": (1.2, -0.8)}
    tables = []
    for member, (a, b) in lines.items():
        hard = {"max": partial(family.maxout, slopes=(a, b))}
        smooth = {f"{beta:g}": partial(family.acon_c, p1=a, p2=b, beta=beta) for beta in betas}
        tables.append(curve_table({**hard, **smooth}, x).assign(member=member))
    return pd.concat(tables, ignore_index=True)[["member", "curve", "x", "y"]]


def swish_family() -> pd.DataFrame:
    """Return Swish and its derivative (``panel``) for several β (``curve``) over ``x``: ``y``."""
    kinks = np.linspace(-0.2, 0.2, 161)  # where β = 100 bends
    x = grid(-4.0, 4.0, 401, kinks)
    tables = []
    for panel, function in (("function", family.swish), ("derivative", family.swish_derivative)):
        each = {f"{beta:g}": partial(function, beta=beta) for beta in (0, 1, 5, 100)}
        tables.append(curve_table(each, x).assign(panel=panel))
    return pd.concat(tables, ignore_index=True)[["panel", "curve", "x", "y"]]


def smooth_maximum_of_two() -> pd.DataFrame:
    """Return the smooth maximum of x and 0: for β = 0 their mean, for large β the greater one."""

    def smooth(x: FloatArray, beta: float) -> Any:
        return family.smooth_maximum(np.stack([x, np.zeros_like(x)], axis=-1), beta)

    each = {f"{beta:g}": partial(smooth, beta=beta) for beta in (0, 0.5, 1, 2, 10)}
    return curve_table({**each, "max": family.relu}, grid(-4.0, 4.0, 321))


NUMBERS = (-1.0, -0.4, 0.1, 0.3, 1.5)
"""The five numbers whose smooth maximum is drawn over β."""


def smooth_maximum_of_many() -> pd.DataFrame:
    """Return the smooth maximum of `NUMBERS` over β (``x``): minimum, mean (β = 0), maximum."""
    numbers = np.array(NUMBERS)
    constants = {"min": numbers.min(), "mean": numbers.mean(), "max": numbers.max()}
    flat = {name: partial(np.full_like, fill_value=value) for name, value in constants.items()}
    smooth = {"smooth": lambda beta: family.smooth_maximum(np.tile(numbers, (len(beta), 1)), beta)}
    return curve_table({**smooth, **flat}, grid(-12.0, 12.0, 481))


def frelu_surfaces() -> pd.DataFrame:
    """Return ``frelu``, max(x, t), and ``acon_frelu`` over pairs of ``x`` and condition ``t``."""
    axis = np.linspace(-3.0, 3.0, 33)
    t, x = np.meshgrid(axis, axis, indexing="ij")
    columns = {"x": x, "t": t, "frelu": family.frelu(x, t), "acon_frelu": family.acon_frelu(x, t)}
    return pd.DataFrame({name: np.ravel(values) for name, values in columns.items()})
