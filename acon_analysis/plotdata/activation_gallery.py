"""The activations of the primers' gallery: curves and facts as tables, from `family`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis import family
from acon_analysis.plotdata.formula_curves import grid


@dataclass(frozen=True)
class Entry:
    """One panel of the gallery: an activation with the parameters that it is drawn with."""

    title: str
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    formula: str = ""


GALLERY = (
    Entry("Sigmoid", "sigmoid"),
    Entry("tanh", "tanh"),
    Entry("ReLU", "relu"),
    Entry("Leaky ReLU, a = 0.1", "leaky_relu", {"slope": 0.1}),
    Entry("RReLU (evaluation)", "rrelu"),
    Entry("PReLU, a = 0.25", "prelu", {"slope": 0.25}),
    Entry("ELU, α = 1", "elu", {"alpha": 1.0}),
    Entry("SELU", "selu"),
    Entry("Softplus", "softplus"),
    Entry("Mish", "mish"),
    Entry("GELU", "gelu", formula=r"x\,\Phi(x)"),
    Entry("Swish, β = 0: x/2", "swish", {"beta": 0.0}),
    Entry("Swish, β = 1: SiLU", "swish", {"beta": 1.0}),
    Entry("Swish, β = 5", "swish", {"beta": 5.0}),
    Entry("Swish, β = 100", "swish", {"beta": 100.0}),
)

RELU_LIKE = (
    Entry("ReLU", "relu"),
    Entry("Leaky ReLU (0.1)", "leaky_relu", {"slope": 0.1}),
    Entry("RReLU (evaluation)", "rrelu"),
    Entry("PReLU (0.25)", "prelu", {"slope": 0.25}),
    Entry("ELU", "elu", {"alpha": 1.0}),
    Entry("SELU", "selu"),
    Entry("Softplus", "softplus"),
    Entry("Mish", "mish"),
    Entry("GELU", "gelu"),
    Entry("Swish / SiLU (β = 1)", "swish", {"beta": 1.0}),
)


def gallery_curves(entries: tuple[Entry, ...] = GALLERY, reach: float = 4.0) -> pd.DataFrame:
    """Return ``activation`` (title), ``x`` (to ±reach), ``y`` and ``slope`` of the activations."""
    near_zero = np.append([-1e-9, 1e-9], np.linspace(-0.15, 0.15, 61))
    x = grid(-reach, reach, 321, near_zero)
    parts = []
    for entry in entries:
        activation = family.ACTIVATIONS[entry.name]
        parameters = {**activation.parameters, **entry.parameters}
        y, slope = activation.function(x, **parameters), activation.derivative(x, **parameters)
        columns = {"activation": entry.title, "x": x, "y": y, "slope": slope}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def gallery_facts() -> pd.DataFrame:
    """Return one row an activation: its name, formula, asymptotes, bounds and source."""
    rows = []
    for entry in GALLERY:
        activation = family.ACTIVATIONS[entry.name]
        parameters = {**activation.parameters, **entry.parameters}
        low, high = activation.derivative_bounds(**parameters)
        facts: dict[str, Any] = {
            "activation": entry.title, "name": entry.name,
            "latex": entry.formula or activation.latex,
            "low": float(low), "high": float(high), "source": str(activation.source),
        }  # fmt: skip
        if activation.limits is not None:
            limits = activation.limits(**parameters)
            facts |= {"left": line_text(*limits.left), "right": line_text(*limits.right)}
        rows.append(facts)
    return pd.DataFrame(rows)


def line_text(slope: float, intercept: float) -> str:
    """Return a line as text: "0", "x", "0.25 x", "−1.76", "x + 1"."""
    slope, intercept = float(slope), float(intercept)
    if slope == 0.0:
        return _number(intercept)
    text = "x" if slope == 1.0 else f"{_number(slope)} x"
    if intercept == 0.0:
        return text
    return f"{text} {'+' if intercept > 0 else '−'} {_number(abs(intercept))}"


def _number(value: float) -> str:
    """Format a number with three digits and a minus sign."""
    text = f"{value:.3g}"
    return ("0" if text == "-0" else text).replace("-", "\N{MINUS SIGN}")
