"""The operations of the kernels in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from acon_analysis.errors import UsageError


class NumpyOps:
    """numpy as kernels use it; float32 stays float32, float16 is worked in float32."""

    def __init__(self) -> None:
        self.like: Any = np.full_like  # a value in the shape and precision of an array
        self.exp: Any = np.exp
        self.expm1: Any = np.expm1
        self.tanh: Any = np.tanh
        self.absolute: Any = np.abs
        self.isnan: Any = np.isnan
        self.isinf: Any = np.isinf
        self.where: Any = np.where
        self.clip: Any = np.clip  # NaN stays NaN
        self.minimum: Any = np.minimum  # NaN wins
        self.maximum: Any = np.maximum  # NaN wins
        self.expand: Any = np.expand_dims  # by an axis of length 1
        self.squeeze: Any = np.squeeze  # without an axis of length 1
        self.broadcast: Any = np.broadcast_arrays

    # Arguments in working precision, and the function that casts a result back.
    def prepare(self, owner: str, named: dict[str, Any]) -> tuple[list[Any], Callable[[Any], Any]]:
        arrays = {name: np.asarray(value) for name, value in named.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise UsageError(
                    f"{owner}: {name} has dtype {array.dtype}; expected real numbers "
                    "(integers, float16, float32 or float64)"
                )
        # A Python number has no precision of its own, nor has a list of them.
        kinds = [1.0 if _plain(named[name]) else array for name, array in arrays.items()]
        dtype = np.result_type(*kinds)
        dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
        working = np.float32 if dtype == np.float16 else dtype

        def restore(result: Any) -> Any:
            # [()] makes a numpy scalar of a 0-dimensional array and leaves others alone.
            return np.asarray(result, dtype=dtype)[()]

        return [array.astype(working, copy=False) for array in arrays.values()], restore

    # False only if x surely holds no NaN (torch is not asked: it would wait).
    def may_hold_nan(self, x: Any) -> bool:
        return bool(np.isnan(x).any())

    def sigmoid(self, x: Any) -> Any:
        small = np.exp(-np.abs(x))  # the power that cannot overflow
        return np.where(x < 0, small, 1) / (1 + small)

    def softplus(self, x: Any) -> Any:
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def erfc(self, x: Any) -> Any:
        from scipy.special import erfc  # only GELU needs scipy, which takes a while to load

        return erfc(x)

    # The axis stays with length 1.
    def total(self, x: Any, axis: int) -> Any:
        return np.sum(x, axis=axis, keepdims=True)

    def largest(self, x: Any, axis: int) -> Any:
        return np.max(x, axis=axis, keepdims=True)


def _plain(value: Any) -> bool:
    """Return whether a value is a Python number or a list or tuple of them, however deep."""
    if isinstance(value, (list, tuple)):
        return all(_plain(item) for item in value)
    return type(value) in (bool, int, float)
