"""L of known activations on Gaussian inputs: what the L of a layer is compared with."""

from functools import lru_cache

import numpy as np
import pandas as pd

from acon_analysis import family
from acon_analysis.errors import UsageError
from acon_analysis.family._activation import Activation

#: Activations that a module's class names completely: they have no parameters of their own.
_WHOLE = (
    "relu", "relu6", "gelu", "gelu_tanh", "swish", "mish", "selu", "sigmoid", "tanh", "hardswish",
    "hardsigmoid",
)  # fmt: skip

#: Names of classes and functions that `family` does not know.
_ALSO = {"GELUActivation": "gelu", "NewGELUActivation": "gelu_tanh", "SiLUActivation": "swish"}


def formula_of(name: str) -> Activation | None:
    """Return the activation of a class or function that has no parameters; None for others."""
    try:
        one = family.get(_ALSO.get(name, name))
    except UsageError:
        return None
    # A class Swish may learn its β; SiLU has none.
    return one if one.name in _WHOLE and name.casefold() != "swish" else None


@lru_cache
def gaussian_index(name: str, std: float = 1.0) -> float:
    """Return L of an activation, by its class, on Gaussian inputs of mean 0; NaN if unknown.

    By the trapezoidal rule on mean ± 10 std, with a node at every kink that these functions have.
    """
    one = formula_of(name)
    if one is None:
        return float("nan")
    x = np.linspace(-10 * std, 10 * std, 20_001)
    if one.name in ("relu6", "hardswish", "hardsigmoid"):
        x = np.unique([*x, -3.0, 3.0, 6.0])
    weight = np.exp(-((x / std) ** 2) / 2) * np.gradient(x)
    weight /= weight.sum()
    y = np.asarray(one.function(x, **one.parameters), dtype=np.float64)
    y -= (weight * y).sum()
    return float((weight * x * y).sum() ** 2 / (weight * x * x).sum() / (weight * y * y).sum())


def own_yardstick(layers: pd.DataFrame) -> tuple[str, float] | None:
    """Return the most frequent activation of a table with ``class_name`` and its Gaussian L.

    None where that is ReLU, which is every network's yardstick, or an activation of no known L.
    """
    if "class_name" not in layers or layers.empty:
        return None
    name = str(layers["class_name"].mode().iloc[0])
    one, index = formula_of(name), gaussian_index(name)
    return None if one is None or one.name == "relu" else (name, index)
