"""(a) What moments of ordinary activations cost in a forward pass, compared with the bare network.

Networks with random weights on normal noise, their nonlinearities found as a capture finds them,
channels last as in one. In steady state: the first two batches, which prove and allocate, are not
counted. Hooks that only copy the input of every module that overwrites it show what the copies
alone would cost. The last row is how long the tables of a unit of two batches take, made and
written as Parquet.

python benchmarks/ordinary.py [--pairs 9] [--side 224] [--networks NAME ...] [--batches N ...]
    [--threads N ...] [--ways WORDS ...]
"""

import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from common import side_by_side, table, write_section
from recording import arguments, bare, ours
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.store.folder import write_parquet
from acon_hooks.layers.scan import default_kinds
from acon_hooks.moments.accumulating import Accumulator

NETWORKS = (
    "torchvision:resnet18", "torchvision:googlenet", "torchvision:efficientnet_b0",
    "torchvision:convnext_tiny", "timm:vit_tiny_patch16_224",
)  # fmt: skip


def moments(
    model: nn.Module, x: Tensor, *, last: bool, gathered: Accumulator | None = None
) -> Callable[[], object]:
    """Return a call that takes the moments of all activations and products."""
    gathered = gathered or Accumulator()
    call = ours(model, x, last=last, kinds=default_kinds(model, moments=True), moments=gathered)
    call()
    return call


def copies(model: nn.Module, x: Tensor, *, last: bool) -> Callable[[], object]:
    """Return a call that copies the inputs of the modules that overwrite them."""
    kept: dict[nn.Module, Tensor] = {}

    def before(module: nn.Module, given: tuple[Tensor]) -> None:
        kept[module] = given[0].clone()

    def after(module: nn.Module, *_: object) -> None:
        del kept[module]

    for module in model.modules():
        if getattr(module, "inplace", False):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    return bare(model, x, last=last)


def unit_tables(moments: Accumulator) -> str:
    """Return how long the tables of the unit that has just ended take, made and written."""
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        for name, table in moments.unit({}).items():
            write_parquet(Path(place) / name, table)
        return f"{time.perf_counter() - start:.2f} s"


WAYS = {"the bare network again": bare, "copies of overwritten inputs": copies, "moments": moments}


def rows(name: str, batch: int, side: int, pairs: int, words: list[str]) -> list[list[object]]:
    """Measure every way in turn with the bare network."""
    x = torch.randn(batch, 3, side, side)
    model = acon.build_model(name)
    base = bare(copy.deepcopy(model), x, last=True)
    ways = {way: make for way, make in WAYS.items() if way.endswith(tuple(words))}
    calls = {way: make(copy.deepcopy(model), x, last=True) for way, make in ways.items()}
    found: list[list[object]] = []
    for way, measured in side_by_side(base, calls, pairs).items():
        low, middle, high = statistics.quantiles((ratio for ratio, _ in measured), n=4)
        more = statistics.median(ms for _, ms in measured)
        threads = torch.get_num_threads()
        spread = f"{low:.3f} to {high:.3f}"
        found.append([batch, threads, way, f"{middle:.3f}", spread, f"{more:+.1f}"])
        print(found[-1], flush=True)
    gathered = Accumulator()
    moments(copy.deepcopy(model), x, last=True, gathered=gathered)
    found.append(
        [batch, torch.get_num_threads(), "tables of one unit", unit_tables(gathered), "", ""]
    )
    return found


def main() -> None:
    """Measure and write."""
    parser = arguments()
    parser.set_defaults(networks=NETWORKS, batches=[16])
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--ways", nargs="*", default=[""])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    header = ["batch", "threads", "what", "ratio to bare", "quartiles", "ms more"]
    for name in options.networks:
        found = []
        for threads in options.threads:
            torch.set_num_threads(threads)
            for batch in options.batches:
                found += rows(name, batch, options.side, options.pairs, options.ways)
        section = f"a. Moments of ordinary activations, {name}"
        write_section(section, f"{TEXT}\n\n{table(header, found)}")


TEXT = (
    "Activations and products, float32, channels last. Ratios are of processor time, of all "
    "threads together."
)


if __name__ == "__main__":
    main()
