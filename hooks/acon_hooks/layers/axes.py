"""Where the channels of a plain activation lie: where the layer before it puts them."""

from typing import Any

from torch import Tensor, nn

from acon_hooks.engine.visiting import Site, SiteCall, Visit, Visited, Visitor

_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention)


class Producers(Visitor):
    """Remembers, during the first batch, the last module that made channels.

    Convolutions and batch normalisations put the channels on axis 1, linear layers and layer
    normalisations on the last axis. Where sizes contradict this, the sizes win.
    """

    def __init__(self) -> None:
        self.last: nn.Module | None = None
        self._visited: list[Visited] = []

    def attach(self, visit: Visit) -> None:
        """Visit every module that has channels."""
        self._visited = [
            visit.add(Site(name, module, inner=True), self)
            for name, module in visit.model.named_modules()
            if module is not visit.model and _width(module) is not None
        ]

    def remove(self) -> None:
        """Visit them no longer."""
        for visited in self._visited:
            visited.remove()
        self._visited = []

    def axis(self, x: Tensor) -> int:
        """Return the channel axis of an input; 1 where nothing tells."""
        if x.ndim < 3:
            return min(1, x.ndim - 1)
        last = x.ndim - 1
        width = None if self.last is None else _width(self.last)
        first_fits, last_fits = x.shape[1] == width, x.shape[last] == width
        if first_fits != last_fits:
            return 1 if first_fits else last
        return last if isinstance(self.last, _LAST) else 1

    def after(self, call: SiteCall, output: Any) -> None:
        """Note the module."""
        self.last = call.site.module


def _width(module: nn.Module) -> int | None:
    for name in ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim"):
        found = getattr(module, name, None)
        if isinstance(found, int):
            return found
    shape = getattr(module, "normalized_shape", None)
    return int(shape[-1]) if isinstance(shape, tuple) and shape else None
