"""Whether Meta-ACON networks use β, and whether β helps them: interventions and counterfactuals.

``measure`` holds β of the shipped Meta-ACON networks at its channel means, at 0.5, or gives each
sample that of another, and compares the losses on test images; BatchNorms are estimated again on
training images. ``train`` trains the same network from the same first weights with β as it is, with
β frozen at 0.5, and with β a parameter of each channel that starts at 0.5, by the recipe of the
shipped networks. Writes the tables ``gate_use`` and ``gate_help`` of the package
(`acon_analysis.studies.results.table`), and RESULTS_gates.md.

    python benchmarks/gate_use.py measure
    python benchmarks/gate_use.py measure --networks "cifar10_metaacon, seed 1"     # once trained
    python benchmarks/gate_use.py train --data digits --seeds 0 1 2 3 4 5 6 7 8 9   # resumable
    python benchmarks/gate_use.py train --data cifar10 --seeds 0 1 2                # hours
    python benchmarks/gate_use.py write
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import machine
from common import table as table_text
from scipy import stats
from torch import nn

import acon_analysis as acon
from acon_analysis.data.sources import open_data
from acon_analysis.layers.acon import AconC
from acon_analysis.layers.meta import MetaAconC
from acon_analysis.training.loop import Training
from acon_analysis.training.recipes import RECIPES
from acon_hooks.replacement.gate_changes import INTERVENTIONS, LEVEL, MARGIN

NETWORKS = ("cifar10_metaacon", "cifar10_shufflenet_metaacon", "digits_metaacon")
PAGE = Path(__file__).with_name("RESULTS_gates.md")
TABLES = Path(acon.__file__).parent / "studies" / "results"
CSV: dict[str, Any] = {"index": False, "float_format": "%.5g", "lineterminator": "\n"}

#: β of the trained variants, in words.
VARIANTS = {
    "meta": "β from the input (Meta-ACON)",
    "parameter": "β a parameter of each channel",
    "frozen": "β frozen at 0.5",
}


def measure(options: argparse.Namespace) -> None:
    """Measure networks; rows of a network take the place of its last ones."""
    for name in options.networks:
        data = name.partition("_")[0]
        table = acon.gate_use(
            network(name, options.work),
            open_data(f"{data}:test" if data == "cifar10" else data).head(options.images),
            tuple(INTERVENTIONS),
            recalibrate=open_data(f"{data}:train").head(options.images),
            batch_size=250,
        )
        table.insert(0, "network", name)
        replace_rows("gate_use", table, ["network"], USE)
        print(table.to_string(), flush=True)


def network(name: str, work: Path) -> nn.Module:
    """Return a shipped network, or of "NAME, seed K" the one that was trained here."""
    name, _, seed = name.partition(", seed ")
    if not seed:
        return acon.build_model(name)
    model = acon.build_model(name, weights=None)
    stem = f"{name.partition('_')[0]}-meta-seed{seed}"
    state = torch.load(work / f"{stem}.state", weights_only=True)
    if not (work / f"{stem}.csv").exists():
        raise SystemExit(f"{stem} has {state['epoch']} epochs so far; train it to the end first")
    model.load_state_dict(state["model"])
    return model.eval()


def replace_rows(name: str, table: pd.DataFrame, keys: list[str], provenance: str) -> None:
    """Write a table of the package, in the order of its keys; old rows with the same keys go."""
    path = TABLES / f"{name}.csv"
    if path.is_file():
        old = pd.read_csv(path)
        gone = old[keys].merge(table[keys].drop_duplicates(), how="left", indicator=True)
        table = pd.concat([old[(gone["_merge"] == "left_only").to_numpy()], table])
    table.sort_values(keys, kind="stable").to_csv(path, **CSV)
    path.with_suffix(".md").write_text(provenance, "utf-8")


USE = """# Interventions on β of Meta-ACON networks

The shipped ones, and with "seed K" those that `train` made by the same recipe. A row a network,
layer ("all" for all at once), intervention and whether BatchNorms outside the β networks were
estimated again on training images under it; the first 2,000 images of each split, or all. Columns
as in `acon_analysis.columns.GATE_COLUMNS`. Made by

    python benchmarks/gate_use.py measure
"""
HELP = """# Networks trained with and without β

A row a data set, variant and seed: accuracy and cross-entropy on all test images after the last
epoch of the data set's recipe. `meta` is `DATA_metaacon` as it is; `frozen` and `parameter` begin
with the same weights, but β is 0.5, fixed or as a parameter of each channel. Made by

    python benchmarks/gate_use.py train
"""


def build(data: str, variant: str, seed: int) -> nn.Module:
    """Return the untrained network of a variant; all but β begins alike for a seed."""
    network = acon.build_model(f"{data}_metaacon", weights=None, seed=seed)
    if variant == "meta":
        return network
    for name, layer in list(network.named_modules()):
        if isinstance(layer, MetaAconC):
            static = AconC(layer.channels)
            static.p1, static.p2 = layer.p1, layer.p2
            nn.init.constant_(static.beta, 0.5).requires_grad_(variant != "frozen")
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, static)
    return network


def train(options: argparse.Namespace) -> None:
    """Train what is missing; every epoch is saved."""
    data = options.data
    images = open_data(f"{data}:train")
    test = open_data("digits" if data == "digits" else "cifar10:test")
    for seed in options.seeds:
        for variant in options.variants:
            stem = options.work / f"{data}-{variant}-seed{seed}"
            if stem.with_suffix(".csv").exists():
                continue
            model, state = build(data, variant, seed), stem.with_suffix(".state")
            training = Training(model, images, test, RECIPES[data], seed, state, stem.name)
            for _ in training.run(progress=False):
                pass
            training.curves.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
            print(f"{stem.name}: {1 - training.curves['test_error'].iloc[-1]:.4f}", flush=True)


def finished(work: Path) -> Iterator[dict[str, Any]]:
    """Yield the result of every training that has ended."""
    for file in sorted(work.glob("*-seed*.csv")):
        data, variant, seed = file.stem.split("-")
        last = pd.read_csv(file).iloc[-1]
        yield {
            "data": data,
            "variant": variant,
            "seed": int(seed.removeprefix("seed")),
            "epochs": int(last["epoch"]),
            "test_accuracy": 1 - last["test_error"],
            "test_loss": last["test_loss"],
        }


def write(options: argparse.Namespace) -> None:
    """Write the table of trainings, and the page of both."""
    found = pd.DataFrame(finished(options.work))
    if len(found):
        replace_rows("gate_help", found, ["data", "variant", "seed"], HELP)
    parts = [HEAD]
    for name, table in pd.read_csv(TABLES / "gate_use.csv").groupby("network", sort=False):
        parts += [f"## {name}", used(table)]
    if (TABLES / "gate_help.csv").is_file():
        parts += ["## Does β help?", helped(pd.read_csv(TABLES / "gate_help.csv"))]
    text = "\n\n".join(parts) + f"\n\nMeasured on: {machine()}.\n"
    PAGE.write_text(text, "utf-8")
    print(text)


HEAD = f"""# Do Meta-ACON networks use β, and does it help?

Test images; the change of the cross-entropy in nats with its {100 * (1 - LEVEL):g} % interval, that
of the accuracy in points, and the verdict: not used where the interval lies within ±{MARGIN:g}
nats, used where p (Holm's over the layers of a column) is at most {LEVEL:g}, otherwise undecided.
Interventions: {"; ".join(f"{name}: {words}" for name, words in INTERVENTIONS.items())}. "Again":
BatchNorms outside the β networks estimated again on training images, under the intervention and in
the network that it is compared with. Remake with `python benchmarks/gate_use.py`."""


def used(table: pd.DataFrame) -> str:
    """Return the interventions on one network as Markdown: a row a layer and way, all first."""
    head = ("layer", "BatchNorms", *table["intervention"].unique())
    rows = []
    for layer in ["all", *(name for name in table["layer"].unique() if name != "all")]:
        for again in (False, True):
            own = table[(table["layer"] == layer) & (table["recalibrated"] == again)]
            cells = [cell(row) for row in own.itertuples()]
            if cells:
                rows.append([layer, "again" if again else "as they are", *cells])
    samples = int(table["samples"].iloc[0])
    return f"{samples:,} images.\n\n{table_text(head, rows)}"


def cell(row: Any) -> str:
    """Return one intervention on one layer in words and numbers."""
    return (
        f"{row.loss_change:+.3f} ({row.low:+.3f} to {row.high:+.3f}), "
        f"{100 * row.accuracy_change:+.1f}: {row.verdict}"
    )


def helped(table: pd.DataFrame) -> str:
    """Return the accuracies of the variants, and what they lack of Meta-ACON's by seed."""
    head = ("data", "variant", "seeds", "accuracy %", "Meta-ACON's minus its, by seed", "p")
    rows = []
    for (data, variant), own in table.groupby(["data", "variant"], sort=False):
        meta = table[(table["data"] == data) & (table["variant"] == "meta")]
        pairs = own.merge(meta, on="seed", suffixes=("", "_meta"))
        accuracy = own["test_accuracy"].to_numpy()
        mean = f"{100 * accuracy.mean():.2f}"
        if len(accuracy) > 1:
            mean += f" (sd {100 * float(np.std(accuracy, ddof=1)):.2f})"
        more = (pairs["test_accuracy_meta"] - pairs["test_accuracy"]).to_numpy()
        words = VARIANTS[str(variant)]
        rows.append([data, words, len(own), mean, *gain(str(variant), 100 * more)])
    return table_text(head, rows)


def gain(variant: str, more: Any) -> tuple[str, str]:
    """Return the mean gain of points with its 95 % interval over seeds, and p; of one seed it."""
    if variant == "meta" or len(more) < 2:
        return "" if variant == "meta" or not len(more) else f"{more[0]:+.2f}", ""
    test: Callable[..., Any] = stats.ttest_1samp
    found = test(more, 0)
    low, high = found.confidence_interval(0.95)
    return f"{more.mean():+.2f} ({low:+.2f} to {high:+.2f})", f"{found.pvalue:.2g}"


def main() -> None:
    """Measure, train or write."""
    parser = argparse.ArgumentParser(description="is β used, and does it help?")
    parser.add_argument("what", choices=["measure", "train", "write"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--data", choices=["digits", "cifar10"], default="digits")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--work", type=Path, default=Path("state/gate_help"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"measure": measure, "train": train, "write": write}[options.what](options)


if __name__ == "__main__":
    main()
