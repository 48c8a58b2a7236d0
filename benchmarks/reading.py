"""(d) Large runs, with moments: every command that reads them.

One has 50,000 samples x 3,776 channels, those of ResNet-50's sixteen Meta-ACON layers, the other
24,000 samples and a further layer of 1,024 channels. All layers see maps of 2 x 2, so that runs of
the true size are captured in minutes. Weights are random.

python benchmarks/reading.py [--samples 50000 24000] [--keep FOLDER FOLDER]

Runs that lie in the folders are measured as they are, others captured into them. Fewer numbers than
two measure only the first of the runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import pandas as pd
import torch
from common import table, write_section
from peak import peak_megabytes
from torch import Tensor, nn
from torch.utils.data import Dataset

import acon_analysis as acon
from acon_analysis.layers.meta import MetaAconC

#: ResNet-50's Meta-ACON layers, 3,776 channels.
WIDTHS = (*[64] * 3, *[128] * 4, *[256] * 6, *[512] * 3)
#: The layers of every run.
RUNS = WIDTHS, (*WIDTHS, 1024)
INPUTS = 16


class Noise(Dataset[tuple[Tensor, int]]):
    """Random maps of three scales, (INPUTS, 2, 2), with ten classes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= self.count:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        return torch.randn(INPUTS, 2, 2, generator=generator) * (1 + index % 3), index % 10


def network(widths: Sequence[int]) -> nn.Module:
    """Return 1 x 1 convolutions with BatchNorm and Meta-ACON; statistics of 320 maps."""
    torch.manual_seed(0)
    steps: list[nn.Module] = []
    for before, width in zip([INPUTS, *widths], widths, strict=False):
        convolution = nn.Conv2d(before, width, 1, bias=False)
        steps += [convolution, nn.BatchNorm2d(width), MetaAconC(width)]
    model = nn.Sequential(*steps)
    for _ in range(5):
        model(torch.randn(64, INPUTS, 2, 2))
    return model.eval()


#: Runs acon; writes what Linux says of the process at its end. ru_maxrss counts its parent's.
_ACON = """
import atexit, pathlib, runpy, sys
status = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: status.write_text(pathlib.Path("/proc/self/status").read_text()))
runpy.run_module("acon_analysis", run_name="__main__", alter_sys=True)
"""


def whole_process(arguments: Sequence[str]) -> tuple[float, float]:
    """Run an acon command as a process; return its seconds and its peak memory in MB."""
    with tempfile.NamedTemporaryFile("r") as status:
        command = [sys.executable, "-c", _ACON, status.name, *arguments]
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - start
        return seconds, peak_megabytes(status.read())


def layer_rows(out: Path) -> list[list[object]]:
    """Measure β of the first, a middle and the last layer, read into numpy."""
    names = acon.open_run(out).layers["layer"].tolist()
    rows: list[list[object]] = []
    for layer in (names[0], names[len(names) // 2], names[-1]):
        times = []
        for _ in range(5):
            run = acon.open_run(out)
            start = time.perf_counter()
            matrix = run.beta_matrix(layer)
            times.append(time.perf_counter() - start)
        seconds = f"{statistics.median(times):.2f} s"
        rows.append([f"one layer, {matrix.shape}, into numpy", seconds, ""])
    return rows


def drawing_rows(out: Path) -> list[list[object]]:
    """Measure the histograms of all layers, apart from the imports."""
    script = str(Path(__file__).with_name("drawing.py"))
    found = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, script, str(out)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    medians = pd.DataFrame(found).median()
    peak = f"{medians['peak']:.0f} MB"
    return [
        ["counts of all layers", f"{medians['counted']:.2f} s", ""],
        ["histograms drawn, after imports", f"{medians['drawn']:.2f} s", peak],
        ["empty panels drawn: Matplotlib alone", f"{medians['panels']:.2f} s", ""],
    ]


def command_rows(out: Path) -> list[list[object]]:
    """Measure commands as whole processes."""
    with tempfile.TemporaryDirectory() as place:
        commands = {
            "acon summary": ["summary", str(out)],
            "acon summary --by channel": ["summary", str(out), "--by", "channel"],
            "acon figures": ["figures", "--run", str(out), "--out", place, "--format", "png"],
            "acon report": ["report", str(out), "--out", str(Path(place) / "report.html")],
        }
        rows: list[list[object]] = []
        for name, arguments in commands.items():
            seconds, peak = whole_process(arguments)
            rows.append([name, f"{seconds:.1f} s", f"{peak:.0f} MB"])
        page = (Path(place) / "report.html").stat().st_size
    return [*rows, ["the page", "", f"{page / 1e6:.1f} MB"]]


def measured(out: Path, samples: int, widths: Sequence[int] = WIDTHS) -> list[list[object]]:
    """Capture the run if it is not there; return what was measured: what, time, size."""
    rows: list[list[object]] = []
    if not out.is_dir():
        start = time.perf_counter()
        acon.capture(network(widths), Noise(samples), out, batch_size=256, progress=False)
        rows.append(["captured, with moments", f"{time.perf_counter() - start:.0f} s", ""])
    rows += [*layer_rows(out), *drawing_rows(out), *command_rows(out)]
    for part in ("betas", "moments", "pooled", "totals"):
        size = sum(file.stat().st_size for file in (out / part).iterdir())
        rows.append([f"{part}/ on disk", "", f"{size / 1e6:.0f} MB"])
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", nargs="*", type=int, default=[50_000, 24_000])
    parser.add_argument("--keep", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    tables = []
    for samples, widths, kept in zip_longest(options.samples, RUNS, options.keep):
        if samples is None:
            break
        with tempfile.TemporaryDirectory() as place:
            rows = measured(kept or Path(place) / "run", samples, widths)
        tables.append(f"{samples:,} samples x {sum(widths):,} channels of {len(widths)} layers.")
        tables.append(table(["what", "time", "size"], rows))
    write_section("d. Reading a large run", "\n\n".join(["Random weights.", *tables]))


if __name__ == "__main__":
    main()
