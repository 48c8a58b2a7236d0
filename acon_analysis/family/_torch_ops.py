"""The operations of the kernels in torch, which is handed in rather than imported."""

from collections.abc import Callable
from typing import Any

from acon_analysis.errors import UsageError


class TorchOps:
    """torch behind the interface ``Ops``; half precisions are worked in float32.

    Parameters
    ----------
    torch : module
        The torch that the caller has loaded.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def prepare(self, owner: str, named: dict[str, Any]) -> tuple[list[Any], Callable[[Any], Any]]:
        """Return the arguments in working precision and the function that casts a result back.

        The dtype follows torch's promotion among the tensors (0-dimensional ones give way);
        numbers and numpy arrays among the arguments take on the dtype and device of the tensors.
        """
        torch = self.torch
        tensors = {name: v for name, v in named.items() if isinstance(v, torch.Tensor)}
        for name, tensor in tensors.items():
            if tensor.is_complex():
                raise UsageError(f"{owner}: {name} has dtype {tensor.dtype}; expected real numbers")
        ranked = sorted(tensors.values(), key=lambda tensor: tensor.ndim == 0)
        floating = [tensor for tensor in ranked if tensor.is_floating_point()]
        dtype = floating[0].dtype if floating else torch.get_default_dtype()
        for tensor in floating[1:]:
            if tensor.ndim > 0 or floating[0].ndim == 0:
                dtype = torch.promote_types(dtype, tensor.dtype)
        working = torch.float32 if torch.finfo(dtype).bits < 32 else dtype
        device = ranked[0].device

        def convert(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.to(working) if value.ndim else value.to(device, working)
            if isinstance(value, (bool, int, float)):
                return torch.full((), float(value), dtype=working, device=device)
            return torch.as_tensor(value, dtype=working, device=device)

        def restore(result: Any) -> Any:
            return result.to(dtype)

        return [convert(value) for value in named.values()], restore

    def like(self, x: Any, value: float) -> Any:
        """Return the value in the shape and precision of x."""
        return self.torch.full_like(x, value)

    def may_hold_nan(self, x: Any) -> bool:
        """Return True: nobody looked."""
        return True

    def exp(self, x: Any) -> Any:
        """Return e^x."""
        return self.torch.exp(x)

    def expm1(self, x: Any) -> Any:
        """Return e^x - 1."""
        return self.torch.expm1(x)

    def tanh(self, x: Any) -> Any:
        """Return the hyperbolic tangent."""
        return self.torch.tanh(x)

    def sigmoid(self, x: Any) -> Any:
        """Return 1 / (1 + e^-x)."""
        return self.torch.sigmoid(x)

    def softplus(self, x: Any) -> Any:
        """Return log(1 + e^x).

        Not by ``torch.nn.functional.softplus``, which is x above its threshold of 20 and so is
        wrong by 2e-9 in float64.
        """
        return -self.torch.nn.functional.logsigmoid(-x)

    def erfc(self, x: Any) -> Any:
        """Return the complementary error function."""
        return self.torch.erfc(x)

    def absolute(self, x: Any) -> Any:
        """Return |x|."""
        return self.torch.abs(x)

    def isnan(self, x: Any) -> Any:
        """Return where x is NaN."""
        return self.torch.isnan(x)

    def isinf(self, x: Any) -> Any:
        """Return where x is infinite."""
        return self.torch.isinf(x)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """Return x where the condition holds, y elsewhere."""
        return self.torch.where(condition, x, y)

    def clip(self, x: Any, low: float, high: float) -> Any:
        """Return x limited to low..high."""
        return self.torch.clamp(x, low, high)

    def minimum(self, x: Any, y: Any) -> Any:
        """Return the smaller one."""
        return self.torch.minimum(x, y)

    def maximum(self, x: Any, y: Any) -> Any:
        """Return the larger one."""
        return self.torch.maximum(x, y)

    def total(self, x: Any, axis: int) -> Any:
        """Return the sum along an axis, which stays with length 1."""
        return self.torch.sum(x, dim=axis, keepdim=True)

    def largest(self, x: Any, axis: int) -> Any:
        """Return the largest value along an axis, which stays with length 1."""
        return self.torch.amax(x, dim=axis, keepdim=True)

    def expand(self, x: Any, axis: int) -> Any:
        """Return x with a new axis of length 1."""
        return self.torch.unsqueeze(x, axis)

    def squeeze(self, x: Any, axis: int) -> Any:
        """Return x without the axis of length 1."""
        return self.torch.squeeze(x, dim=axis)

    def broadcast(self, *arrays: Any) -> tuple[Any, ...]:
        """Return the arrays in their common shape."""
        return tuple(self.torch.broadcast_tensors(*arrays))
