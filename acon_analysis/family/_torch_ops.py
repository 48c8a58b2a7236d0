"""The operations of the kernels in torch, which is handed in rather than imported."""

from collections.abc import Callable
from typing import Any

from acon_analysis.errors import UsageError


class TorchOps:
    """torch, as its caller has loaded it, with the operations of ``NumpyOps``."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.like: Any = torch.full_like
        self.exp: Any = torch.exp
        self.expm1: Any = torch.expm1
        self.tanh: Any = torch.tanh
        self.sigmoid: Any = torch.sigmoid
        self.erfc: Any = torch.erfc
        self.absolute: Any = torch.abs
        self.isnan: Any = torch.isnan
        self.isinf: Any = torch.isinf
        self.where: Any = torch.where
        self.clip: Any = torch.clamp
        self.minimum: Any = torch.minimum
        self.maximum: Any = torch.maximum
        self.expand: Any = torch.unsqueeze
        self.squeeze: Any = torch.squeeze
        self.broadcast: Any = torch.broadcast_tensors

    def prepare(self, owner: str, named: dict[str, Any]) -> tuple[list[Any], Callable[[Any], Any]]:
        # The dtype follows torch's promotion among the tensors (0-dimensional ones give way);
        # numbers and numpy arrays take on the dtype and device of the tensors, and half
        # precisions are worked in float32.
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

    def may_hold_nan(self, x: Any) -> bool:
        return True  # nobody looked

    def softplus(self, x: Any) -> Any:
        # torch.nn.functional.softplus is x above its threshold of 20, wrong by 2e-9 in float64.
        return -self.torch.nn.functional.logsigmoid(-x)

    def total(self, x: Any, axis: int) -> Any:
        return self.torch.sum(x, dim=axis, keepdim=True)

    def largest(self, x: Any, axis: int) -> Any:
        return self.torch.amax(x, dim=axis, keepdim=True)
