"""L of known activations on Gaussian inputs: what the L of a layer is compared with."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.family._activation import Activation
from acon_analysis.screen import a_or_an
from acon_analysis.statistics.formulas import formula_of, known_activation
from acon_analysis.statistics.gaussian import RELU_L


@lru_cache
def gaussian_index(name: str, std: float = 1.0, parameters: str = "") -> float:
    """Return L of an activation, by its class, on Gaussian inputs of mean 0; NaN if unknown."""
    one = formula_of(name, parameters)
    if one is None:
        return float("nan")
    x, y, weight = _on_gaussian(one, std)
    with np.errstate(all="ignore"):  # altered parameters may be anything
        y = y - (weight * y).sum()
        return float((weight * x * y).sum() ** 2 / (weight * x * x).sum() / (weight * y * y).sum())


@lru_cache
def gated_index(name: str, parameters: str = "") -> float:
    """Return E[g]² / E[g²], L of a·g(b) for independent standard Gaussian inputs; or NaN."""
    one = formula_of(name, parameters)
    if one is None:
        return float("nan")
    _, y, weight = _on_gaussian(one, 1.0)
    with np.errstate(all="ignore"):
        return float((weight * y).sum() ** 2 / (weight * y * y).sum())


def _on_gaussian(one: Activation, std: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Return inputs, outputs and weights of the trapezoidal rule on 0 ± 10 std.

    The nodes include every kink that these functions have: 0, ±3, 6, the bounds of a clamp.
    """
    kinks = np.array([-3.0, 3.0, 6.0, *one.parameters.values()])
    x = np.linspace(-10 * std, 10 * std, 20_001)
    x = np.unique([*x, *kinks[np.abs(kinks) < 10 * std]])
    weight = np.exp(-((x / std) ** 2) / 2) * np.gradient(x)
    with np.errstate(all="ignore"):
        y = np.asarray(one(x), dtype=np.float64)
    return x, y, weight / weight.sum()


class Yardstick(NamedTuple):
    """What some layers of a network are compared with: its name, its L, the layers' rows."""

    name: str
    L: float
    rows: pd.DataFrame


def yardsticks(layers: pd.DataFrame) -> list[Yardstick]:
    """Return what layers are compared with, the most frequent first, ties in the layers' order.

    It is `own_yardsticks` of each; ``rows`` are the layers that it belongs to.
    """
    own = own_yardsticks(layers)
    groups: Any = own.dropna(subset="name").groupby(["name", "yardstick"], dropna=False, sort=False)
    found = [Yardstick(name, float(L), layers.loc[rows.index]) for (name, L), rows in groups]
    return sorted(found, key=lambda one: -len(one.rows))


def own_yardsticks(layers: pd.DataFrame) -> pd.DataFrame:
    """Return ``name`` and L, ``yardstick``, of what each layer is compared with; None without any.

    An activation has its own L on standard Gaussian inputs, NaN where that depends on parameters
    that are not known; one of no known formula that of a ReLU. A product has that of independent
    Gaussian factors with its gate, and none without a known gate. ``layers`` may have ``kind``,
    ``class_name``, ``parameters`` and ``gate_of``.
    """
    columns = ["layer", "kind", "class_name", "parameters", "gate_of"]
    table = layers.reindex(columns=columns, fill_value="").astype(object).fillna("")
    formulas = list(zip(table["class_name"], table["parameters"], strict=True))
    gates = dict(zip(table["gate_of"], formulas, strict=True))
    found = []
    for layer, kind, own in zip(table["layer"], table["kind"], formulas, strict=True):
        gate = gates.get(layer, ("", ""))
        found.append(_of_product(*gate) if kind == "product" else _of_activation(kind, *own))
    pairs = [(None, np.nan) if one is None else one for one in found]
    return pd.DataFrame(pairs, index=layers.index, columns=["name", "yardstick"])


def _of_activation(kind: str, class_name: str, parameters: str) -> tuple[str, float]:
    """Return the name and L of an activation's yardstick."""
    one = formula_of(class_name, parameters)
    if one is not None and one.name != "relu":
        return _called(one), gaussian_index(class_name, parameters=parameters)
    other = known_activation(class_name) if one is None and kind == "activation" else None
    # ReLU has the same number as unknown formulas.
    return ("ReLU", RELU_L) if other is None else (other.title, np.nan)


def _of_product(gate: str, parameters: str) -> tuple[str, float] | None:
    """Return the name and L of the yardstick of a product whose gate is of this class."""
    one = formula_of(gate, parameters)
    if one is None:
        return None
    name = _called(one)
    return f"product with {a_or_an(name)} {name} gate", gated_index(gate, parameters)


def _called(one: Activation) -> str:
    """Return what PyTorch calls an activation."""
    return {"Swish": "SiLU", "tanh": "Tanh"}.get(one.title, one.title)
