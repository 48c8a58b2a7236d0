"""(a) What reading β costs in a forward pass, beside libraries that read the same β.

Networks with random weights on normal noise, which is what normalised images are like. In both
layouts of memory, each beside the bare network in the same layout: a capture runs 2-D convolutions
channels last, libraries leave the network as it is given. Moments are beside the reading of β, too.

python benchmarks/recording.py [--pairs 9] [--side 224] [--networks NAME ...] [--peers]
"""

import argparse
import statistics
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import torch
from common import installed, ratios, side_by_side, table, write_section
from torch import Tensor, nn

import acon_analysis as acon
from acon_hooks import Tap, to_host
from acon_hooks.engine import Engine

PEERS = ("captum", "nnsight", "torchlens", "activationscope")
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


def with_moments(model: nn.Module, x: Tensor, kernel: str, *, last: bool) -> Callable[[], object]:
    """Return a call that also takes the moments of every layer's input and output."""
    from acon_hooks.accumulating import Accumulator
    from acon_hooks.moment_options import MomentOptions

    return ours(model, x, last=last, moments=Accumulator(MomentOptions(kernel=kernel)))


def bare(model: nn.Module, x: Tensor, *, last: bool) -> Callable[[], object]:
    """Return a call of the network alone, in the same layout."""
    if last:
        model = model.to(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return model(x.contiguous(memory_format=torch.channels_last) if last else x)

    return call


def kernels() -> tuple[str, ...]:
    """Return the kernels of moments that this machine has."""
    from acon_hooks.moment_native import NativeError, native

    try:
        native(print)
    except NativeError as error:
        print(f"compiled moments: left out ({error})")
        return ("eager",)
    return ("compiled", "eager")


def peers(model: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """Return calls of other libraries that read the same β, as far as they are installed."""
    with Tap(model) as tap, torch.inference_mode():
        model(x)
        paths = [f"{name}.bn2" for name, _ in tap.take()]
    found: dict[str, Callable[[], object]] = {}
    for name, make in (
        ("captum", _captum),
        ("nnsight", _nnsight),
        ("torchlens", _torchlens),
        ("activationscope", _activationscope),
    ):
        try:
            call = make(model, x, paths)
            call()
            found[name] = call
        except Exception as error:  # any library may fail in its own way: say so and go on
            print(f"{name}: left out ({type(error).__name__}: {str(error)[:200]})")
    return found


def _captum(model: nn.Module, x: Tensor, paths: list[str]) -> Callable[[], object]:
    from captum.attr import LayerActivation

    reader = LayerActivation(model, [model.get_submodule(path) for path in paths])

    def call() -> object:
        with torch.no_grad():
            return [torch.sigmoid(value) for value in reader.attribute(x)]

    return call


def _nnsight(model: nn.Module, x: Tensor, paths: list[str]) -> Callable[[], object]:
    from nnsight import NNsight

    wrapped = NNsight(model)
    places = [wrapped.get(path) for path in paths]

    def call() -> object:
        with torch.no_grad(), wrapped.trace(x):
            kept: Any = list().save()  # type: ignore[attr-defined]  # noqa: C408
            for place in places:
                kept.append(torch.sigmoid(place.output))
        return kept

    return call


def _torchlens(model: nn.Module, x: Tensor, paths: list[str]) -> Callable[[], object]:
    import torchlens

    def call() -> object:
        with torch.no_grad():
            found = torchlens.extract(model, x, layers=paths)
        return [torch.sigmoid(value) for value in found.values()]

    return call


def _activationscope(model: nn.Module, x: Tensor, paths: list[str]) -> Callable[[], object]:
    import activationscope

    def call() -> object:
        with torch.no_grad(), activationscope.ActivationScope().track(model) as tracker:
            model(x)
        return [torch.sigmoid(tracker.activations[path][0]) for path in paths]

    return call


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
    extra = memory(beta)
    calls = {"acon β": beta, **moments, "acon β, --fuse": ours(build(), x, last=last, fused=True)}
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
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in options.networks:
        rows = []
        for batch in options.batches:
            x = torch.randn(batch, 3, options.side, options.side)
            for last in (False, True):
                rows += own_rows(name, x, last, options.pairs)
            if options.peers:
                calls = peers(acon.build_model(name), x)
                found = ratios(bare(acon.build_model(name), x, last=False), calls, options.pairs)
                for call, (ratio, more) in found.items():
                    rows.append(
                        [batch, "as given", call, f"{ratio:.3f}", "", f"{more:+.2f}", "", ""]
                    )
        header = [
            "batch", "layout", "reader", "ratio to bare", "quartiles", "ms more",
            "ratio to β alone", "MB more",
        ]  # fmt: skip
        text = table(header, rows)
        title = f"a. Cost of reading {name}"
        if options.peers:
            title += ", beside other libraries"
            versions = (f"{peer} {installed(peer)}" for peer in PEERS)
            text = f"{options.side} px. {', '.join(versions)}.\n\n{text}"
        write_section(title, text)


if __name__ == "__main__":
    main()
