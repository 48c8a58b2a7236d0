"""(a) β of a data set to disk: ours, and torchlens' extract_dataset; needs torchlens.

python benchmarks/storing.py [--pairs 3] [--batch-size 16] [--batches 4]

Few batches, because torchlens traces the whole network anew in each, which takes seconds. So what
we pay once a capture (proof, search for layers, manifest) weighs more than in a real one.
"""

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from common import installed, seconds, table, write_section
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import acon_analysis as acon
from acon_hooks import Tap

NETWORKS = ("shufflenet_v2_x0_5_metaacon", "resnet50_metaacon")
SHAPE = (3, 224, 224)


def ways(
    model: nn.Module, images: Tensor, batch_size: int, work: Path
) -> dict[str, Callable[[], object]]:
    """Return calls that store β of the images, each time in a folder of its own."""
    import torchlens

    number = count()
    with Tap(model) as tap, torch.inference_mode():
        model(images[:batch_size])
        paths = [f"{name}.bn2" for name, _ in tap.take()]

    def capture() -> object:
        out = work / str(next(number))
        return acon.capture(
            model, TensorDataset(images), out, batch_size=batch_size, moments=False, progress=False
        )

    def dataset() -> object:
        with torch.no_grad():
            return torchlens.extract_dataset(
                model, images, layers=paths, batch_size=batch_size,
                output_dir=work / str(next(number)), progress=False,
            )  # fmt: skip

    return {"acon capture": capture, "torchlens": dataset}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    options = parser.parse_args()
    if installed("torchlens") == "missing":
        raise SystemExit("torchlens is not installed: see peers.sh")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in options.networks:
        shape = (options.batch_size * options.batches, *SHAPE)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as place:
            calls = ways(acon.build_model(name), images, options.batch_size, Path(place))
            times = {way: [seconds(call) for _ in range(1 + options.pairs)][1:]
                     for way, call in calls.items()}  # fmt: skip
        own, other = (statistics.median(times[way]) for way in calls)
        rows.append([name, options.batches, f"{own:.2f}", f"{other:.2f}", f"{other / own:.1f}"])
        print(rows[-1], flush=True)
    head = ["network", "batches", "acon capture, s", "torchlens, s", "ratio"]
    text = f"Batches of {options.batch_size}; seconds of processor time; acon proves every reading "
    text += f"on the first batch. torchlens {installed('torchlens')}.\n\n" + table(head, rows)
    write_section("a. Storing β, beside torchlens", text)


if __name__ == "__main__":
    main()
