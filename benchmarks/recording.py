"""(a) What reading β, and taking moments, costs in a forward pass: time and memory.

Networks with random weights on normal noise, which is what normalised images are like. In both
layouts of memory, each compared with the bare network in the same layout: a capture runs 2-D
convolutions channels last. Moments are compared with the reading of β, too, and in parts; hooks
that do nothing, or take one sum, show what any hook costs. A second section is of our hooks
isolated from the network, whose own time varies by more than that.

python benchmarks/recording.py [--pairs 9] [--side 224] [--networks NAME ...] [--batches N ...]
    [--readers WORDS ...] [--threads 1] [--isolated-pairs 300] [--only-isolated]

`--readers` keeps those whose name ends in one of the words; the reading of β alone always stays.
"""

import argparse
import copy
import statistics
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from common import ratios, side_by_side, table, write_section
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import acon_analysis as acon
from acon_hooks import Tap, to_host
from acon_hooks.captures.forward_pass import ForwardPass
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.constants import Constants
from acon_hooks.moments.options import MomentOptions
from acon_hooks.readings.found_layers import find_layers
from acon_hooks.readings.sources import InnerModule

PARTS = ("only x and y", "without the reference β")
NETWORKS = ("shufflenet_v2_x0_5_metaacon", "resnet50_metaacon")


def ours(
    model: nn.Module,
    x: Tensor,
    *,
    last: bool,
    kinds: Sequence[str] = ("meta_acon", "acon"),
    **options: Any,
) -> Callable[[], object]:
    """Return a call that runs the network, channels last or not, and brings β to the host."""
    engine = ForwardPass(model, kinds, **options)
    engine.channels_last = last
    engine.__enter__()
    inputs = InputOptions()  # as in a capture, one object for all batches
    engine.start(Batch(0, list(range(len(x))), x, options=inputs), lambda: None)
    seen = 0

    def call() -> object:
        nonlocal seen
        seen += len(x)
        return to_host(engine(Batch(0, list(range(seen - len(x), seen)), x, options=inputs)))

    return call


def with_moments(
    model: nn.Module, x: Tensor, *, kernel: str, last: bool, part: str = "", fused: bool = False
) -> Callable[[], object]:
    """Return a call that also takes the moments of every layer's input and output, or a part."""
    options = MomentOptions(kernel=kernel)
    moments = Part(options, part) if part else Accumulator(options)
    return ours(model, x, last=last, moments=moments, fused=fused)


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


def hooked(
    model: nn.Module, x: Tensor, *, hook: Callable[..., None], last: bool
) -> Callable[[], object]:
    """Return a call of the network with a hook of its own on every layer: what any hook costs."""
    for layer in find_layers(model):
        model.get_submodule(layer.name).register_forward_hook(hook)
    return bare(model, x, last=last)


def nothing(*_: object) -> None:
    """Do nothing."""


def one_sum(_module: nn.Module, given: tuple[Tensor], _out: Tensor) -> None:
    """Sum the input over its pixels, as the least that can be done with it."""
    given[0].sum((2, 3))


@cache
def kernels() -> tuple[str, ...]:
    """Return the kernels of moments that this machine has."""
    from acon_hooks.moments.native.build import NativeError
    from acon_hooks.moments.native.sums import native

    try:
        native(print)
    except NativeError as error:
        print(f"compiled moments: left out ({error})")
        return ("eager",)
    return ("compiled", "eager")


class Memory(NamedTuple):
    """What one call takes, in MB (1e6 bytes).

    `peak` is the most that torch's allocator had given out at once for tensors during the call,
    `kept` what of it is still there at the end, with what the call returns: outputs, or β.
    `python` is the peak of what Python and numpy allocated. All three count from the beginning of
    the call. Buffers within oneDNN's kernels are in none of them.
    """

    peak: float
    kept: float
    python: float


def memory(call: Callable[[], object]) -> Memory:
    """Measure the memory of a call that has run before; deterministic, unlike a process's size."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = call()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    taken = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        taken += event.nbytes()  # less than 0 where memory is given back
        most = max(most, taken)
    del kept
    tracemalloc.start()
    call()
    _, python = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Memory(most / 1e6, taken / 1e6, python / 1e6)


def isolated(model: nn.Module, x: Tensor, pairs: int) -> list[object]:
    """Return what reading β costs when the network's own work is taken away.

    Every Meta-ACON layer is called as in a forward pass and calls its last BatchNorm, but both hand
    out tensors made beforehand, those of a real pass. What remains is calling modules; with hooks
    there come σ, checks of shapes and the way of all β to the host. The difference of the two is
    the whole work of the reader but for cold caches.
    """
    x = x.contiguous(memory_format=torch.channels_last)  # no copy in the calls
    bare_model, read_model = model, copy.deepcopy(model)
    read = ours(read_model, x, last=True)
    read()  # proved on the network itself
    ready = made_beforehand(bare_model, x)
    for one in (bare_model, read_model):
        hollow(one, ready)
    base = bare(bare_model, x, last=True)
    found = [ms for _, ms in side_by_side(base, {"read": read}, pairs)["read"]]
    low, middle, high = statistics.quantiles(found, n=4)
    each = f"{1e3 * middle / len(ready):.1f}"
    return [len(x), len(ready), f"{middle:.3f}", f"{low:.3f} to {high:.3f}", each]


def first_batch(model: nn.Module, x: Tensor, pairs: int) -> list[list[object]]:
    """Measure the first batch, its readings proved, with and without the second look.

    Random weights prove little: β hardly differs between samples, so that every way to read it is
    tried. With the statistics of noise in the BatchNorms it differs, as in trained networks.
    """

    def proved(network: nn.Module, *, look: bool) -> None:
        with torch.inference_mode(), Tap(network, check_rows=look) as tap:
            network(x)
            tap.take()

    other = settled(model, x)
    calls = {
        "first batch, readings proved": partial(proved, model, look=False),
        "first batch, with the second look": partial(proved, model, look=True),
        "first batch, readings proved, BatchNorms settled": partial(proved, other, look=False),
    }
    found = ratios(bare(model, x, last=False), calls, pairs)
    return [[len(x), name, f"{ratio:.2f}", f"{ms:+.0f}"] for name, (ratio, ms) in found.items()]


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """Return a copy whose BatchNorms have the statistics of noise of the inputs' size."""
    own = copy.deepcopy(model).train()
    with torch.no_grad():
        for _ in range(3):
            own(torch.randn(max(len(x), 8), *x.shape[1:]))
    return own.eval()


#: Of a layer: its name, the module in it from which β is read, that one's output, x and y.
Ready = tuple[str, str, Tensor, Tensor, Tensor]


def made_beforehand(model: nn.Module, x: Tensor) -> list[Ready]:
    """Return the tensors that Meta-ACON layers make in one pass, in the order of their calls."""
    found: list[Ready] = []
    caught: dict[str, Tensor] = {}
    handles = []

    def watch(name: str, where: str) -> None:
        def inner(_module: nn.Module, _given: Any, out: Tensor) -> None:
            caught[name] = out

        def outer(_module: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            found.append((name, where, caught.pop(name), given[0], out))

        layer = model.get_submodule(name)
        handles.append(layer.get_submodule(where).register_forward_hook(inner))
        handles.append(layer.register_forward_hook(outer))

    with torch.inference_mode():
        with Tap(model) as tap:
            model(x)
            tap.take()
        for layer in tap.layers:
            source = None if layer.reading is None else layer.reading.source
            if not isinstance(source, InnerModule):
                raise SystemExit(f"{layer.name} is not read from a module: it cannot be isolated")
            watch(layer.name, source.path)
        model(x)
    for handle in handles:
        handle.remove()
    return found


def hollow(model: nn.Module, ready: list[Ready]) -> None:
    """Have the network only call its layers, and those hand out what is ready, in place."""
    calls = []
    for name, where, logits, given, out in ready:
        layer = model.get_submodule(name)
        inner = layer.get_submodule(where)
        inner.forward = lambda _, logits=logits: logits

        def forward(_: Tensor, inner: nn.Module = inner, z: Any = logits, y: Any = out) -> Tensor:
            inner(z)
            return y  # type: ignore[no-any-return]

        layer.forward = forward
        calls.append((layer, given))

    def run(_: Tensor) -> None:
        for layer, given in calls:
            layer(given)

    model.forward = run


#: A way to run a network: given it, images, and whether they are channels last, a call.
Way = Callable[..., Callable[[], object]]
BETA, MOMENTS = "acon β", "acon β + moments"
ONE_PASS = f"{MOMENTS}, --fuse, one pass"


def ways() -> dict[str, Way]:
    """Return what is compared with the bare network; itself once more shows the noise."""
    found: dict[str, Way] = {
        "the bare network again": bare,
        "hooks that do nothing": partial(hooked, hook=nothing),
        "hooks that take one sum of x": partial(hooked, hook=one_sum),
        BETA: ours,
    }
    for kernel in kernels():
        found[f"{MOMENTS}, {kernel}"] = partial(with_moments, kernel=kernel)
    if "compiled" in kernels():
        for part in PARTS:
            way = partial(with_moments, kernel="compiled", part=part)
            found[f"{MOMENTS}, compiled, {part}"] = way
        found[ONE_PASS] = partial(with_moments, kernel="compiled", fused=True)
    return {**found, "acon β, --fuse": partial(ours, fused=True)}


def own_rows(
    name: str, x: Tensor, last: bool, pairs: int, readers: Sequence[str]
) -> list[list[object]]:
    """Measure our readers in one layout, next to the bare network and to reading β alone."""
    layout, batch = "channels last" if last else "as given", len(x)
    calls = {
        words: way(acon.build_model(name), x, last=last)
        for words, way in ways().items()
        if words == BETA or words.endswith(tuple(readers))
    }
    base = bare(acon.build_model(name), x, last=last)
    moments = {words: call for words, call in calls.items() if words.startswith(MOMENTS)}
    over = ratios(calls[BETA], moments, pairs) if moments else {}
    own = memory(base)
    rows: list[list[object]] = []
    for call, found in side_by_side(base, calls, pairs).items():
        low, middle, high = statistics.quantiles((ratio for ratio, _ in found), n=4)
        more = statistics.median(ms for _, ms in found)
        alone = f"{over[call][0]:.3f}" if call in over else ""
        taken = memory(calls[call])
        size = (taken.peak - own.peak, taken.python - own.python)
        rows.append([
            batch, layout, call, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{more:+.2f}",
            alone, *(f"{part:+.3f}" for part in size), f"{taken.kept:.3f}",
        ])  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def arguments() -> argparse.ArgumentParser:
    """Return a parser of what all measurements of a forward pass can be asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16])
    return parser


def main() -> None:
    """Measure and write."""
    parser = arguments()
    parser.add_argument("--readers", nargs="*", default=[""])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isolated-pairs", type=int, default=300)
    parser.add_argument("--only-isolated", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    alone: list[list[object]] = []
    first: list[list[object]] = []
    for name in options.networks:
        rows = []
        for batch in options.batches:
            x = torch.randn(batch, 3, options.side, options.side)
            alone.append([name, *isolated(acon.build_model(name), x, options.isolated_pairs)])
            print(alone[-1], flush=True)
            first += [[name, *row] for row in first_batch(acon.build_model(name), x, 3)]
            for last in () if options.only_isolated else (False, True):
                rows += own_rows(name, x, last, options.pairs, options.readers)
        if rows:
            write_section(f"a. Cost of reading {name}", MEMORY + table(HEADER, rows))
    header = ["network", "batch", "layers", "ms a forward", "quartiles", "µs a layer"]
    text = f"{options.isolated_pairs} pairs. {ISOLATED}\n\n{table(header, alone)}"
    write_section("a. Reading β isolated from the network", text)
    header = ["network", "batch", "what", "ratio to a bare forward", "ms more"]
    write_section("a. The first batch", FIRST + table(header, first))


HEADER = (
    "batch", "layout", "reader", "ratio to bare", "quartiles", "ms more", "ratio to β alone",
    "tensors at the peak, MB more", "Python at the peak, MB more", "tensors kept at the end, MB",
)  # fmt: skip
MEMORY = (
    "Memory: what torch's allocator had given out for tensors at the peak of one forward pass, and "
    "what Python and numpy had, each less that of the bare network; what is kept at the end is β, "
    "with hooks that read nothing the outputs.\n\n"
)
FIRST = (
    "Once in a capture or a recording: readings are searched and proved; the second look runs the "
    "batch again in two parts, in another order. Random weights.\n\n"
)
ISOLATED = (
    "What the hooks of all layers and the way of β to the host cost in one forward pass, channels "
    "last, without the network: its layers are called one after another and hand out tensors made "
    "beforehand, with and without reading, side by side; differences of processor time."
)


if __name__ == "__main__":
    main()
