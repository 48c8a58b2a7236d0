"""The operations of the kernels in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from acon_analysis.errors import UsageError


class NumpyOps:
    """numpy behind the interface ``Ops``; float32 stays float32, float16 is worked in float32."""

    def prepare(self, owner: str, named: dict[str, Any]) -> tuple[list[Any], Callable[[Any], Any]]:
        """Return the arguments in working precision and the function that casts a result back."""
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

    def like(self, x: Any, value: float) -> Any:
        """Return the value in the shape and precision of x."""
        return np.full_like(x, value)

    def may_hold_nan(self, x: Any) -> bool:
        """Return whether x holds NaN."""
        return bool(np.isnan(x).any())

    def exp(self, x: Any) -> Any:
        """Return e^x."""
        return np.exp(x)

    def expm1(self, x: Any) -> Any:
        """Return e^x - 1."""
        return np.expm1(x)

    def tanh(self, x: Any) -> Any:
        """Return the hyperbolic tangent."""
        return np.tanh(x)

    def sigmoid(self, x: Any) -> Any:
        """Return 1 / (1 + e^-x) by the power that cannot overflow."""
        small = np.exp(-np.abs(x))
        return np.where(x < 0, small, 1) / (1 + small)

    def softplus(self, x: Any) -> Any:
        """Return log(1 + e^x)."""
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def erfc(self, x: Any) -> Any:
        """Return the complementary error function."""
        from scipy.special import erfc  # only GELU needs scipy, which takes a while to load

        return erfc(x)

    def absolute(self, x: Any) -> Any:
        """Return |x|."""
        return np.abs(x)

    def isnan(self, x: Any) -> Any:
        """Return where x is NaN."""
        return np.isnan(x)

    def isinf(self, x: Any) -> Any:
        """Return where x is infinite."""
        return np.isinf(x)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """Return x where the condition holds, y elsewhere."""
        return np.where(condition, x, y)

    def clip(self, x: Any, low: float, high: float) -> Any:
        """Return x limited to low..high."""
        return np.clip(x, low, high)

    def minimum(self, x: Any, y: Any) -> Any:
        """Return the smaller one."""
        return np.minimum(x, y)

    def maximum(self, x: Any, y: Any) -> Any:
        """Return the larger one."""
        return np.maximum(x, y)

    def total(self, x: Any, axis: int) -> Any:
        """Return the sum along an axis, which stays with length 1."""
        return np.sum(x, axis=axis, keepdims=True)

    def largest(self, x: Any, axis: int) -> Any:
        """Return the largest value along an axis, which stays with length 1."""
        return np.max(x, axis=axis, keepdims=True)

    def expand(self, x: Any, axis: int) -> Any:
        """Return x with a new axis of length 1."""
        return np.expand_dims(x, axis)

    def squeeze(self, x: Any, axis: int) -> Any:
        """Return x without the axis of length 1."""
        return np.squeeze(x, axis=axis)

    def broadcast(self, *arrays: Any) -> tuple[Any, ...]:
        """Return the arrays in their common shape."""
        return tuple(np.broadcast_arrays(*arrays))


def _plain(value: Any) -> bool:
    """Return whether a value is a Python number or a list or tuple of them, however deep."""
    if isinstance(value, (list, tuple)):
        return all(_plain(item) for item in value)
    return type(value) in (bool, int, float)
