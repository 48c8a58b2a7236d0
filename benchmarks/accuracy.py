"""Accuracy of the CIFAR-10 networks, and whether they differ: the same test images for all.

    python benchmarks/accuracy.py [--networks NAME ...] [--weights-of-seeds FOLDER]

Writes RESULTS_accuracy.md. The first four networks differ in one activation and see the same
images in the same order; every further seed in FOLDER (``NAME-seedN.safetensors``) is a row
of its own.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from common import machine, table
from scipy.stats import binomtest

from acon_analysis.data.sources import open_data
from acon_analysis.models.registry import build_model
from acon_analysis.training.release import wilson_interval

NETWORKS = ("cifar10_relu", "cifar10_swish", "cifar10_acon", "cifar10_metaacon",
            "cifar10_shufflenet_metaacon")  # fmt: skip
Right = npt.NDArray[np.bool_]


def correct(name: str, weights: Path | str) -> Right:
    """Return for every test image whether the network names its class."""
    model, source = build_model(name, weights=weights), open_data("cifar10:test")
    found = []
    with torch.inference_mode():
        for start in range(0, len(source), 500):
            images = torch.stack([source[i] for i in range(start, min(start + 500, len(source)))])
            found.append(model(images.contiguous(memory_format=torch.channels_last)).argmax(1))
    return np.asarray(torch.cat(found).numpy() == source.targets)


def seeds_of(name: str, folder: Path | None) -> Iterator[tuple[int, Path | str]]:
    """Yield the seeds of a network and their weights."""
    yield 0, "shipped"
    if folder is not None:
        for file in sorted(folder.glob(f"{name}-seed*.safetensors")):
            seed = file.stem.partition("-seed")[2]
            if seed.isdecimal():  # and not the snapshot of an epoch
                yield int(seed), file


def row_of(name: str, seed: int, right: Right, bar: Right | None) -> list[str]:
    """Return accuracy with its interval, and the paired difference to the ReLU network."""
    low, high = wilson_interval(int(right.sum()), len(right))
    cells = [name, str(seed), f"{100 * right.mean():.2f}", f"{100 * low:.2f} to {100 * high:.2f}"]
    if bar is None or bar is right:
        return [*cells, "", ""]
    difference = right.astype(float) - bar
    error = difference.std(ddof=1) / np.sqrt(len(right))
    only, other = int((right & ~bar).sum()), int((bar & ~right).sum())
    p = binomtest(only, only + other).pvalue if only + other else 1.0
    middle = 100 * difference.mean()
    reach = 196 * error
    return [*cells, f"{middle:+.2f} ({middle - reach:+.2f} to {middle + reach:+.2f})", f"{p:.1g}"]


def main() -> None:
    """Evaluate, compare, write."""
    parser = argparse.ArgumentParser(description="accuracy of the CIFAR-10 networks")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--weights-of-seeds", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, bars = [], dict[int, Right]()
    for name in options.networks:
        for seed, weights in seeds_of(name, options.weights_of_seeds):
            right = correct(name, weights)
            if name == NETWORKS[0]:
                bars[seed] = right
            alike = name in NETWORKS[:4]  # all but the activation
            rows.append(row_of(name, seed, right, bars.get(seed) if alike else None))
    head = ("network", "seed", "accuracy %", "95 % interval", "more than ReLU (paired)", "p")
    text = (
        "# Accuracy of the CIFAR-10 networks\n\nAll 10,000 test images. Interval: Wilson's, of the "
        "finite test set, not of the seed. Difference to the ReLU network of the same seed, on the "
        "same images, in percentage points with its 95 % interval; p: exact McNemar test.\n\n"
        f"{table(head, rows)}\n\nMade by `python benchmarks/accuracy.py`. Measured on: "
        f"{machine()}.\n"
    )
    Path(__file__).with_name("RESULTS_accuracy.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
