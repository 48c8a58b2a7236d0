"""(a) What reading β costs in a forward pass, next to other libraries that read the same β.

Networks with random weights on normal noise, in the layout in which they are given: libraries leave
it alone. `peers.sh` makes the environment that this needs.

python benchmarks/peers.py [--pairs 9] [--side 224] [--networks NAME ...] [--batches N ...]
"""

import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from common import installed, side_by_side, table, write_section
from recording import arguments, bare, ours
from torch import Tensor, nn

import acon_analysis as acon
from acon_hooks import Tap

PEERS = ("captum", "nnsight", "torchlens", "activationscope")


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


def main() -> None:
    """Measure and write."""
    options = arguments().parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for name in options.networks:
        for batch in options.batches:
            x = torch.randn(batch, 3, options.side, options.side)
            base = bare(acon.build_model(name), x, last=False)
            calls = {"acon β": ours(acon.build_model(name), x, last=False)}
            calls |= peers(acon.build_model(name), x)
            for call, found in side_by_side(base, calls, options.pairs).items():
                low, middle, high = statistics.quantiles((ratio for ratio, _ in found), n=4)
                more = statistics.median(ms for _, ms in found)
                spread = f"{low:.3f} to {high:.3f}"
                rows.append([name, batch, call, f"{middle:.3f}", spread, f"{more:+.1f}"])
                print(rows[-1], flush=True)
    versions = ", ".join(f"{peer} {installed(peer)}" for peer in PEERS)
    head = ["network", "batch", "reader", "ratio to bare", "quartiles", "ms more"]
    text = f"{options.side} px. {versions}.\n\n{table(head, rows)}"
    write_section("a. Reading β, next to other libraries", text)


if __name__ == "__main__":
    main()
