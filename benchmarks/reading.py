"""(d) A run of 50,000 samples x 3,776 channels: one layer, and the histograms of all layers.

python benchmarks/reading.py [--samples 50000] [--keep FOLDER]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import table, write_section

from acon_analysis.columns import RUN_FORMAT
from acon_analysis.runs.run import open_run
from acon_analysis.store.folder import RunFolder

#: ResNet-50's Meta-ACON layers, 3,776 channels.
WIDTHS = [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3
UNIT = 4096


def make(out: Path, samples: int) -> None:
    """Write a run of synthetic β through the real writer."""
    from acon_hooks.captures.unit import UnitBuffer
    from acon_hooks.engine.feed import Batch

    folder, generator = RunFolder(out), np.random.default_rng(0)
    columns = {(f"layer{n}", 0): (f"layer{n}", width) for n, width in enumerate(WIDTHS)}
    units = -(-samples // UNIT)
    for unit in range(units):
        ids = list(range(unit * UNIT, min((unit + 1) * UNIT, samples)))
        logits = {
            key: generator.standard_normal((len(ids), width), dtype=np.float32)
            for key, (_, width) in columns.items()
        }
        buffer = UnitBuffer(unit, None)
        values = {key: 1 / (1 + np.exp(-value)) for key, value in logits.items()}
        buffer.add(Batch(unit, ids, None), values)
        folder.write_unit(unit, buffer.tables(columns))
        del logits, values, buffer
    layers = [
        {"layer": f"layer{n}", "call": 0, "kind": "meta_acon", "channels": width,
         "granularity": "channel", "reader": "synthetic", "class_name": "", "proof_error": 0.0,
         "column": f"layer{n}", "proof_power": 1.0}
        for n, width in enumerate(WIDTHS)
    ]  # fmt: skip
    manifest = {"format": RUN_FORMAT, "identity": {"model": "synthetic"}, "layers": layers,
                "samples": samples, "units": units, "complete": True}  # fmt: skip
    folder.write_manifest(manifest)
    counts = open_run(out).histogram_table()
    digest = folder.write_table("histograms", counts)
    folder.write_manifest({**manifest, "tables": {"histograms.parquet": digest}})


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        out = options.keep or Path(place) / "run"
        if not out.is_dir():
            make(out, options.samples)
        rows: list[list[object]] = []
        for layer in ("layer0", "layer8", "layer15"):
            times = []
            for _ in range(9):
                run = open_run(out)
                start = time.perf_counter()
                matrix = run.beta_matrix(layer)
                times.append(time.perf_counter() - start)
            seconds = statistics.median(times)
            rows.append([f"one layer, {matrix.shape}, into numpy", f"{seconds:.2f} s"])
        found = []
        for _ in range(5):
            done = subprocess.run(
                [sys.executable, str(Path(__file__).with_name("drawing.py")), str(out)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            found.append(json.loads(done.stdout))
        medians = pd.DataFrame(found).median()
        rows.append(["counts of all layers", f"{medians['counted']:.2f} s"])
        rows.append(["16 histograms drawn, after imports", f"{medians['drawn']:.2f} s"])
        rows.append(["16 empty panels drawn: Matplotlib alone", f"{medians['panels']:.2f} s"])
        rows.append(["peak memory of that process", f"{medians['peak']:.0f} MB"])
        size = sum(file.stat().st_size for file in (out / "betas").iterdir())
        counts = sum(file.stat().st_size for file in (out / "histograms").iterdir())
        rows.append(["betas/ on disk", f"{size / 1e9:.2f} GB"])
        rows.append(["histograms/ on disk", f"{counts / 1e6:.0f} MB"])
    text = f"{options.samples} samples x {sum(WIDTHS)} channels, synthetic values.\n\n"
    write_section("d. Reading a large run", text + table(["what", "value"], rows))


if __name__ == "__main__":
    main()
