"""Whether a first batch has padded positions that nobody has named."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from acon_hooks.engine.feed import Batch
from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.trees import leaves
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import PaddingWarning

_KEYS = ("key_padding_mask", "src_key_padding_mask")


class _PaddingMasks(Visitor):
    """Keeps the padding masks of attention."""

    def __init__(self) -> None:
        self.masks: list[Tensor] = []

    def before(self, call: SiteCall) -> None:
        """Note which positions of a call are padded."""
        mask = next((found for key in _KEYS if (found := call.kwargs.get(key)) is not None), None)
        if isinstance(mask, Tensor):
            self.masks.append(mask if mask.dtype == torch.bool else mask == -torch.inf)


def warn_of_padding(model: nn.Module, batch: Batch) -> None:
    """Warn if some positions of a first batch are padded and no mask leaves them out.

    Seen are masks among the inputs, 1 where a position holds data, and padding masks of
    `torch.nn.MultiheadAttention`, for which the model runs once.
    """
    if batch.options.masks:
        return
    padded = [~value.bool() for path, value in leaves(batch.inputs) if _is_mask(path, value)]
    sites = [
        Site(name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    if not padded and sites:
        visitor = _PaddingMasks()
        with visiting(model, sites, visitor), torch.no_grad():
            batch.copy().run(model)
        padded = visitor.masks[:1]
    share = max((float(mask.float().mean()) for mask in padded), default=0.0)
    if share:
        warnings.warn(
            f"{100 * share:.0f} % of the positions of the first batch are padded, and count like "
            "the others: leave them out with mask= (--mask), a key or a function of the batch that "
            "is True where a position holds data",
            PaddingWarning,
            stacklevel=6,
        )


def _is_mask(path: str, value: Any) -> bool:
    """Return whether an input looks like a mask, (N, T), that is 1 where a position holds data."""
    name = path.rpartition("/")[2]
    if "mask" not in name or "padding" in name or value.ndim != 2:
        return False
    return bool(((value == 0) | (value == 1)).all())
