"""Captures killed with SIGKILL at random moments: nothing lost, nothing twice, the same bytes."""

import random
import signal
import time
from pathlib import Path

import pytest

import forks
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_analysis.store.folder import RunFolder
from acon_hooks.captures.capturing import capture
from captures import contents, images, tiny

SAMPLES, UNIT_SIZE = 61, 8


def captured(out: Path) -> None:
    data = images(SAMPLES)
    capture(tiny(), data, out, unit_size=UNIT_SIZE, batch_size=4, threads=1, progress=False)


def finished(out: Path, delay: float | None = None) -> bool:
    """Capture in a process, killed after a delay; return whether it came to its end before."""
    process = forks.start(captured, out, folder=out.parent)
    process.join(delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), (out.parent / "err").read_text()
    return process.exitcode == 0


def units_done(out: Path) -> int:
    """Return how many units a killed capture calls done; all that it calls so must be sound."""
    folder = RunFolder(out)
    done = folder.done_units()
    assert folder.sound_units(done) == set(done)
    if folder.manifest_path.exists():
        sizes = [min(UNIT_SIZE, SAMPLES - UNIT_SIZE * unit) for unit in done]
        assert len(Run(out).sample_ids) == sum(sizes), "samples are missing or twice"
    return len(done)


def kill_and_continue(folder: Path, kills: int, seed: int) -> None:
    chance, done, runs = random.Random(seed), list[int](), list[Path]()
    for out in (folder / "first", folder / "whole"):  # with the first the server starts
        start = time.perf_counter()
        assert finished(out)
        whole = time.perf_counter() - start
    while len(done) < kills:
        out = folder / f"run{len(runs)}"
        runs.append(out)
        while not finished(out, chance.uniform(0, 0.7 * whole) if len(done) < kills else None):
            done.append(units_done(out))
    assert len(set(done)) > 2, "all kills came at the same stage"
    for out in runs:
        verified = verify_run(out)
        assert verified.sound, verified.problems
        assert (verified.captured, verified.bad) == (SAMPLES, 0)
        assert contents(out) == contents(folder / "whole")
        assert not (out / "tmp").exists()


def test_killed_at_25_random_moments(tmp_path: Path) -> None:
    kill_and_continue(tmp_path, 25, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_100_random_moments(tmp_path: Path, seed: int) -> None:
    kill_and_continue(tmp_path, 100, seed)
