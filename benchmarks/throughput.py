"""(b) Images per second from a folder of JPEGs to a finished run.

python benchmarks/throughput.py [--images FOLDER] [--count 64] [--repeats 9] [--networks NAME ...]
"""

import argparse
import contextlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from common import make_jpegs, repeated, table, write_section
from torch import Tensor, nn
from torch.utils.data import DataLoader

import acon_analysis as acon
from acon_analysis.data import open_data
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


def bare(model: nn.Module, folder: Path, batch_size: int, workers: int) -> None:
    """Only the loader and the network."""
    with torch.inference_mode():
        for images in DataLoader(
            open_data(folder, "official"), batch_size=batch_size, num_workers=workers
        ):
            model(images)


def obvious(model: nn.Module, folder: Path, out: Path, batch_size: int, workers: int) -> None:
    """Do what one writes first: `.cpu()` in every hook, lists, torch.save at the end."""
    kept: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in model.named_modules():
        if name.endswith("acon.bn2") or (name.endswith("bn2") and "branch" in name):

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
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        source = options.images or make_jpegs(work / "made", 32)
        folder = repeated(source, work / "images", options.count)
        for name in options.networks:
            speeds = measure(name, folder, work, options)
            base = speeds["bare forward, same loader"]
            for what, times in speeds.items():
                share = sorted(b / t for b, t in zip(base, times, strict=True))[len(times) // 2]
                rate = options.count / sorted(times)[len(times) // 2]
                rows.append([name, what, f"{rate:.1f}", f"{share:.3f}"])
                print(rows[-1], flush=True)
    text = f"{options.count} images, batches of {options.batch_size}, {options.workers} worker.\n\n"
    text += table(["network", "what", "images/s", "speed / bare forward"], rows)
    write_section("b. From folder to run", text)


def measure(name: str, folder: Path, work: Path, options: Any) -> dict[str, list[float]]:
    """Return seconds of every way, interleaved."""
    model, published = acon.build_model(name), as_published(acon.build_model(name))
    size, workers, out = options.batch_size, options.workers, work / "out"
    usual: dict[str, Any] = {"batch_size": size, "workers": workers, "progress": False}
    ways: dict[str, Callable[[], object]] = {
        "bare forward, same loader": lambda: bare(model, folder, size, workers),
        "bare forward, layers as published": lambda: bare(published, folder, size, workers),
        "obvious script": lambda: obvious(model, folder, out, size, workers),
        "acon capture --no-moments": lambda: acon.capture(
            model, folder, out, moments=False, **usual
        ),
        "acon capture --no-moments --fuse": lambda: acon.capture(
            model, folder, out, moments=False, fuse=True, **usual
        ),
        "acon capture": lambda: acon.capture(model, folder, out, **usual),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats):
        for way, call in ways.items():
            if out.is_dir():
                shutil.rmtree(out)
            with contextlib.suppress(FileNotFoundError):
                out.unlink()
            start = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
