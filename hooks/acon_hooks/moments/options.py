"""What a capture gathers of moments, and with which kernel."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from acon_analysis.errors import StoreError, UsageError
from acon_analysis.moments.fields import BLOCKS, FEWEST_BLOCKS, MOST_BLOCKS, UNRECORDED_BLOCKS
from acon_hooks.layers.scan import PLAIN_KINDS
from acon_hooks.moments.constants import GATED_KINDS
from acon_hooks.moments.native.build import NativeError
from acon_hooks.moments.native.sums import native
from acon_hooks.moments.triton_sums import triton_sums

#: What `capture` takes for moments: none, the usual, or every sample's states too.
Wish = bool | Literal["full"]

#: What sums over the pixels: C++ compiled on this machine, Triton, or the operators of torch.
KERNELS = ("auto", "compiled", "triton", "eager")

#: Kinds whose output depends, element by element, on the input or on two factors.
KINDS = (*GATED_KINDS, *PLAIN_KINDS)


@dataclass(frozen=True)
class MomentOptions:
    """What an accumulator gathers.

    Parameters
    ----------
    full : bool
        Store the states of every sample and channel, too: about 190 bytes each.
    kernel : {"auto", "compiled", "triton", "eager"}
        What sums over the pixels: C++ that is compiled once on this machine, for the CPU; a Triton
        kernel, for accelerators; or the operators of torch (several times slower). All sum in
        float64 and are right to 1e-6 (see `acon_hooks.moments.kernels`), but differ in the last
        digits. "auto" is the first or the second where they can be had.
    blocks : int, optional
        Blocks of samples that are kept apart for the jackknife, block = sample_id mod blocks: fewer
        make smaller files and wider intervals. By default what the run began with, else 101.
    """

    full: bool = False
    kernel: str = "auto"
    blocks: int | None = None

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise UsageError(
                f"the kernel of moments must be one of {', '.join(KERNELS)}, given {self.kernel!r}"
            )
        known = range(FEWEST_BLOCKS, MOST_BLOCKS + 1)
        if self.blocks is not None and self.blocks not in known:
            raise UsageError(
                f"moments need {FEWEST_BLOCKS} to {MOST_BLOCKS} blocks of samples, given "
                f"{self.blocks}"
            )


def options_of(wish: "Wish | MomentOptions | None") -> MomentOptions | None:
    """Return what `capture(moments=...)` asks for; None for no moments."""
    if isinstance(wish, MomentOptions):
        return wish
    if wish == "full":
        return MomentOptions(full=True)
    if wish is None or isinstance(wish, bool):
        return None if wish is False else MomentOptions()
    raise UsageError(f"moments must be True, False or 'full', given {wish!r}")


def settle(
    options: MomentOptions,
    device: torch.device,
    recorded: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] | None = None,
    *,
    masked: bool = False,
) -> tuple[MomentOptions, str]:
    """Decide on what was left open; return the options and why "auto" is "eager".

    That is the kernel, and the blocks that the run (`recorded`) began with, or ours. `masked`:
    padded positions are left out, which no kernel but torch's can do. UsageError: the kernel is
    asked for and cannot be had; StoreError: the run was begun with it.
    """
    if options.blocks is None:
        unsaid = BLOCKS if recorded is None else UNRECORDED_BLOCKS
        options = replace(options, blocks=(recorded or {}).get("blocks", unsaid))
    asked, begun = options.kernel, (recorded or {}).get("kernel")
    kernel = begun or asked if asked == "auto" else asked
    if kernel == "auto":
        kernel = "compiled" if device.type == "cpu" else "triton"
    reason = "" if kernel == "eager" else _lacking(kernel, device, announce, masked=masked)
    if not reason:
        return replace(options, kernel=kernel), ""
    if asked != "auto":
        raise UsageError(f"the {kernel} kernel of moments cannot be had: {reason}")
    if begun is not None:
        raise StoreError(
            f"the run was begun with the {kernel} kernel of moments, which cannot be had here "
            f"({reason}): go on where it can, or choose another folder"
        )
    return replace(options, kernel="eager"), reason


def _lacking(
    kernel: str, device: torch.device, announce: Callable[[str], None] | None, *, masked: bool
) -> str:
    """Return why a kernel cannot be had; empty if it can."""
    if masked:
        return "it cannot leave out padded positions (mask=)"
    try:
        if kernel == "triton":
            triton_sums(device)
        elif device.type == "cpu":
            native(announce)
        else:
            return f"the network runs on {device.type}"
    except NativeError as error:
        return str(error)
    return ""


def recorded_options(options: MomentOptions, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return settled options as a run's identity holds them."""
    # `recorded`: those that the run was begun with. Without a number of blocks they are of a
    # version that knew 100 only: such runs keep their identity.
    found = {"stride": 1, **asdict(options)}  # as runs of versions that could leave out pixels
    if recorded is not None and "blocks" not in recorded and options.blocks == UNRECORDED_BLOCKS:
        del found["blocks"]
    return found
