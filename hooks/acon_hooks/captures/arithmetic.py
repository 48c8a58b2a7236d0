"""What must stay the same for one run to give the same numbers: threads, precision, layout."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads inside one operator; None leaves them as they are.

    Sums are split differently for different numbers, so bytes only repeat for equal ones.
    """
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 as float32: no TF32, which some devices use for convolutions by default."""
    backends: Any = torch.backends
    owners = (
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.cuda.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.matmul,
    )
    with ExitStack() as stack:
        for owner in owners:
            stack.callback(setattr, owner, "fp32_precision", owner.fp32_precision)
            owner.fp32_precision = "ieee"
        yield


def wants_channels_last(model: nn.Module) -> bool:
    """Tell whether a model has 2-D convolutions in the ordinary layout.

    Convolutions read channels-last images 3 to 14 % faster here (see ``benchmarks/``), and much
    faster on GPUs. A model that its owner has laid out already is left alone.
    """
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return bool(weights) and all(weight.is_contiguous() for weight in weights)


@contextmanager
def channels_last(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Lay out a model's parameters channels-last, and back afterwards."""
    if not wanted:
        yield
        return
    model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)


def laid_out(images: Tensor, *, channels_last: bool) -> Tensor:
    """Return a batch in the layout of the model's weights."""
    if channels_last and images.ndim == 4:
        return images.contiguous(memory_format=torch.channels_last)
    return images
