"""One process under torchrun: captures its share; rank 1 kills itself on the first start."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from acon_hooks.captures.capturing import capture
from captures import images, tiny


def main(out: Path) -> None:
    """Capture; the thread number is torchrun's own, 1."""
    model, calls = tiny(), 0

    def die(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        model.conv.register_forward_pre_hook(die)
    if torch.get_num_threads() != 1:
        raise SystemExit("torchrun is expected to set OMP_NUM_THREADS=1")
    capture(model, images(45), out, unit_size=8, batch_size=4, progress=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
