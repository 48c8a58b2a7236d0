"""Every network of a list: layers found, operators measured and named, every L, by other means.

``python benchmarks/sweep.py [--all] [--out FILE] [NAME ...]``: without names one network of every
family of torchvision and timm, and small ones of transformers; with ``--all`` every other one after
them. A row a network is appended to the table; those that are in it already are not run again. Each
runs in a process of its own with a limit of time and of memory. Weights are random, inputs small:
what is compared does not depend on training.

- Census: every operator on two inputs. One whose result differs must be said to depend on the
  input; a linear one must map the mean of its arguments to the mean of its results, in float64.
- L of every layer and channel of a capture, against hooks and a function mode of the sweep's own
  with sums in numpy's float64.
"""

import argparse
import csv
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sweep_networks import Network, build, every_network, one_of_every_family
from sweep_oracle import Oracle, Spec, Sums
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_analysis.moments.gram import ROUNDINGS
from acon_analysis.statistics.census import census_text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from census_judge import compared

RESULTS = Path(__file__).with_name("RESULTS_sweep.csv")
COLUMNS = ("network", "verdict", "reason", "layers", "functions", "compared", "L_error",
           "L_channel_error", "operators", "linear", "nonlinear", "measured", "unknown",
           "confirmed", "untried", "census", "seconds")  # fmt: skip
#: Largest difference of L of a layer; ten times as much of that of a channel.
TOLERANCE = 1e-6
#: Gigabytes and seconds that a network may take.
MEMORY, PATIENCE = 12, 240


def measured(name: str) -> dict[str, Any]:
    """Return the row of one network."""
    start = time.perf_counter()
    row: dict[str, Any] = {"network": name, "verdict": "ok", "reason": ""}
    try:
        network = _built(name)
        if isinstance(network, str):
            return {**row, "verdict": "left out", "reason": network}
        wrong = _census(network, row) + _linearity(network, row)
        if wrong:
            row |= {"verdict": "wrong", "reason": "; ".join(map(str, wrong[:3]))}
    except AconError as error:
        row |= {"verdict": "refused", "reason": str(error)}
    except MemoryError:
        row |= {"verdict": "left out", "reason": f"more than {MEMORY} GB"}
    except Exception as error:
        known = "memory" in str(error) and "alloc" in str(error)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        row |= {"verdict": "left out" if known else "crash", "reason": reason}
    return {**row, "seconds": f"{time.perf_counter() - start:.0f}"}


def _built(name: str) -> Network | str:
    """Return a network, or why it does not run by itself."""
    try:
        network = build(name)
        with torch.no_grad():
            network.model(network.make(1, 1))
    except Exception as error:
        return f"it does not run: {type(error).__name__}: {error}".splitlines()[0]
    return network


def _census(network: Network, row: dict[str, Any]) -> list[Any]:
    """Compare the census with values; return where they disagree."""
    frame = acon.nonlinearities(network.model, network.make(1, 1))
    bent = frame[frame["class"] == "nonlinear"]
    found, wrong = compared(network.model, (network.make(1, 1),), (network.make(2, 1),))
    row |= {
        "operators": found["calls"],
        "linear": found["linear"],
        "nonlinear": int(bent["calls"].sum()),
        "measured": int(bent.loc[bent["measured"], "calls"].sum()),
        "unknown": found["unknown"],
        "confirmed": found["confirmed"],
        "untried": found["untried"],
        "census": census_text(frame),
    }
    if found["branches"]:
        row["census"] += "; other operators for another input"
    if int(frame["calls"].sum()) != found["calls"]:
        wrong.append(f"{frame['calls'].sum()} calls counted, {found['calls']} dispatched")
    return wrong


def _linearity(network: Network, row: dict[str, Any]) -> list[Any]:
    """Compare every L of a capture with the oracle's; return where they differ."""
    batches = [network.make(seed, 3) for seed in (3, 4)]
    with tempfile.TemporaryDirectory() as folder:
        run = acon.capture(
            network.model, [batch.clone() for batch in batches], folder, progress=False
        )
        layers, table = run.layers, run.linearity(columns="all")
        channels = run.linearity(by="channel", columns="all").groupby(["layer", "call"])
    row |= {"layers": len(layers), "functions": int(layers["layer"].str.contains("#").sum())}
    oracle = Oracle(network.model, _specs(network, batches[0], layers))
    for batch in (
        _laid_out(network, batches) if run.manifest["compute"]["channels_last"] else batches
    ):
        oracle.run(batch)
    wrong: list[Any] = []
    worst = np.zeros(2)
    for record in table.to_dict("records"):
        key = record["layer"], record["call"]
        if key in oracle.left:
            continue
        if key not in oracle.sums:
            wrong.append(f"{key} did not run in the oracle")
            continue
        ours = channels.get_group(key).sort_values("channel")["L"].to_numpy()
        errors = _errors(record["L"], ours, oracle.sums[key])
        worst = np.maximum(worst, errors)
        if errors[0] > TOLERANCE or errors[1] > 10 * TOLERANCE:
            wrong.append(f"{key}: L {record['L']:.7f} is off by {errors[0]:.1e}, {errors[1]:.1e}")
    row["compared"] = len(table) - len(oracle.left)
    row |= {"L_error": f"{worst[0]:.1e}", "L_channel_error": f"{worst[1]:.1e}"}
    return wrong


def _errors(whole: float, channels: Any, sums: Sums) -> tuple[float, float]:
    """Return how far L of a layer and of its channels is off, beyond what last digits explain."""
    expected, single, total, digits = sums.linearity()
    error = abs(whole - expected) - digits.sum() / total.sum() if total.sum() > 0 else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        gaps = np.abs(channels - single) - digits / total
    # An output that varies by less than eight roundings is dead, and has L = 1 by convention.
    gaps = gaps[(total > ROUNDINGS**2 * digits) & np.isfinite(gaps)]
    return max(0.0, np.nan_to_num(error)), float(gaps.max(initial=0.0))


def _laid_out(network: Network, batches: list[Tensor]) -> list[Tensor]:
    """Lay out convolutions and images channels-last, as the capture did: it rounds otherwise."""
    for module in network.model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            data = module.weight.data
            module.weight.data = data.contiguous(memory_format=torch.channels_last)
    return [
        batch.clone(memory_format=torch.channels_last) if batch.ndim == 4 else batch
        for batch in batches
    ]


def _specs(network: Network, batch: Tensor, layers: Any) -> dict[tuple[str, int], Spec]:
    """Return channel axis and gate of every call of every layer, as they are reported."""
    kinds = sorted(set(layers["kind"]))
    found = {layer.name: layer for layer in acon.find_layers(network.model, kinds, batch)}
    specs = {}
    for name, call in zip(layers["layer"], layers["call"], strict=True):
        layer = found[name]
        gate = layer.gate if not call or layer.gate is None else (layer.gate[0], call)
        specs[name, call] = Spec(layer.axis, layer.kind == "product", gate)
    return specs


def _child(name: str, queue: Any) -> None:
    """Measure one network within the limits."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY * 2**30, MEMORY * 2**30))
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        queue.put(measured(name))


def apart(name: str) -> dict[str, Any]:
    """Return the row of one network, measured in a process of its own."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(name, queue))
    child.start()
    deadline = time.monotonic() + PATIENCE
    row: dict[str, Any] | None = None
    while row is None and time.monotonic() < deadline:
        try:
            row = queue.get(timeout=1)
        except Exception:  # nothing there yet
            if not child.is_alive() and queue.empty():
                break
    ended = not child.is_alive()
    child.kill()
    child.join()
    if row is not None:
        return row
    reason = f"its process ended with {child.exitcode}" if ended else f"more than {PATIENCE} s"
    return {"network": name, "verdict": "crash" if ended else "left out", "reason": reason}


def main() -> None:
    """Run the networks that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    asked = parser.parse_args()
    names = asked.names or [*one_of_every_family(), *(every_network() if asked.all else ())]
    done = set()
    if asked.out.exists():
        with asked.out.open(newline="", encoding="utf-8") as file:
            done = {row["network"] for row in csv.DictReader(file)}
    else:
        with asked.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(COLUMNS)
    for package in ("acon_hooks", "timm", "torchvision", "transformers"):
        import_module(package)  # once, for all processes
    end = time.monotonic() + 60 * asked.minutes
    verdicts: Counter[str] = Counter()
    for name in dict.fromkeys(names):
        if name in done or time.monotonic() > end:
            continue
        row = apart(name)
        verdicts[row["verdict"]] += 1
        with asked.out.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="").writerow(row)
        sys.stdout.write(f"{row['network']}: {row['verdict']} {row['reason']}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{dict(verdicts)}\n")


if __name__ == "__main__":
    main()
