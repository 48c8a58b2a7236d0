"""What β learns on photographs: over the epochs, by class, and in variants that are in doubt.

Trains small Meta-ACON networks on CIFAR-10 (8 epochs on 20,000 images each): the usual one, without
BatchNorm in the β network, with reduction r = 4, with one β a layer, with one β a pixel, and with
weight decay on everything. Then captures every network, at several epochs, on 1,000 test images
and sets the spread of β and the effect of the sample against what BatchNorm alone gives; the same
for networks of `acon train cifar10_metaacon --snapshots`, variant ``long``, whose seed 0 is
shipped. Writes the tables ``beta_over_epochs``, ``beta_of_long`` and ``beta_variants`` of the
package (`acon_analysis.studies.results.table`), and RESULTS_beta.md.

    python benchmarks/beta_learning.py train --seeds 0 1        # hours on few cores; resumable
    python benchmarks/beta_learning.py measure --long FOLDER    # FOLDER: snapshots of `acon train`
"""

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import machine
from common import table as table_text
from safetensors.torch import load_file, save_file

import acon_analysis as acon
from acon_analysis.data.sources import open_data
from acon_analysis.models.bottleneck import BottleneckResNet
from acon_analysis.training.loop import Training
from acon_analysis.training.recipes import RECIPES, Recipe
from acon_analysis.training.release import wilson_interval

EPOCHS, IMAGES, SNAPSHOTS = 8, 20_000, (0, 1, 3, 8)
TEST_IMAGES, ALL_TEST_IMAGES = 1_000, 10_000
LONG = "long"
TABLES = Path(acon.__file__).parent / "studies" / "results"
CSV: dict[str, Any] = {"index": False, "float_format": "%.5g", "lineterminator": "\n"}


@dataclass(frozen=True)
class Variant:
    """One way to build or train the network: its words, and what it changes."""

    words: str
    options: Mapping[str, Any] = field(default_factory=dict)
    decay_all: bool = False

    def build(self, seed: int) -> BottleneckResNet:
        """Return the network with the first weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return BottleneckResNet(
                "metaacon",
                input_shape=(3, 32, 32),
                widths=(16, 32, 64),
                blocks=(2, 2, 2),
                expansion=4,
                stem_stride=2,
                **self.options,
            )

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return replace(RECIPES["cifar10"], epochs=EPOCHS, decay_all=self.decay_all)


VARIANTS = {
    "usual": Variant("as in the official code: r = 16, BatchNorm, no decay on p1, p2, norms"),
    "no_batch_norm": Variant("no BatchNorm in the β network", {"batch_norm": False}),
    "r4": Variant("reduction r = 4", {"r": 4}),
    "layer": Variant("one β a layer: σ(sum of x)", {"granularity": "layer"}),
    "pixel": Variant("one β a pixel: σ(x)", {"granularity": "pixel"}),
    "decay_all": Variant("weight decay on every parameter", decay_all=True),
}


def train(options: argparse.Namespace) -> None:
    """Train what is missing; every epoch is saved."""
    images, test = open_data("cifar10:train").head(IMAGES), open_data("cifar10:test")
    for seed in options.seeds:
        for name in options.variants:
            stem = options.work / f"{name}-seed{seed}"
            if stem.with_suffix(".csv").exists():
                continue
            variant = VARIANTS[name]
            state = stem.with_suffix(".state")
            model = variant.build(seed)
            training = Training(model, images, test, variant.recipe, seed, state, name)
            options.work.mkdir(parents=True, exist_ok=True)
            if training.epoch in SNAPSHOTS:  # of epoch 0; or one ended between state and snapshot
                save(model, stem, training.epoch)
            for epoch in training.run(progress=False):
                if epoch in SNAPSHOTS:
                    save(model, stem, epoch)
            training.curves.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
            state.unlink()
            error = training.curves["test_error"].iloc[-1]
            print(f"{stem.name}: test accuracy {1 - error:.4f}", flush=True)


def save(model: torch.nn.Module, stem: Path, epoch: int) -> None:
    """Write the weights of an epoch."""
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, snapshot(stem, epoch))


def snapshot(stem: Path, epoch: int) -> Path:
    """Return the file of an epoch."""
    return stem.with_name(f"{stem.name}.epoch{epoch:03d}.safetensors")


def measure(options: argparse.Namespace) -> None:
    """Capture every network that is there, and write the tables."""
    frames = [measured(found) for found in networks(options)]
    table = pd.concat(frames, ignore_index=True)
    short = table["variant"] != LONG
    write("beta_over_epochs", table[short], OVER_EPOCHS.format(what=OF_VARIANTS))
    write("beta_of_long", table[~short], OVER_EPOCHS.format(what=OF_LONG))
    curves = [
        pd.read_csv(file).assign(variant=name, seed=seed, epochs=len(pd.read_csv(file)))
        for name, seed, file in trained(options)
    ]
    last = pd.concat([frame.tail(1) for frame in curves], ignore_index=True)
    last = last.assign(train_accuracy=1 - last["train_error"], test_accuracy=1 - last["test_error"])
    columns = ["variant", "seed", "epochs", "train_accuracy", "test_accuracy"]
    write("beta_variants", last[columns], ACCURACY)
    page = Path(__file__).with_name("RESULTS_beta.md")
    page.write_text(text_of(table, last), "utf-8")


OF_VARIANTS = f"variants of Meta-ACON, each trained for {EPOCHS} epochs on {IMAGES:,} images"
OF_LONG = "`cifar10_metaacon` by its own recipe (seed 0 is shipped), 15 epochs on 45,000 images"
OVER_EPOCHS = """# β of Meta-ACON while a network learns photographs

CIFAR-10, {what}. A row a variant, seed, epoch and layer, measured on 1,000 test images: mean of β,
standard deviation over samples (root mean square over channels), what BatchNorm's scale and shift
alone give (`null_sd`), the effect of the sample (variance of the samples' means over that of
independent channels) with the 5th and 95th percentile of 99 β networks with redrawn weights, the
share of that effect which the class explains (`eta2`), mean size of bn2's scale (`gamma`) and of
p1 - p2 (`slopes`), L with its 95 % interval, G. Epoch 0 is the untrained network with BatchNorm
statistics from 2,000 training images. Made by

    python benchmarks/beta_learning.py train
    python benchmarks/beta_learning.py measure
"""
ACCURACY = """# Accuracy of the networks whose β was followed

CIFAR-10, all 10,000 test images, after the last epoch; `long` (seed 0 is the shipped network) saw
45,000 images in 15 epochs, the others 20,000 in 8. Made by

    python benchmarks/beta_learning.py train
    python benchmarks/beta_learning.py measure
"""


def write(name: str, table: pd.DataFrame, provenance: str) -> None:
    """Write a table of the package with the text that says how it was made."""
    table.to_csv(TABLES / f"{name}.csv", **CSV)
    (TABLES / f"{name}.md").write_text(provenance, "utf-8")


@dataclass(frozen=True)
class Found:
    """Weights of one network after one epoch."""

    variant: str
    seed: int
    epoch: int
    weights: Path


def trained(options: argparse.Namespace) -> Iterator[tuple[str, int, Path]]:
    """Yield variant, seed and curves of every finished training."""
    for name in VARIANTS:
        for file in sorted(options.work.glob(f"{name}-seed*.csv")):
            yield name, int(file.stem.partition("-seed")[2]), file
    for file in sorted(options.long.glob("cifar10_metaacon*.csv")):
        yield LONG, int(file.stem.partition("seed")[2] or 0), file


def networks(options: argparse.Namespace) -> Iterator[Found]:
    """Yield every snapshot of the finished trainings, and the finished weights."""
    for name, seed, curves in trained(options):
        stem = curves.with_suffix("")
        for file in sorted(curves.parent.glob(f"{stem.name}.epoch*.safetensors")):
            yield Found(name, seed, int(file.stem.partition(".epoch")[2]), file)
        final = curves.with_suffix(".safetensors")
        if final.is_file():
            yield Found(name, seed, len(pd.read_csv(curves)), final)


def measured(found: Found) -> pd.DataFrame:
    """Return one row a layer of one network."""
    model = VARIANTS.get(found.variant, VARIANTS["usual"]).build(found.seed)
    model.load_state_dict(load_file(found.weights))
    if found.epoch == 0:
        estimate_norms(model)
    images = open_data("cifar10:test").head(TEST_IMAGES)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "untrained", which is the point here
        run = acon.capture(model.eval(), images, Path(folder) / "run", moments=True, progress=False)
        split = run.variance_split()
        linear = run.linearity("layer", columns="all")[["layer", "L", "L_low", "L_high", "G"]]
        own = run.channels.assign(difference=lambda f: f["p1"] - f["p2"])
        by = own.groupby("layer", sort=False)
        facts = pd.DataFrame(
            {
                "gamma": by["bn_weight"].agg(lambda v: v.abs().mean()),
                "slopes": by["difference"].agg(lambda v: v.abs().mean()),
                "null_sd": {layer: null_spread(run, layer) for layer in split["layer"]},
            }
        ).rename_axis("layer")
    names = {"mean": "beta_mean", "within_std": "beta_sd", "ratio": "effect_ratio",
             "null_p05": "null_low", "null_p95": "null_high"}  # fmt: skip
    keep = ["layer", *names, "p_value", "eta2", "eta2_p"]
    table = split[keep].rename(columns=names).merge(facts, on="layer").merge(linear, on="layer")
    keys = {"variant": found.variant, "seed": found.seed, "epoch": found.epoch}
    print(keys, table[["beta_sd", "effect_ratio", "p_value"]].round(3).to_dict("list"), flush=True)
    return pd.DataFrame({**keys, **table})


def estimate_norms(model: torch.nn.Module, images: int = 2_000) -> None:
    """Give an untrained network the BatchNorm statistics of the data, in place.

    Fresh running statistics (0 and 1) do not normalise: β would be constant.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain mean over the batches
    data = open_data("cifar10:train")
    model.train()
    with torch.inference_mode():
        for start in range(0, images, 250):
            model(torch.stack([data[index] for index in range(start, start + 250)]))


def null_spread(run: acon.Run, layer: str) -> float:
    """Return the spread of β that BatchNorm alone makes, root mean square over the channels."""
    return float(np.sqrt((run.null_model(layer)["null_std"] ** 2).mean(skipna=False)))


def text_of(table: pd.DataFrame, last: pd.DataFrame) -> str:
    """Return the results as Markdown."""
    parts = [
        "# What β learns on photographs",
        "",
        f"CIFAR-10, {TEST_IMAGES:,} test images; one row a network and epoch, over its six "
        "Meta-ACON layers. β sd: spread over samples within a channel, layers' range; BatchNorm: "
        "what its trained scale and shift give alone. Effect: variance of the samples' means of β "
        "over that of independent channels; beyond: layers where it exceeds 95 % of 99 redrawn β "
        "networks. η²: share of the samples' effect that the class explains. γ: mean size of bn2's "
        "scale. Accuracies: after the last epoch, all 10,000 test images, with Wilson's 95 % "
        "interval of these images; what another seed would change is not in it. Remake with "
        "`python benchmarks/beta_learning.py`.",
    ]
    accuracy = last.set_index(["variant", "seed"])["test_accuracy"]
    for name, own in table.groupby("variant", sort=False):
        words = VARIANTS[str(name)].words if name in VARIANTS else OF_LONG
        parts += ["", f"## {name}: {words}", ""]
        found = (f"seed {seed} {with_interval(value)}" for seed, value in accuracy[name].items())
        parts += [f"Test accuracy: {', '.join(found)}.", ""]
        rows = [row_of(keys, layers) for keys, layers in own.groupby(["seed", "epoch"], sort=True)]
        parts.append(table_text(HEADS, rows))
    return "\n".join(parts) + f"\n\nMeasured on: {machine()}.\n"


def with_interval(accuracy: float) -> str:
    """Return an accuracy on all test images with its interval, which is not that of seeds."""
    low, high = wilson_interval(round(accuracy * ALL_TEST_IMAGES), ALL_TEST_IMAGES)
    return f"{accuracy:.4f} ({low:.4f} to {high:.4f})"


HEADS = ("seed", "epoch", "β mean", "β sd", "BatchNorm", "effect", "beyond", "η²", "γ", "L")


def row_of(keys: Any, layers: pd.DataFrame) -> list[str]:
    """Return one network at one epoch in words and numbers."""
    beyond = "-"
    if layers["p_value"].notna().any():
        more = layers[layers["p_value"] <= 0.05]["layer"].str.removesuffix(".acon")
        beyond = f"{len(more)} of {len(layers)}" + (f" ({', '.join(more)})" if len(more) else "")
    ranges = [span(layers[name], digits) for name, digits in
              (("beta_mean", 2), ("beta_sd", 3), ("null_sd", 3), ("effect_ratio", 2))]  # fmt: skip
    ends = [span(layers[name], 2) for name in ("eta2", "gamma", "L")]
    return [str(keys[0]), str(keys[1]), *ranges, beyond, *ends]


def span(values: "pd.Series[float]", digits: int) -> str:
    """Return the least and the greatest value."""
    known = values.dropna()
    if known.empty:
        return "-"
    return f"{known.min():.{digits}f} to {known.max():.{digits}f}"


def main() -> None:
    """Train or measure."""
    parser = argparse.ArgumentParser(description="what does β learn?")
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--work", type=Path, default=Path("state/beta_variants"))
    parser.add_argument("--long", type=Path, default=Path("state"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    (train if options.what == "train" else measure)(options)


if __name__ == "__main__":
    main()
