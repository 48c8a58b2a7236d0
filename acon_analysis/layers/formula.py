"""The ACON formula in as few passes over memory as eager torch allows."""

import torch
from torch import Tensor

from acon_analysis.layers.checks import require_channels


def match_rank(parameter: Tensor, rank: int) -> Tensor:
    """View a tensor of shape (n, C, 1, 1) as (n, C), (n, C, 1), ... of the given rank."""
    if rank == 4:
        return parameter
    return parameter.reshape(*parameter.shape[:2], *[1] * (rank - 2))


def must_keep() -> bool:
    """Return whether intermediate values must survive: for a backward pass or a traced graph."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return torch.is_grad_enabled() or tracing


def acon(layer: str, x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """Compute d·x·σ(β·d·x) + p2·x with d = p1 - p2, shape of x; `ShapeError` if x does not fit.

    x is (N, C) or (N, C, ...) and stays as it is; p1 and p2 are (1, C, 1, 1), β is (1, C, 1, 1),
    (N, C, 1, 1), (N, 1, 1, 1) or of x's shape. Computed as x·(d·σ(x·βd) + p2): every product of
    parameters comes before the input, so five passes, in place where autograd records nothing.
    """
    require_channels(layer, x, p1.shape[1])
    p1, p2 = match_rank(p1, x.ndim), match_rank(p2, x.ndim)
    if beta.shape != x.shape:
        beta = match_rank(beta, x.ndim)
    d = p1 - p2
    gate = (x * (beta * d)).sigmoid_()
    if must_keep():
        return torch.addcmul(p2, d, gate) * x
    return gate.mul_(d).add_(p2).mul_(x)
