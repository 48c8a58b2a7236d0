"""High-precision values of the activations, computed from the formulas that the registry prints."""

from collections.abc import Sequence
from typing import Any

import mpmath
import numpy as np

from acon_analysis.family import Activation

# 1 + tanh(-345) is 1e-300, so that many digits cancel in some of the formulas.
DIGITS = 330

SAMPLE = np.concatenate(
    [
        -np.geomspace(80.0, 1e-6, 25),
        [0.0],
        np.geomspace(1e-6, 80.0, 25),
        [-3.0, 3.0, 6.0, -1.0, 1.0, 1.25, -1.278, -0.7517, 2.399, -2.399],
    ]
)


def _sigmoid(v: Any) -> Any:
    return 1 / (1 + mpmath.exp(-v))


def _smooth_maximum(values: Sequence[Any], beta: Any) -> Any:
    weights = [mpmath.exp(beta * v) for v in values]
    return mpmath.fdot(weights, values) / mpmath.fsum(weights)


NAMES = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "sqrt": mpmath.sqrt,
    "pi": mpmath.pi,
    "sigmoid": _sigmoid,
    "softplus": lambda v: mpmath.log(1 + mpmath.exp(v)),
    "normal_cdf": mpmath.ncdf,
    "normal_pdf": mpmath.npdf,
    "smooth_maximum": _smooth_maximum,
    "max": max,
    "min": min,
    "sum": sum,
    "zip": zip,
}


def exact(value: Any) -> Any:
    """The number or numbers without any rounding."""
    if isinstance(value, (tuple, list, np.ndarray)):
        return [exact(v) for v in value]
    return mpmath.mpf(float(value))


def evaluate(text: str, **values: Any) -> Any:
    """A printed formula at these values, in high precision."""
    with mpmath.workdps(DIGITS):
        scope = {**NAMES, **{name: exact(value) for name, value in values.items()}}
        return eval(text, {"__builtins__": {}, **scope})


def tolerance(text: str, x: float, reference: Any, epsilon: float, **parameters: Any) -> float:
    """A few roundings of the result, and of the argument as it shows in the result."""
    with mpmath.workdps(DIGITS):
        h = mpmath.mpf(10) ** -60 * max(abs(x), 1e-6)
        point = exact(x)
        scope = {**NAMES, **{name: exact(value) for name, value in parameters.items()}}
        code = compile(text, "formula", "eval")
        right = eval(code, {"__builtins__": {}, **scope, "x": point + h})
        left = eval(code, {"__builtins__": {}, **scope, "x": point - h})
        slope = float(abs((right - left) / (2 * h)))
        slope = slope if slope < 100 else 0.0  # a jump at a kink
        return epsilon * (8 * abs(float(reference)) + 8 * abs(x) * slope + 1e-300)


def one_argument() -> list[Activation]:
    """The activations of a single number."""
    from acon_analysis.family import ACTIVATIONS

    return [a for a in ACTIVATIONS.values() if a.arguments == ("x",)]
