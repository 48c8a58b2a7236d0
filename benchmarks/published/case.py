"""What a network of others is handed to the measures with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class Case:
    """A trained network, natural inputs, and how well it does its job on them."""

    name: str
    package: str
    model: nn.Module
    batches: list[Any]
    """As `acon.capture` takes them."""
    fit: list[Any]
    """Other inputs, to fit replacements on."""
    quality: Callable[[nn.Module], dict[str, float]]
    """What the network gets right, by name; the first is the one that is followed."""
    job: str
    """In one sentence: what it does, on which inputs."""
    options: dict[str, Any] = field(default_factory=dict)
    """forward, mask, output; as `acon.capture` and `acon.replace` take them."""
    kept: tuple[str, ...] = ()
    """Activations that no replacement touches: the last one of the network."""
    blocks: list[str] | None = None
    """Module paths; by default those that are found."""
    block_batches: list[Any] | None = None
    """What blocks are measured on, where it is not `batches`."""
    checked_block: str = "whole network"
    """Whose nonlinearity coefficient is computed again."""

    def call(self, batch: Any) -> Any:
        """Return the output of the network on a batch, as the measures see it."""
        return run(self.model, batch, self.options.get("forward"))


def run(model: nn.Module, batch: Any, forward: Any = None) -> Any:
    """Return the output of a network on a batch."""
    if forward is not None:
        return forward(model, batch)
    return model(**batch) if isinstance(batch, dict) else model(batch)


def parts(x: Tensor, size: int) -> list[Tensor]:
    """Cut samples into batches."""
    return [x[start : start + size] for start in range(0, len(x), size)]
