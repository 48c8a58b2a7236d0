"""What a network loses when its activations become cheaper functions, without training.

Every form on all channels, and the least damaging half, of the shipped networks: fitted on training
images, measured on test images, next to ReLU and ReLU with BatchNorms estimated again. `ranks`
compares the damage of single channels with its first-order prediction. Rows are kept in
RESULTS_replace.csv and RESULTS_replace_ranks.csv, so that an interrupted run goes on.

    python benchmarks/replacing.py measure --networks digits_swish cifar10_swish
    python benchmarks/replacing.py ranks
    python benchmarks/replacing.py write
"""

import argparse
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import machine
from common import table as table_text
from torch import nn

import acon_analysis as acon
from acon_analysis.data.sources import open_data
from acon_hooks.layers.scan import scan_layers
from acon_hooks.replacement.damage import channel_damage, first_order_damage
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.replace import replace_data

HERE = Path(__file__).parent
DAMAGE, RANKS = HERE / "RESULTS_replace.csv", HERE / "RESULTS_replace_ranks.csv"
PAGE = HERE / "RESULTS_replace.md"

KINDS = ("swish", "acon", "metaacon", "relu")
NETWORKS = [f"{data}_{kind}" for data in ("digits", "cifar10") for kind in KINDS]
FORMS = ("two-piece", "line", "poly:2", "poly:4", "hardswish")
BUDGETS = (1.0, 0.5)

#: Images that single channels are replaced on, and how many channels at most.
RANK_IMAGES, RANK_CHANNELS = 64, 256


def images(name: str, count: int) -> tuple[Any, Any]:
    """Return test and training images of a network's data set."""
    data = name.partition("_")[0]
    test, train = (open_data(f"{data}:{split}").head(count) for split in ("test", "train"))
    return test, train


def smooth(network: nn.Module) -> list[str]:
    """Return the activations that are no ReLU; of a network with nothing else its ReLUs."""
    kinds = ("meta_acon", "acon", "activation")
    found = {layer.name: layer.module for layer in scan_layers(network, kinds)}
    own = [name for name, module in found.items() if not isinstance(module, nn.ReLU)]
    return own or list(found)


def kept(path: Path) -> pd.DataFrame:
    """Return the rows that are there."""
    return pd.read_csv(path) if path.is_file() else pd.DataFrame({"network": [], "with": []})


def append(path: Path, table: pd.DataFrame) -> None:
    """Add rows to a table."""
    options: dict[str, Any] = {"index": False, "float_format": "%.5g", "lineterminator": "\n"}
    table.to_csv(path, mode="a", header=not path.is_file(), **options)


def measure(options: argparse.Namespace) -> None:
    """Measure what is missing."""
    for budget in options.budgets:
        for name in options.networks:
            for form in options.forms:
                found = kept(DAMAGE)
                own = found[(found["network"] == name) & (found["with"] == form)]
                if len(own) and (own["budget"] == budget).any():
                    continue
                test, train = images(name, options.images)
                network = acon.build_model(name)
                done = replace_data(
                    network, test, form, train, smooth(network), budget, batch_size=125
                )
                keys = {"network": name, "with": form, "budget": budget}
                append(DAMAGE, done.table.assign(**keys)[[*keys, *done.table.columns]])
                print(name, budget, done.table.to_string(), sep="\n", flush=True)


def ranks(options: argparse.Namespace) -> None:
    """Compare the predicted damage of single channels with the measured one."""
    for name in options.networks:
        for form in options.forms:
            found = kept(RANKS)
            if ((found["network"] == name) & (found["with"] == form)).any():
                continue
            test, train = images(name, options.images)
            network = acon.build_model(name)
            fit = fit_units(network, train, form=form, layers=smooth(network), batch_size=125)
            rows = fit.table.iloc[:: -(-len(fit.table) // RANK_CHANNELS)].reset_index(drop=True)
            fit = with_fields(fit, table=rows)
            batch = torch.stack([test[index] for index in range(RANK_IMAGES)])
            predicted = first_order_damage(network, fit, batch)["first_order"]
            measured = channel_damage(network, fit, batch)["mean"]
            row = {
                "network": name,
                "with": form,
                "channels": len(measured),
                "first_order": measured.corr(predicted, method="spearman"),
                "s_c": measured.corr(rows["s_c"], method="spearman"),
            }
            append(RANKS, pd.DataFrame([row]))
            print(row, flush=True)


HEAD = """# Activations replaced without training

All channels of every activation that is no ReLU (of a network of ReLUs these; Meta-ACON with its β
network dropped), or the half whose replacement is predicted to change the logits least. Forms are
fitted on training images and measured on test images, the first {count:,} of each, or all. Change
of the accuracy in points with its 95 % interval; in brackets the mean change of the logits, the
norm of the difference over their norm. "Again": BatchNorms estimated again on the images of the
fit. Remake with `python benchmarks/replacing.py`."""


def cell(rows: pd.DataFrame, form: str, again: bool) -> str:
    """Return the damage of a form in words; empty where it was not measured."""
    own = rows[(rows["form"] == form) & (rows["recalibrated"] == again)]
    if not len(own):
        return ""
    row = own.iloc[0]
    change, low, high = (100 * row[f"accuracy_{end}"] for end in ("change", "low", "high"))
    return f"{change:+.1f} ({low:+.1f} to {high:+.1f}) [{row['output_change']:.3f}]"


def write(options: argparse.Namespace) -> None:
    """Write the page."""
    found = kept(DAMAGE)
    columns = ["relu", "relu, again", *FORMS]
    parts = [HEAD.format(count=options.images)]
    for budget, part in found.groupby("budget", sort=False):
        rows = []
        for name, own in part.groupby("network", sort=False):
            # ReLU of a smaller budget stands on the channels of each form: whole networks only.
            plain = ["relu", "relu, again"] if budget == 1 else []
            cells = {
                "relu": cell(own, "relu", False),
                "relu, again": cell(own, "relu", True),
                **{form: cell(own[own["with"] == form], form, False) for form in FORMS},
            }
            rows.append([name, *(cells[column] for column in [*plain, *FORMS])])
        title = "All channels" if budget == 1 else f"{100 * float(str(budget)):g} % of the channels"
        head = ["network", *(columns if budget == 1 else FORMS)]
        parts += [f"## {title}", table_text(tuple(head), rows)]
    ranked = kept(RANKS)
    if len(ranked):
        body = [
            [row["network"], row["with"], row["channels"], f"{row['first_order']:.3f}",
             f"{row['s_c']:.3f}"]
            for row in ranked.to_dict("records")
        ]  # fmt: skip
        words = (
            "Spearman's rank correlation of the mean change of the logits, each channel replaced "
            f"alone on {RANK_IMAGES} test images, with the first-order prediction on "
            "the same images and with s_c."
        )
        head = ["network", "form", "channels", "first order", "s_c"]
        parts += ["## Predicted and measured damage", words, table_text(tuple(head), body)]
    text = "\n\n".join(parts) + f"\n\nMeasured on: {machine()}.\n"
    PAGE.write_text(text, "utf-8")
    print(text)


def main() -> None:
    """Measure, rank or write."""
    parser = argparse.ArgumentParser(description="what do cheaper activations cost?")
    parser.add_argument("what", choices=["measure", "ranks", "write"])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS))
    parser.add_argument("--images", type=int, default=1_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"measure": measure, "ranks": ranks, "write": write}[options.what](options)


if __name__ == "__main__":
    main()
