"""The formula of a layer: PyTorch's classes, functions and parameters as records of `family`."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from acon_analysis import family
from acon_analysis.errors import UsageError
from acon_analysis.family._activation import Activation

#: Activations that a module's class names completely: they have no parameters of their own.
_WHOLE = (
    "relu", "relu6", "gelu", "gelu_tanh", "swish", "mish", "selu", "sigmoid", "tanh", "hardswish",
    "hardsigmoid",
)  # fmt: skip

FloatArray = npt.NDArray[np.float64]

#: Below this share of the steepest slope that its function has, a channel is saturated.
SATURATED = 0.05

_POINTS = 241
_INF = float("inf")

#: Softplus is a straight line from this β·x on, which changes it by 2e-9.
_THRESHOLD = 20.0


@lru_cache
def formula_of(name: str, parameters: str = "") -> Activation | None:
    """Return the activation of a class or function with its parameters; None unless all are known.

    ``parameters`` as in `columns.LAYER_COLUMNS`; they are the parameters of what is returned.
    """
    plain = name.casefold().replace("_", "").removesuffix("activation")
    given = _parsed(parameters)
    if given is None:
        return None
    if plain in _MADE:
        try:
            return _MADE[plain](**given)
        except (TypeError, ValueError, ZeroDivisionError):  # of another version, or altered
            return None
    one = known_activation(plain)
    # A class Swish may learn its β; SiLU has none.
    return one if one and one.name in _WHOLE and plain != "swish" else None


def known_activation(name: str) -> Activation | None:
    """Return the activation of a class or function, with any parameters; None for others."""
    try:
        return family.get(name)
    except UsageError:
        return None


def slopes_between(
    one: Activation, least: FloatArray, most: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the least and greatest derivative between two inputs of each channel, (R,) each."""
    x = least[:, None] + (most - least)[:, None] * np.linspace(0.0, 1.0, _POINTS)
    kinks = np.array([0.0, *one.parameters.values()])  # at 0, at the bounds of a clamp
    near = np.concatenate([kinks - 1e-9, kinks + 1e-9])[None]
    x = np.hstack([x, np.clip(near, least[:, None], most[:, None])])
    slopes = np.asarray(one.derivative(x, **one.parameters))
    return slopes.min(axis=1), slopes.max(axis=1)


def saturated(one: Activation, low: FloatArray, high: FloatArray) -> npt.NDArray[np.bool_]:
    """Return where no derivative from low to high is `SATURATED` of the steepest there is."""
    steepest = max(map(abs, one.derivative_bounds(**one.parameters)))
    return np.asarray(np.maximum(np.abs(low), np.abs(high)) < SATURATED * steepest)


def _parsed(parameters: str) -> dict[str, Any] | None:
    """Return parameters by name, numbers but for ``approximate``; None if they are none."""
    pairs = [part.partition("=") for part in parameters.split(", ") if part]
    try:
        return {name: text if name == "approximate" else float(text) for name, _, text in pairs}
    except ValueError:
        return None


def _with(name: str, **parameters: float) -> Activation:
    """Return an activation with its parameters, which its title names."""
    one = family.get(name)
    words = ", ".join(f"{key} {value:g}" for key, value in parameters.items())
    return replace(one, title=f"{one.title} ({words})", parameters=parameters)


def _scaled(name: str, scale: float, title: str) -> Activation:
    """Return f(scale·x)/scale of an activation f, whose derivative has the same bounds."""
    one = family.get(name)

    def function(x: Any) -> Any:
        return one(scale * x) / scale

    def derivative(x: Any) -> Any:
        return one.derivative(scale * x, **one.parameters)

    def bounds() -> tuple[Any, Any]:
        return one.derivative_bounds(**one.parameters)

    return replace(one, title=title, function=function, derivative=derivative,
                   derivative_bounds=bounds, limits=None, parameters={})  # fmt: skip


def _softplus(beta: float, threshold: float) -> Activation:
    if threshold < _THRESHOLD:
        raise ValueError
    return _scaled("softplus", beta, "Softplus" if beta == 1 else f"Softplus (beta {beta:g})")


def _clamp(**bounds: float) -> Activation:
    if not bounds or not bounds.keys() <= {"min", "max"}:
        raise ValueError
    return _between(bounds.get("min", -_INF), bounds.get("max", _INF), "clamp")


def _between(low: float, high: float, title: str) -> Activation:
    if low == 0 and high in (6, _INF):
        return family.get("relu" if high == _INF else "relu6")
    made = _with("hardtanh", low=low, high=high)
    return replace(made, title=f"{title} ({low:g} to {high:g})")


def _gelu(approximate: str = "none") -> Activation:
    return family.get("gelu_tanh" if approximate == "tanh" else "gelu")


#: By class or function: what makes its record of its parameters, which have PyTorch's names.
_MADE: dict[str, Callable[..., Activation]] = {
    "leakyrelu": lambda negative_slope: _with("leaky_relu", slope=negative_slope),
    "prelu": lambda weight: _with("prelu", slope=weight),
    "rrelu": lambda lower, upper: _with("rrelu", lower=lower, upper=upper),
    "elu": lambda alpha: _with("elu", alpha=alpha),
    "celu": lambda alpha: _scaled("elu", 1 / alpha, f"CELU (alpha {alpha:g})"),
    "softplus": _softplus,
    "gelu": _gelu,
    "newgelu": lambda: family.get("gelu_tanh"),
    "quickgelu": lambda: _with("swish", beta=1.702),
    "hardtanh": lambda min_val, max_val: _between(min_val, max_val, "Hard tanh"),
    "clamp": _clamp,
    "clampmin": _clamp,
    "clampmax": _clamp,
}
