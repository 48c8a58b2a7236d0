"""One ACON-C unit over Gaussian inputs, as numbers: its curves, bounds and linearity."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis import family
from acon_analysis.errors import UsageError

#: Inputs further from the mean than this many standard deviations do not count: 1 in 10^15.
_REACH = 8.0


@cache
def _quadrature() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return nodes and weights of Gauss and Legendre's rule, computed once: it takes a second."""
    nodes, weights = np.polynomial.legendre.leggauss(2000)
    return nodes, weights


def unit_facts(
    p1: float, p2: float, beta: float, mean: float = 0.0, std: float = 1.0
) -> "pd.Series[float]":
    """Describe one ACON-C unit over Gaussian inputs.

    Parameters
    ----------
    p1, p2, beta : float
        Parameters of `family.acon_c`.
    mean, std : float
        Of the inputs; std > 0.

    Returns
    -------
    pandas.Series
        ``L`` (share of the output's variance that the best straight line explains; 1 where the
        output does not vary), ``slope`` and ``intercept`` of that line, ``gate`` (G, 4 times the
        variance of σ(β(p1-p2)x)), ``kappa`` (gain |β·(p1 - p2)|·std), ``low`` and ``high`` (bounds
        of f' over all x), ``low_seen`` and ``high_seen`` (over mean ± 3 std).

    Raises
    ------
    UsageError
        If std is not positive.
    """
    if not std > 0:
        raise UsageError(f"the standard deviation of the inputs must be positive; got {std}")
    nodes, weights = _quadrature()
    z = _REACH * nodes
    weight = weights * np.exp(-z * z / 2)
    weight = weight / weight.sum()
    x = mean + std * z
    y = np.asarray(family.acon_c(x, p1, p2, beta))
    gate = np.asarray(family.sigmoid(beta * (p1 - p2) * x))
    centre = float(weight @ y)
    slope = float(weight @ (z * y))
    total = float(weight @ (y - centre) ** 2)
    rest = float(weight @ (y - centre - slope * z) ** 2)
    alive = total > 1e-24 * float(weight @ (x * x)) * max(p1 * p1, p2 * p2)
    low, high = family.derivative_bounds(p1, p2, beta)
    seen = family.derivative_range(p1, p2, beta, mean - 3 * std, mean + 3 * std)
    return pd.Series(
        {
            "L": 1 - rest / total if alive else 1.0,
            "slope": slope / std,
            "intercept": centre - slope / std * mean,
            "gate": 4 * float(weight @ (gate - float(weight @ gate)) ** 2),
            "kappa": abs(beta * (p1 - p2)) * std,
            "low": float(low),
            "high": float(high),
            "low_seen": float(seen[0]),
            "high_seen": float(seen[1]),
        }
    )


def unit_curves(
    p1: float, p2: float, beta: float, mean: float = 0.0, std: float = 1.0, points: int = 401
) -> pd.DataFrame:
    """Return the curves of one ACON-C unit over Gaussian inputs.

    Returns
    -------
    pandas.DataFrame
        ``x`` (0 and mean ± 4 std lie inside), ``y`` (the function), ``slope`` (its derivative),
        ``line`` (the best straight line over the inputs), ``density`` (of the inputs).
    """
    facts = unit_facts(p1, p2, beta, mean, std)
    x = np.linspace(min(-1.0, mean - 4 * std), max(1.0, mean + 4 * std), points)
    density = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    return pd.DataFrame(
        {
            "x": x,
            "y": family.acon_c(x, p1, p2, beta),
            "slope": family.derivative(x, p1, p2, beta),
            "line": facts["slope"] * x + facts["intercept"],
            "density": density,
        }
    )
