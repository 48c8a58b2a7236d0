"""Captures that are killed at random moments, and continued until they end; run by test_crash.

Everything is imported once; each attempt is a fork of this process, which has no threads yet.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from acon_analysis.runs.run import Run
from acon_analysis.store.folder import RunFolder
from acon_hooks.captures.capturing import capture
from captures import images, tiny

UNITS, UNIT_SIZE, BATCH_SIZE = 8, 8, 4


def attempt(out: Path, delay: float | None) -> bool:
    """Capture in a child process, killed after a delay; say whether it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            capture(
                tiny(), images(UNITS * UNIT_SIZE - 3), out, unit_size=UNIT_SIZE,
                batch_size=BATCH_SIZE, progress=False,
            )  # fmt: skip
            status = 0
        finally:
            os._exit(status)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a capture failed by itself")
    return os.WIFEXITED(status)


def check_unfinished(out: Path) -> int:
    """Raise unless all that a killed capture calls done is sound; return the number of units."""
    folder = RunFolder(out)
    done = folder.done_units()
    if folder.sound_units(done) != set(done):
        raise SystemExit(f"units marked as done are damaged: {done}")
    if folder.manifest_path.exists() and len(Run(out).sample_ids) != sum(
        min(UNIT_SIZE, UNITS * UNIT_SIZE - 3 - unit * UNIT_SIZE) for unit in done
    ):
        raise SystemExit("samples are missing or twice")
    return len(done)


def main(folder: Path, kills: int, seed: int) -> None:
    """Run captures until so many were killed; print what happened as JSON."""
    chance = random.Random(seed)
    start = time.perf_counter()
    attempt(folder / "whole", None)
    whole = time.perf_counter() - start
    killed, runs, found = 0, 0, []
    while killed < kills:
        out = folder / f"run{runs}"
        runs += 1
        while not attempt(out, chance.uniform(0, 0.7 * whole) if killed < kills else None):
            killed += 1
            found.append(check_unfinished(out))
    sys.stdout.write(json.dumps({"killed": killed, "runs": runs, "done": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
