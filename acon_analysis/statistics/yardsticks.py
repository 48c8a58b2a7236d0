"""L of known activations on Gaussian inputs: what the L of a layer is compared with."""

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis import family
from acon_analysis.errors import UsageError
from acon_analysis.family._activation import Activation
from acon_analysis.statistics.gaussian import RELU_L

#: Activations that a module's class names completely: they have no parameters of their own.
_WHOLE = (
    "relu", "relu6", "gelu", "gelu_tanh", "swish", "mish", "selu", "sigmoid", "tanh", "hardswish",
    "hardsigmoid",
)  # fmt: skip

#: Names of classes and functions that `family` does not know.
_ALSO = {"GELUActivation": "gelu", "NewGELUActivation": "gelu_tanh", "SiLUActivation": "swish"}


def formula_of(name: str) -> Activation | None:
    """Return the activation of a class or function that has no parameters; None for others."""
    one = _known(name)
    # A class Swish may learn its β; SiLU has none.
    return one if one and one.name in _WHOLE and name.casefold() != "swish" else None


def _known(name: str) -> Activation | None:
    """Return the activation of a class or function, with any parameters; None for others."""
    try:
        return family.get(_ALSO.get(name, name))
    except UsageError:
        return None


@lru_cache
def gaussian_index(name: str, std: float = 1.0) -> float:
    """Return L of an activation, by its class, on Gaussian inputs of mean 0; NaN if unknown."""
    one = formula_of(name)
    if one is None:
        return float("nan")
    x, y, weight = _on_gaussian(one, std)
    y = y - (weight * y).sum()
    return float((weight * x * y).sum() ** 2 / (weight * x * x).sum() / (weight * y * y).sum())


@lru_cache
def gated_index(name: str) -> float:
    """Return E[g]² / E[g²], L of a·g(b) for independent standard Gaussian inputs; or NaN."""
    one = formula_of(name)
    if one is None:
        return float("nan")
    _, y, weight = _on_gaussian(one, 1.0)
    return float((weight * y).sum() ** 2 / (weight * y * y).sum())


def _on_gaussian(one: Activation, std: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Return inputs, outputs and weights of the trapezoidal rule on 0 ± 10 std.

    The nodes include every kink that these functions have.
    """
    x = np.linspace(-10 * std, 10 * std, 20_001)
    if one.name in ("relu6", "hardswish", "hardsigmoid"):
        x = np.unique([*x, -3.0, 3.0, 6.0])
    weight = np.exp(-((x / std) ** 2) / 2) * np.gradient(x)
    return x, np.asarray(one.function(x, **one.parameters), dtype=np.float64), weight / weight.sum()


class Yardstick(NamedTuple):
    """What some layers of a network are compared with: its name, its L, the layers' rows."""

    name: str
    L: float
    rows: pd.DataFrame


def yardsticks(layers: pd.DataFrame) -> list[Yardstick]:
    """Return what each layer is compared with, the most frequent first, ties in the layers' order.

    An activation has its own L on standard Gaussian inputs, NaN where that depends on parameters;
    one of no known formula that of a ReLU. A product has that of independent Gaussian factors with
    its gate, and none without a known gate.
    ``layers`` may have ``kind``, ``class_name`` and ``gate_of``.
    """
    table = layers.reindex(columns=["layer", "kind", "class_name", "gate_of"], fill_value="")
    gates = dict(zip(table["gate_of"], table["class_name"], strict=True))
    keys = [
        _of_product(gates.get(layer, "")) if kind == "product" else _of_activation(kind, name)
        for layer, kind, name, _ in table.itertuples(index=False)
    ]
    own = pd.Series(keys, index=layers.index, dtype=object).dropna()
    return [
        Yardstick(name, index, layers.loc[own.index[[one == (name, index) for one in own]]])
        for (name, index), _ in Counter(own).most_common()
    ]


def _of_activation(kind: str, class_name: str) -> tuple[str, float]:
    """Return the name and L of an activation's yardstick."""
    one = formula_of(class_name)
    if one is not None and one.name != "relu":
        return _called(one), gaussian_index(class_name)
    other = _known(class_name) if one is None and kind == "activation" else None
    # ReLU has the same number as unknown formulas.
    return ("ReLU", RELU_L) if other is None else (other.title, np.nan)


def _of_product(gate: str) -> tuple[str, float] | None:
    """Return the name and L of the yardstick of a product whose gate is of this class."""
    one = formula_of(gate)
    return None if one is None else (f"product with a {_called(one)} gate", gated_index(gate))


def _called(one: Activation) -> str:
    """Return the name of an activation that has no parameters."""
    return {"swish": "SiLU", "tanh": "Tanh"}.get(one.name, one.title)
