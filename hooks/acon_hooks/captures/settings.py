"""What a capture is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from acon_hooks.moments.options import MomentOptions, Wish


@dataclass(frozen=True)
class Settings:
    """How a capture is done; see `capture` for the meaning of each field."""

    out: Path
    preprocess: str | None = None
    device: str | torch.device = "auto"
    batch_size: int | None = None
    workers: int | None = None
    limit: int | None = None
    unit_size: int | None = None
    strict: bool = False
    kinds: tuple[str, ...] | None = None
    moments: Wish | MomentOptions | None = None
    announce: Callable[[str], None] | None = None
    compile: bool = False
    fuse: bool = False
    threads: int | None = None
    progress: bool = True
