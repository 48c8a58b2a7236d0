"""(a) What reading β, and taking moments, costs in a forward pass.

Networks with random weights on normal noise, which is what normalised images are like. In both
layouts of memory, each beside the bare network in the same layout: a capture runs 2-D convolutions
channels last. Moments are beside the reading of β, too, and in parts; hooks that do nothing, or
take one sum, say what any hook must cost.

python benchmarks/recording.py [--pairs 9] [--side 224] [--networks NAME ...] [--batches N ...]
"""

import argparse
import statistics
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from common import ratios, side_by_side, table, write_section
from torch import Tensor, nn

import acon_analysis as acon
from acon_hooks import to_host
from acon_hooks.captures.engine import Engine
from acon_hooks.layers.finding import find_layers
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.constants import Constants
from acon_hooks.moments.options import MomentOptions

PARTS = ("only x and y", "without the reference β")
NETWORKS = ("shufflenet_v2_x0_5_metaacon", "resnet50_metaacon")


def ours(model: nn.Module, x: Tensor, *, last: bool, **options: Any) -> Callable[[], object]:
    """Return a call that runs the network, channels last or not, and brings β to the host."""
    engine = Engine(model, ("meta_acon", "acon"), batch_size=len(x), **options)
    engine.channels_last = last
    engine.__enter__()
    engine.start(x, lambda: x)
    seen = 0

    def call() -> object:
        nonlocal seen
        seen += len(x)
        return to_host(engine(x, list(range(seen - len(x), seen))))

    return call


def with_moments(
    model: nn.Module, x: Tensor, kernel: str, *, last: bool, stride: int = 1, part: str = ""
) -> Callable[[], object]:
    """Return a call that also takes the moments of every layer's input and output, or a part."""
    options = MomentOptions(kernel=kernel, stride=stride)
    return ours(model, x, last=last, moments=Part(options, part) if part else Accumulator(options))


class Part(Accumulator):
    """Takes only some of the sums: those of x and y alone, or without the reference β."""

    def __init__(self, options: MomentOptions, part: str) -> None:
        super().__init__(options)
        self.part = part

    def _settle(self, *given: Any) -> Constants:
        found = super()._settle(*given)
        if found.gate is None:
            return found
        gate = None if self.part == PARTS[0] else replace(found.gate, reference=None)
        return replace(found, gate=gate)


def bare(model: nn.Module, x: Tensor, *, last: bool) -> Callable[[], object]:
    """Return a call of the network alone, in the same layout."""
    if last:
        model = model.to(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return model(x.contiguous(memory_format=torch.channels_last) if last else x)

    return call


def hooked(model: nn.Module, x: Tensor, hook: Callable[..., None], *, last: bool) -> Any:
    """Return a call of the network with a hook of its own on every layer: what any hook costs."""
    for layer in find_layers(model):
        model.get_submodule(layer.name).register_forward_hook(hook)
    return bare(model, x, last=last)


def nothing(*_: object) -> None:
    """Do nothing."""


def one_sum(_module: nn.Module, given: tuple[Tensor], _out: Tensor) -> None:
    """Sum the input over its pixels, as the least that can be done with it."""
    given[0].sum((2, 3))


def kernels() -> tuple[str, ...]:
    """Return the kernels of moments that this machine has."""
    from acon_hooks.moments.native import NativeError, native

    try:
        native(print)
    except NativeError as error:
        print(f"compiled moments: left out ({error})")
        return ("eager",)
    return ("compiled", "eager")


def memory(call: Callable[[], object]) -> float:
    """Return the Python memory that a call adds, in MB; tensors of β are counted on top."""
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def own_rows(name: str, x: Tensor, last: bool, pairs: int) -> list[list[object]]:
    """Measure our readers in one layout: beside the bare network, and beside reading β alone."""
    layout, batch = "channels last" if last else "as given", len(x)

    def build() -> nn.Module:
        return acon.build_model(name)

    base, beta = bare(build(), x, last=last), ours(build(), x, last=last)
    moments = {
        f"acon β + moments, {kernel}": with_moments(build(), x, kernel, last=last)
        for kernel in kernels()
    }
    if "compiled" in kernels():
        parts: dict[str, dict[str, Any]] = {
            "every 4th pixel": {"stride": 4},
            **{name: {"part": name} for name in PARTS},
        }
        for words, given in parts.items():
            part = with_moments(build(), x, "compiled", last=last, **given)
            moments[f"acon β + moments, compiled, {words}"] = part
    extra = memory(beta)
    calls = {
        "hooks that do nothing": hooked(build(), x, nothing, last=last),
        "hooks that take one sum of x": hooked(build(), x, one_sum, last=last),
        "acon β": beta,
        **moments,
        "acon β, --fuse": ours(build(), x, last=last, fused=True),
    }
    over = ratios(beta, moments, pairs)
    rows: list[list[object]] = []
    for call, found in side_by_side(base, calls, pairs).items():
        low, middle, high = statistics.quantiles((ratio for ratio, _ in found), n=4)
        more = statistics.median(ms for _, ms in found)
        beside = f"{over[call][0]:.3f}" if call in over else ""
        size = f"{extra:.2f}" if call == "acon β" else ""
        quartiles = f"{low:.3f} to {high:.3f}"
        rows.append([batch, layout, call, f"{middle:.3f}", quartiles, f"{more:+.2f}", beside, size])
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in options.networks:
        rows = []
        for batch in options.batches:
            x = torch.randn(batch, 3, options.side, options.side)
            for last in (False, True):
                rows += own_rows(name, x, last, options.pairs)
        header = [
            "batch", "layout", "reader", "ratio to bare", "quartiles", "ms more",
            "ratio to β alone", "MB more",
        ]  # fmt: skip
        write_section(f"a. Cost of reading {name}", table(header, rows))


if __name__ == "__main__":
    main()
