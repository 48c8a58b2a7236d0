"""One ACON-C unit over Gaussian inputs, as numbers: its curves, bounds and linearity."""

import numpy as np
import pandas as pd

from acon_analysis import family
from acon_analysis.errors import UsageError
from acon_analysis.statistics.gaussian import gaussian_fit, gaussian_gate


def unit_facts(
    p1: float, p2: float, beta: float, mean: float = 0.0, std: float = 1.0
) -> "pd.Series[float]":
    """Describe `family.acon_c` over Gaussian inputs of a mean and a positive standard deviation.

    Returns ``L`` (share of the output's variance that the best straight line explains; 1 where the
    output does not vary), ``slope`` and ``intercept`` of that line, ``gate`` (G, 4 times the
    variance of σ(β(p1-p2)x)), ``kappa`` (gain |β·(p1 - p2)|·std), ``low`` and ``high`` (bounds of
    f' over all x), ``low_seen`` and ``high_seen`` (over mean ± 3 std).
    """
    if not std > 0:
        raise UsageError(f"the standard deviation of the inputs must be positive; got {std}")
    middle, half = (p1 + p2) / 2, (p1 - p2) / 2
    half = half if beta * half >= 0 else -half  # f(x) = middle·x + half·x·tanh(abs(β·half)·x)
    kappa, nu = 2 * abs(beta * half) * std, mean / std
    rho = half / middle if middle else np.inf * half if half else 0.0
    fit = gaussian_fit(kappa, rho, nu)
    slope = middle + half * float(fit.slope)
    centre = middle * mean + half * std * float(fit.bump)
    low, high = family.derivative_bounds(p1, p2, beta)
    seen = family.derivative_range(p1, p2, beta, mean - 3 * std, mean + 3 * std)
    return pd.Series(
        {
            "L": float(fit.L),
            "slope": slope,
            "intercept": centre - slope * mean,
            "gate": float(gaussian_gate(kappa, nu)),
            "kappa": kappa,
            "low": float(low),
            "high": float(high),
            "low_seen": float(seen[0]),
            "high_seen": float(seen[1]),
        }
    )


def unit_curves(
    p1: float, p2: float, beta: float, mean: float = 0.0, std: float = 1.0
) -> pd.DataFrame:
    """Return the curves of one ACON-C unit over Gaussian inputs.

    Columns ``x`` (0 and mean ± 4 std lie inside), ``y`` (the function), ``slope`` (its derivative),
    ``line`` (the best straight line over the inputs), ``density`` (of the inputs).
    """
    facts = unit_facts(p1, p2, beta, mean, std)
    x = np.linspace(min(-1.0, mean - 4 * std), max(1.0, mean + 4 * std), 401)
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
