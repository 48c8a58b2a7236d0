"""Parameters of PyTorch's activations as text, such as ``"negative_slope=0.1"``."""

from typing import Any

from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils._python_dispatch import _disable_current_modes

from acon_hooks.engine.sites import Args, Kwargs

_INF = float("inf")

#: By class or function, without underscores: parameters in the order of the function's arguments
#: after the input, with their defaults.
_PARAMETERS: dict[str, dict[str, Any]] = {
    "leakyrelu": {"negative_slope": 0.01},
    "prelu": {"weight": None},
    "rrelu": {"lower": 1 / 8, "upper": 1 / 3},
    "elu": {"alpha": 1.0},
    "celu": {"alpha": 1.0},
    "gelu": {"approximate": "none"},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "clamp": {"min": -_INF, "max": _INF},
    "clampmin": {"min": -_INF},
    "clampmax": {"max": _INF},
    "hardshrink": {"lambd": 0.5},
    "softshrink": {"lambd": 0.5},
    "threshold": {"threshold": None, "value": None},
}


def module_parameters(module: nn.Module) -> str:
    """Return the parameters of an activation of torch.nn; "" for others, or without any."""
    if type(module).__module__ != nn.LeakyReLU.__module__:
        return ""
    known = _PARAMETERS.get(type(module).__name__.casefold(), {})
    return _text({name: getattr(module, name, None) for name in known})


def call_parameters(function: str, args: Args, kwargs: Kwargs) -> str:
    """Return the parameters of a call of a function; "" where one is a tensor of several values."""
    known = _PARAMETERS.get(function.replace("_", ""), {})
    given = args if "input" in kwargs else args[1:]
    values = known | dict(zip(known, given, strict=False))
    values |= {name: value for name, value in kwargs.items() if name in known}
    if function.startswith("clamp"):  # a bound of None is none
        values = {name: known[name] if value is None else value for name, value in values.items()}
    return _text(values)


def _text(values: dict[str, Any]) -> str:
    numbers = {name: _number(value) for name, value in values.items()}
    if None in numbers.values():
        return ""
    return ", ".join(f"{name}={value}" for name, value in numbers.items())


def _number(value: Any) -> str | None:
    """Return a number or word as text, the value of a tensor that holds one; None for others."""
    if type(value) in (Tensor, nn.Parameter) and value.numel() == 1 and not value.is_meta:
        if is_functorch_wrapped_tensor(value):
            return None
        with _disable_current_modes():  # what counts operators is not to count this one
            value = float(f"{value.item():.7g}")  # no more digits than float32 has
    return str(value) if isinstance(value, int | float | str) else None
