"""The layer that stands where some channels of an activation became straight lines."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from acon_hooks.errors import HookError


class AffineChannels(nn.Module):
    """y = slope·x + intercept on some channels of one use of an activation.

    Parameters
    ----------
    channels, axis : int
        Channels of the input, and the axis they lie on.

    Attributes
    ----------
    slope, intercept, chosen : Tensor
        Buffers of shape (C,); where ``chosen`` is False the activation itself is used.
    passes : bool
        Whether this use returns its input: its lines were folded into neighbours.
    share : float
        How far the chosen channels go from the activation (0) to their line (1).
    """

    slope: Tensor
    intercept: Tensor
    chosen: Tensor

    def __init__(self, channels: int, axis: int, like: Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.passes = False
        self.share = 1.0
        blank = torch.zeros(channels, dtype=like.dtype, device=like.device)
        self.register_buffer("slope", blank + 1)
        self.register_buffer("intercept", blank)
        self.register_buffer("chosen", torch.zeros_like(blank, dtype=torch.bool))
        self.settle()

    def settle(self) -> None:
        """Note whether all, some or none of the channels are chosen; after every change of them."""
        self.whole = bool(self.chosen.all())
        self.some = bool(self.chosen.any())

    def spread(self, values: Tensor, ndim: int) -> Tensor:
        """View a (C,) tensor so that it broadcasts along the channel axis."""
        return values.reshape([-1 if place == self.axis else 1 for place in range(ndim)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the lines of x, on every channel."""
        if self.passes:
            return x
        slope, intercept = self.spread(self.slope, x.ndim), self.spread(self.intercept, x.ndim)
        return torch.addcmul(intercept, x, slope)

    @property
    def skips(self) -> bool:
        """Whether no channel needs the activation's own output."""
        return self.whole and self.share == 1.0

    def replace(self, straight: Tensor, bent: Tensor) -> Tensor:
        """Return the activation's output with the lines on the chosen channels."""
        if self.share != 1.0:
            straight = torch.lerp(bent, straight, self.share)
        return torch.where(self.spread(self.chosen, bent.ndim), straight, bent)

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return f"{int(self.chosen.sum())} of {self.chosen.numel()} channels, axis={self.axis}"


class LinearizedActivation(nn.Module):
    """An activation of which some channels are straight lines, use by use.

    The activation runs only where a channel of the use still needs it. Lines stay what they are in
    training; the rest of the network may be trained further.

    Parameters
    ----------
    inner : Module
        The activation.
    calls : int
        How often it is used within one forward pass.
    lines : mapping of int to AffineChannels
        Lines of the uses that have any.
    """

    def __init__(self, inner: nn.Module, calls: int, lines: Mapping[int, AffineChannels]) -> None:
        super().__init__()
        self.inner = inner
        self.calls = calls
        self.position = 0
        self.lines = nn.ModuleDict({str(call): line for call, line in sorted(lines.items())})
        self.eval() if not inner.training else self.train()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the activation of x, its chosen channels replaced."""
        key = str(self._turn())
        line = self.lines[key] if key in self.lines else None  # noqa: SIM401 (it has no get)
        if not isinstance(line, AffineChannels) or not (line.some or line.passes):
            result: Tensor = self.inner(x, *args, **kwargs)
            return result
        straight: Tensor = line(x)  # before an in-place activation overwrites x
        if line.passes or line.skips:
            return straight
        return line.replace(straight, self.inner(x, *args, **kwargs))

    def take_share(self, share: float) -> None:
        """Let the chosen channels go only part of the way from the activation to their line."""
        for line in self.lines.values():
            if isinstance(line, AffineChannels):
                line.share = share

    def _turn(self) -> int:
        """Return which use of this forward pass it is; the model's own hook starts the count."""
        if self.calls == 1:
            return 0
        turn = self.position
        if turn >= self.calls:
            raise HookError(
                f"a linearised activation ran {turn + 1} times in one forward pass, but "
                f"{self.calls} times when the plan was made: call the whole model, not a part of it"
            )
        self.position = turn + 1
        return turn

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return f"calls={self.calls}"


def restart_turns(model: nn.Module, _args: Any = None) -> None:
    """Start the count of uses anew; a pre-hook of the whole model."""
    for module in model.modules():
        if isinstance(module, LinearizedActivation):
            module.position = 0
