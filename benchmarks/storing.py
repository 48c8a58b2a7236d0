"""(a) β of a data set to disk: ours, and torchlens' extract_dataset; needs torchlens.

python benchmarks/storing.py [--pairs 3] [--batch-size 16] [--batches 1 6] [--networks NAME ...]

The two ways take turns, ``--pairs`` times, on few batches and on many. Few batches, because
torchlens traces the whole network anew in each, which takes seconds. What is paid once a capture
(proof, search for layers, manifest) weighs more in them than in a real one: it stands in a column
of its own.
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


def interleaved(
    short: dict[str, Callable[[], object]], long: dict[str, Callable[[], object]], pairs: int
) -> dict[str, list[tuple[float, float]]]:
    """Return seconds for few batches and for many, of every pair; the ways take turns."""
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in short}
    for _ in range(pairs):
        few = {way: seconds(call) for way, call in short.items()}
        many = {way: seconds(call) for way, call in long.items()}
        for way, own in times.items():
            own.append((few[way], many[way]))
    return times


def rows_of(times: dict[str, list[tuple[float, float]]], few: int, many: int) -> list[list[str]]:
    """Return a row a way, medians over the pairs, and one of the median ratios within pairs."""
    rows = []
    each = {way: [(b - a) / (many - few) for a, b in own] for way, own in times.items()}
    for way, own in times.items():
        spent = [long for _, long in own]
        once = [long - many * batch for long, batch in zip(spent, each[way], strict=True)]
        rows.append([way, *(f"{statistics.median(v):.2f}" for v in (spent, once, each[way]))])
    ours, other = times
    whole = [b / a for (_, a), (_, b) in zip(times[ours], times[other], strict=True)]
    more = [b / a for a, b in zip(each[ours], each[other], strict=True)]
    ratios = [f"{statistics.median(own):.1f}" for own in (whole, more)]
    return [*rows, ["ratio", ratios[0], "", ratios[1]]]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", nargs=2, type=int, default=[1, 6], metavar=("FEW", "MANY"))
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    options = parser.parse_args()
    if installed("torchlens") == "missing":
        raise SystemExit("torchlens is not installed: see peers.sh")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    few, many = options.batches
    head = ["what stores", f"{many} batches, s", "of these once, s", "a batch, s"]
    for name in options.networks:
        shape = (options.batch_size * many, *SHAPE)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as place:
            short = ways(
                acon.build_model(name), images[: options.batch_size * few],
                options.batch_size, Path(place) / "few",
            )  # fmt: skip
            long = ways(acon.build_model(name), images, options.batch_size, Path(place) / "many")
            for call in short.values():
                call()
            rows = rows_of(interleaved(short, long, options.pairs), few, many)
        text = (
            f"Batches of {options.batch_size}, {SHAPE[1]} px; seconds of processor time, medians "
            f"of {options.pairs} interleaved pairs of {few} and {many} batches; acon proves every "
            f"reading on the first batch. torchlens {installed('torchlens')}.\n\n"
        )
        write_section(f"a. Storing β of {name}, next to torchlens", text + table(head, rows))


if __name__ == "__main__":
    main()
