"""(e) A capture killed twice and continued by other processes, compared byte by byte.

python benchmarks/resuming.py --images FOLDER [--network NAME] [--count 1200] [--unit 100]
    [--batch-size 16] [--kill-at 3 7] [--no-moments] [--preprocess NAME]

The photographs of FOLDER are linked again and again until there are so many. One process captures
them undisturbed. Then the same is begun by one process, which is killed (SIGKILL) when so many
units are done; torchrun continues it with two processes, of which one is killed; torchrun continues
again. Then `acon verify`, and every file of the two runs is compared. Needs Linux's /proc.
"""

import argparse
import filecmp
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import repeated, table, write_section

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "acon_analysis")
HEAD = ("network", "images", "units", "units done at each kill", "exit codes", "verify", "files",
        "of them different")  # fmt: skip
TEXT = """\
Begun by one process and killed by SIGKILL; continued by two processes under torchrun, one of which
was killed; continued by torchrun again; compared with a capture by one process that nothing
disturbed. Units done and exit codes in this order (torchrun's own where it ran). One thread a
process, one worker, batches of {batch}.

"""


def done(run: Path) -> int:
    """Return how many units of a run are done."""
    return len(list((run / "betas").glob("*.parquet")))


class Began:
    """A capture in processes of its own, which are all gone when the context ends."""

    def __init__(self, module: Sequence[str], arguments: Sequence[str], out: Path) -> None:
        self.command = [sys.executable, "-m", *module, *arguments, "--out", str(out)]
        self.out = out
        self.log = out.with_name(f"{out.name}.log")

    def __enter__(self) -> "Began":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, start_new_session=True, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # so that torchrun ends its own, which killing would not
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.kill()

    def reach(self, units: int) -> None:
        """Wait until so many units are done."""
        while done(self.out) < units:
            if self.process.poll() is not None:
                raise SystemExit(f"it ended before {units} units were done:\n{self.said()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def kill_rank(self, rank: int) -> None:
        """Kill one of the processes that torchrun has started."""
        for folder in Path("/proc").iterdir():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                own = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):  # no process, or one that has ended
                continue
            if parent == str(self.process.pid) and f"RANK={rank}".encode() in own:
                os.kill(int(folder.name), signal.SIGKILL)
                return
        raise SystemExit(f"rank {rank} had ended before it could be killed: give more images")

    def said(self) -> str:
        """Return the end of what it has written."""
        return self.log.read_text("utf-8", errors="replace")[-2_000:]


def differing(one: Path, other: Path) -> tuple[int, list[str]]:
    """Return how many files two folders have, and those that differ or are in one of them only."""
    found = {
        str(path.relative_to(folder))
        for folder in (one, other)
        for path in folder.rglob("*")
        if path.is_file()
    }
    same = filecmp.cmpfiles(one, other, found, shallow=False)[0]
    return len(found), sorted(found.difference(same))


def disturbed(arguments: Sequence[str], out: Path, kills: Sequence[int]) -> tuple[list[int], ...]:
    """Capture with two kills; return the units done at each, and all exit codes."""
    units, codes = [], []
    with Began(["acon_analysis"], arguments, out) as alone:
        alone.reach(kills[0])
        alone.kill()
        codes.append(alone.process.wait())
        units.append(done(out))
    with Began(TORCHRUN, arguments, out) as two:
        two.reach(max(kills[1], units[0] + 1))  # this one's own work, too, is cut off
        two.kill_rank(1)
        codes.append(two.process.wait())
        units.append(done(out))
    with Began(TORCHRUN, arguments, out) as two:
        codes.append(two.process.wait())
    return units, codes


def measure(options: argparse.Namespace, work: Path) -> list[object]:
    """Capture both ways, verify, compare; return the row of the table."""
    images = repeated(options.images, work / "images", options.count)
    arguments = ["capture", options.network, "--data", str(images), "--threads", "1",
                 "--workers", "1", "--unit", str(options.unit),
                 "--batch-size", str(options.batch_size)]  # fmt: skip
    arguments += ["--no-moments"] if options.no_moments else []
    arguments += ["--preprocess", options.preprocess] if options.preprocess else []
    whole, parts = work / "whole", work / "parts"
    with Began(["acon_analysis"], arguments, whole) as capture:
        if capture.process.wait():
            raise SystemExit(f"the undisturbed capture failed:\n{capture.said()}")
    units, codes = disturbed(arguments, parts, options.kill_at)
    verify = [sys.executable, "-m", "acon_analysis", "verify", str(parts)]
    verified = subprocess.run(verify, capture_output=True, text=True, check=False)
    files, other = differing(whole, parts)
    print("\n".join([verified.stdout.strip() or verified.stderr.strip(), *other]))
    what = "β" if options.no_moments else "β and moments"
    return [
        f"{options.network}, {what}", options.count, done(whole), ", ".join(map(str, units)),
        ", ".join(map(str, codes)),
        "sound" if verified.returncode == 0 else f"exit {verified.returncode}",
        files, len(other),
    ]  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--network", default="shufflenet_v2_x0_5_metaacon")
    parser.add_argument("--count", type=int, default=1_200)
    parser.add_argument("--unit", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--kill-at", nargs=2, type=int, default=[3, 7])
    parser.add_argument("--no-moments", action="store_true")
    parser.add_argument("--preprocess")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        row = measure(options, Path(place))
    what = "β" if options.no_moments else "β and moments"
    name = f"e. Captures killed and continued, {options.network}, {what}"
    write_section(name, TEXT.format(batch=options.batch_size) + table(HEAD, [row]))


if __name__ == "__main__":
    main()
