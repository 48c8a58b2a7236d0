"""(c) Peak memory of a capture as samples grow 1x, 10x, 100x.

python benchmarks/memory.py [--samples 2000] [--factors 1 10 100]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from common import table, write_section
from peak import peak_megabytes

UNIT = 512


def child(samples: int, out: str) -> None:
    """Capture and print the peak resident memory in MB."""
    import torch
    from torch.utils.data import Dataset

    import acon_analysis as acon

    class Noise(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return samples

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.full((1, 8, 8), (index % 97) / 97)

    torch.set_num_threads(1)
    model = acon.build_model("digits_metaacon")
    acon.capture(model, Noise(), out, unit_size=UNIT, progress=False)
    print(peak_megabytes())


def main() -> None:
    """Run a process for every size and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--factors", nargs="*", type=int, default=[1, 10, 100])
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), options.child[1])
        return
    rows = []
    for factor in options.factors:
        with tempfile.TemporaryDirectory() as place:
            done = subprocess.run(
                [sys.executable, __file__, "--child", str(options.samples * factor),
                 str(Path(place) / "run")],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        rows.append([options.samples * factor, f"{float(done.stdout):.0f}"])
        print(rows[-1], flush=True)
    text = f"digits_metaacon, β and moments, units of {UNIT}.\n\n"
    write_section("c. Peak memory", text + table(["samples", "peak resident MB"], rows))


if __name__ == "__main__":
    main()
