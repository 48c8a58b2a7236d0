"""Captures that are asked to end at random moments, and continued; run by test_signals.

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

from acon_analysis.cli import main as acon
from captures import images
from captures import tiny as tiny

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def data() -> object:
    """Return the images of every capture."""
    return images(61)


def attempt(out: Path, errors: Path, number: int | None, delay: float) -> int:
    """Run ``acon capture`` in a child process that gets a signal; return its exit status."""
    child = os.fork()
    if child == 0:
        with errors.open("w") as stream:
            os.dup2(stream.fileno(), 2)
            try:
                acon([
                    "capture", f"{__file__}:tiny", "--data", f"{__file__}:data", "--out", str(out),
                    "--unit", "4", "--batch-size", "4", "--threads", "1",
                ])  # fmt: skip
            except SystemExit as ended:
                os._exit(int(ended.code or 0))
            finally:
                os._exit(99)
    if number is not None:
        time.sleep(delay)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, signals: int, seed: int) -> None:
    """Interrupt captures so many times; print exit statuses and what was said as JSON."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    chance = random.Random(seed)
    torch.set_num_threads(1)
    start = time.perf_counter()
    first = attempt(folder / "whole", folder / "errors", None, 0)
    whole = time.perf_counter() - start
    ended: list[tuple[int, int, str]] = []
    runs = 0
    while len(ended) < signals:
        out = folder / f"run{runs}"
        runs += 1
        while len(ended) < signals:
            number = SIGNALS[len(ended) % 3]
            status = attempt(out, folder / "errors", number, chance.uniform(0, whole))
            if status == 0:
                break
            ended.append((number, status, (folder / "errors").read_text()))
        if attempt(out, folder / "errors", None, 0):
            raise SystemExit((folder / "errors").read_text())
    sys.stdout.write(json.dumps({"first": first, "runs": runs, "ended": ended}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
