"""Networks of one test, whose forward pass is one expression."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn


class Network(nn.Module):
    """Modules by name; the forward pass is `run(network, x)`."""

    def __init__(self, run: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        """Return what `run` makes of an input."""
        return self.run(self, x)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
