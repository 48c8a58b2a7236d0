"""(b) Images per second from a folder of JPEGs to a finished run.

python benchmarks/throughput.py [--images FOLDER] [--few 32] [--count 288] [--repeats 3]
    [--networks NAME ...] [--batch-size 16] [--workers 1]

Every way is timed on few images and on many. The difference is what an image costs in a long run;
what few cost beyond the bare forward is paid once (the proof of every reading on the first batch).
A capture runs 2-D convolutions channels last, so the bare forward is measured in both layouts, and
speeds are compared with each. For a large network few images do:
``--networks resnet50_metaacon --few 8 --count 24 --batch-size 8``.
"""

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import MethodType
from typing import Any

import torch
from common import make_jpegs, repeated, table, write_section
from torch import Tensor, nn
from torch.utils.data import DataLoader

import acon_analysis as acon
from acon_analysis.data.sources import open_data
from acon_analysis.layers import MetaAconC

NETWORKS = ("shufflenet_v2_x0_5_metaacon", "resnet50_metaacon")


def as_published(model: nn.Module) -> nn.Module:
    """Return the network with the activation written as in the paper's code."""

    def forward(self: MetaAconC, x: Tensor) -> Tensor:
        pooled = x.mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        beta = torch.sigmoid(self.bn2(self.fc2(self.bn1(self.fc1(pooled)))))
        difference = self.p1 * x - self.p2 * x
        return difference * torch.sigmoid(beta * difference) + self.p2 * x

    for module in model.modules():
        if isinstance(module, MetaAconC):
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]
    return model


def bare(
    model: nn.Module, folder: Path, batch_size: int, workers: int, *, last: bool = False
) -> None:
    """Only the loader and the network; channels last if the network's weights are."""
    layout = torch.channels_last if last else torch.contiguous_format
    with torch.inference_mode():
        for images in DataLoader(
            open_data(folder, "official"), batch_size=batch_size, num_workers=workers
        ):
            model(images.contiguous(memory_format=layout))


def obvious(model: nn.Module, folder: Path, out: Path, batch_size: int, workers: int) -> None:
    """Do what one writes first: `.cpu()` in every hook, lists, torch.save at the end."""
    kept: dict[str, list[Tensor]] = {}
    handles = []
    for layer, activation in model.named_modules():
        if isinstance(activation, MetaAconC):
            name, module = f"{layer}.bn2", activation.bn2

            def hook(_m: nn.Module, _a: Any, output: Tensor, name: str = name) -> None:
                kept.setdefault(name, []).append(torch.sigmoid(output).flatten(1).cpu())

            handles.append(module.register_forward_hook(hook))
    bare(model, folder, batch_size, workers)
    for handle in handles:
        handle.remove()
    torch.save({name: torch.cat(parts) for name, parts in kept.items()}, out)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path)
    parser.add_argument("--few", type=int, default=32)
    parser.add_argument("--count", type=int, default=288)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        source = options.images or make_jpegs(work / "made", 32)
        folders = {
            count: repeated(source, work / f"images{count}", count)
            for count in (options.few, options.count)
        }
        for name in options.networks:
            rows = speeds(measure(name, folders, work, options))
            text = (
                f"From {options.few} to {options.count} images, batches of {options.batch_size}, "
                f"{options.workers} worker.\n\n"
            )
            head = ["what", "images/s", "speed / bare, as given", "speed / bare, channels last",
                    "seconds paid once"]  # fmt: skip
            write_section(f"b. From folder to run, {name}", text + table(head, rows))


def speeds(times: dict[str, list[tuple[float, float]]]) -> list[list[str]]:
    """Return a row a way: images a second, relative to the first two ways, seconds paid once.

    `times` holds seconds an image and seconds for the few images, of every repeat. What is paid
    once is what the few images take beyond the first way.
    """
    bases = list(times.values())[:2]
    rows = []
    for way, own in times.items():
        rate = 1 / median(each for each, _ in own)
        shares = [
            median(bare / each for (bare, _), (each, _) in zip(base, own, strict=True))
            for base in bases
        ]
        once = median(few - bare for (_, bare), (_, few) in zip(bases[0], own, strict=True))
        rows.append([way, f"{rate:.1f}", *(f"{share:.3f}" for share in shares), f"{once:+.1f}"])
    return rows


def measure(
    name: str, folders: dict[int, Path], work: Path, options: Any
) -> dict[str, list[tuple[float, float]]]:
    """Return seconds an image and seconds for the few images, interleaved over the ways."""
    model, published = acon.build_model(name), as_published(acon.build_model(name))
    last = acon.build_model(name).to(memory_format=torch.channels_last)
    size, workers, out = options.batch_size, options.workers, work / "out"
    usual: dict[str, Any] = {"batch_size": size, "workers": workers, "progress": False}

    def captured(**more: Any) -> Callable[[Path], object]:
        return lambda folder: acon.capture(model, folder, out, **usual, **more)

    ways: dict[str, Callable[[Path], object]] = {
        "bare forward, same loader": lambda folder: bare(model, folder, size, workers),
        "bare forward, channels last": lambda f: bare(last, f, size, workers, last=True),
        "bare forward, layers as published": lambda folder: bare(published, folder, size, workers),
        "obvious script": lambda folder: obvious(model, folder, out, size, workers),
        "acon capture --no-moments": captured(moments=False),
        "acon capture --no-moments --fuse": captured(moments=False, fuse=True),
        "acon capture": captured(),
    }
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    bare(model, folders[options.few], size, workers)  # files into memory, threads up
    for _ in range(options.repeats):
        for way, call in ways.items():
            few, many = (seconds(call, folders[count], out) for count in sorted(folders))
            times[way].append(((many - few) / (options.count - options.few), few))
    return times


def seconds(call: Callable[[Path], object], folder: Path, out: Path) -> float:
    """Return the wall-clock time of one call into a fresh place."""
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)
    start = time.perf_counter()
    call(folder)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
