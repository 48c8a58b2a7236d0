"""What a network loses when its activations become cheaper functions, without training.

Every form on all channels, and the least damaging half, of the shipped networks: fitted on training
images, measured on test images, next to ReLU and ReLU with BatchNorms estimated again. `mix`
gives each channel the cheapest of several forms that a change of the logits allows;
`ranks` compares the damage of single channels with its first-order prediction. Rows are kept in
RESULTS_replace.csv, RESULTS_replace_mixed.csv and RESULTS_replace_ranks.csv, so that an interrupted
run goes on. `write` makes the page and the package's table ``replacement_forms``.

    python benchmarks/replacing.py measure --networks digits_swish cifar10_swish
    python benchmarks/replacing.py mix
    python benchmarks/replacing.py ranks
    python benchmarks/replacing.py write
"""

import argparse
import functools
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
from acon_analysis.training.loop import Training
from acon_analysis.training.recipes import RECIPES
from acon_hooks.layers.scan import scan_layers
from acon_hooks.replacement.damage import channel_damage, first_order_damage
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.replace import forms_of, replace_data

HERE = Path(__file__).parent
DAMAGE, MIXED, RANKS = (HERE / f"RESULTS_replace{part}.csv" for part in ("", "_mixed", "_ranks"))
PAGE = HERE / "RESULTS_replace.md"
TABLE = Path(acon.__file__).parent / "studies" / "results" / "replacement_forms.csv"

KINDS = ("swish", "acon", "metaacon", "relu")
#: A network without BatchNorm, trained here.
PLAIN = "digits_plain"
#: What the names of networks say of their activations and data.
ACTIVATIONS = {
    "swish": "Swish", "acon": "ACON-C", "metaacon": "Meta-ACON", "relu": "ReLU", "plain": "Swish",
}  # fmt: skip
DATA = {"digits": "digits", "cifar10": "CIFAR-10"}
NETWORKS = [f"{data}_{kind}" for data in ("digits", "cifar10") for kind in KINDS] + [PLAIN]
FORMS = ("two-piece", "line", "poly:2", "poly:4", "hardswish")
BUDGETS = (1.0, 0.5)

#: Forms that are mixed, the cheapest first, and the predicted change of the logits allowed.
MIX = ("line", "relu", "two-piece")
MAX_CHANGES = (0.02, 0.05, 0.2)

#: Images that single channels are replaced on, and how many channels at most.
RANK_IMAGES, RANK_CHANNELS = 64, 256


def images(name: str, count: int) -> tuple[Any, Any]:
    """Return test and training images of a network's data set."""
    data = name.partition("_")[0]
    test, train = (open_data(f"{data}:{split}").head(count) for split in ("test", "train"))
    return test, train


@functools.cache
def build(name: str) -> nn.Module:
    """Return a shipped network, or `PLAIN`: four convolutions with SiLU, trained in seconds."""
    if name != PLAIN:
        return acon.build_model(name)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inner, outer, stride in ((1, 16, 1), (16, 32, 2), (32, 64, 1), (64, 64, 2)):
        convolution = nn.Conv2d(inner, outer, 3, stride, 1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, nn.SiLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    train, test = open_data("digits:train"), open_data("digits:test")
    training = Training(network, train, test, RECIPES["digits"], seed=0)
    for _ in training.run(progress=False):
        pass
    print(training.curves.tail(1).to_string(), flush=True)
    return network.eval()


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
                network = build(name)
                done = replace_data(
                    network, test, form, train, smooth(network), budget, batch_size=125
                )
                keys = {"network": name, "with": form, "budget": budget}
                append(DAMAGE, done.table.assign(**keys)[[*keys, *done.table.columns]])
                print(name, budget, done.table.to_string(), sep="\n", flush=True)


def mix(options: argparse.Namespace) -> None:
    """Measure mixtures that are missing."""
    for name in options.networks:
        for allowed in MAX_CHANGES:
            found = kept(MIXED)
            if len(found) and (found[found["network"] == name]["max_change"] == allowed).any():
                continue
            test, train = images(name, options.images)
            network = build(name)
            done = replace_data(
                network, test, MIX, train, smooth(network), max_change=allowed, batch_size=125
            )
            counts = forms_of(done.plan)
            keys = {"network": name, "max_change": allowed, **{form: counts[form] for form in MIX}}
            rows = done.table[done.table["form"] == done.table["form"].iloc[0]]
            append(MIXED, rows.assign(**keys)[[*keys, *rows.columns]])
            print(keys, rows.to_string(), sep="\n", flush=True)


def ranks(options: argparse.Namespace) -> None:
    """Compare the predicted damage of single channels with the measured one."""
    for name in options.networks:
        for form in options.forms:
            found = kept(RANKS)
            if ((found["network"] == name) & (found["with"] == form)).any():
                continue
            test, train = images(name, options.images)
            network = build(name)
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
fit. `digits_plain` is a small network without BatchNorm, trained by the script. Empty: not
measured. Remake with `python benchmarks/replacing.py`."""


def cell(rows: pd.DataFrame, form: str, again: bool) -> str:
    """Return the damage of a form in words; empty where it was not measured."""
    own = rows[(rows["form"] == form) & (rows["recalibrated"] == again)]
    if not len(own):
        return ""
    row = own.iloc[0]
    change, low, high = (100 * row[f"accuracy_{end}"] for end in ("change", "low", "high"))
    return f"{change:+.1f} ({low:+.1f} to {high:+.1f}) [{row['output_change']:.3g}]"


MIXED_HEAD = f"""Each channel has the first of {", ".join(MIX)} whose own predicted change of the
logits is within a tolerance, the same for all channels and raised as far as all together change the
logits of 128 training images by at most what is allowed; if none is, it keeps its activation."""


def mixtures(found: pd.DataFrame) -> str:
    """Return the mixtures as a table: channels of each form, and what is lost."""
    rows = []
    for (name, allowed), own in found.groupby(["network", "max_change"], sort=False):
        row = own[~own["recalibrated"]].iloc[0]
        rows.append(
            [name, f"{allowed:g}", *(row[form] for form in MIX), cell(own, row["form"], False)]
        )
    head = ("network", "allowed", *MIX, "accuracy, points [logits, measured]")
    return table_text(head, rows)


def forms_table(part: pd.DataFrame, budget: float) -> str:
    """Return one budget's damage as a table: a row a network, a column a form."""
    columns = {"relu": ("relu", False), "relu, again": ("relu", True)}
    columns |= {form: (form, False) for form in FORMS}
    rows = []
    for name in [name for name in NETWORKS if name in set(part["network"])]:
        own = part[part["network"] == name]
        # Below 100 % the baseline of another form stands on that form's channels.
        own = own[(own["form"] == own["with"]) | (budget == 1)]
        rows.append([name, *(cell(own, *key) for key in columns.values())])
    return table_text(("network", *columns), rows)


def ranks_table(found: pd.DataFrame) -> str:
    """Return rank correlations as a table; none where no channel does any damage."""
    rows = [
        [row["network"], row["with"], row["channels"],
         *("" if pd.isna(row[name]) else f"{row[name]:.5f}" for name in ("first_order", "s_c"))]
        for row in found.to_dict("records")
    ]  # fmt: skip
    return table_text(("network", "form", "channels", "first order", "s_c"), rows)


RANKS_HEAD = f"""Spearman's rank correlation of the mean change of the logits, each channel replaced
alone on {RANK_IMAGES} test images, with the first-order prediction on the same images and with s_c;
empty where no replacement changes anything."""


def write(options: argparse.Namespace) -> None:
    """Write the page, and the table of the package."""
    found, mixed, ranked = kept(DAMAGE), kept(MIXED), kept(RANKS)
    parts = [HEAD.format(count=options.images)]
    for budget in sorted(found["budget"].unique(), reverse=True):
        title = "All channels" if budget == 1 else f"{100 * budget:g} % of the channels"
        parts += [f"## {title}", forms_table(found[found["budget"] == budget], budget)]
    if len(mixed):
        parts += ["## Mixed forms", MIXED_HEAD, mixtures(mixed)]
    if len(ranked):
        parts += ["## Predicted and measured damage", RANKS_HEAD, ranks_table(ranked)]
    ship(found, options.images)
    text = "\n\n".join(parts) + f"\n\nMeasured on: {machine()}.\n"
    PAGE.write_text(text, "utf-8")
    print(text)


SHIPPED = """# Networks whose activations became cheaper functions

A row a network, form, share of the channels (`budget`, those of least predicted change first) and
whether BatchNorms were estimated again; the first {count:,} test images, or all. Columns as in
`acon_analysis.columns.REPLACEMENT_COLUMNS`; `digits_plain` is a network without BatchNorm. Rows of
`benchmarks/RESULTS_replace.csv`; made by

    python benchmarks/replacing.py measure
    python benchmarks/replacing.py write
"""


def ship(found: pd.DataFrame, count: int) -> None:
    """Write the table of the package: every form once, ReLU of all channels among them."""
    plain = (found["form"] == "relu") & (found["budget"] == 1)
    own = found[(found["form"] == found["with"]) | plain]
    own = own.drop_duplicates(["network", "form", "budget", "recalibrated"])
    names = own["network"].str.partition("_")
    own = own.assign(
        data=names[0].map(DATA).mask(own["network"] == PLAIN, "digits, no BatchNorm"),
        activation=names[2].map(ACTIVATIONS),
        place=own["network"].map({name: index for index, name in enumerate(NETWORKS)}),
    ).sort_values(["budget", "place"], ascending=[False, True], kind="stable")
    columns = [
        "network", "data", "activation", "form", "recalibrated", "budget", "channels", "samples",
        "loss_change", "low", "high", "accuracy", "accuracy_change", "accuracy_low",
        "accuracy_high", "agreement", "output_change",
    ]  # fmt: skip
    own[columns].to_csv(TABLE, index=False, float_format="%.4g", lineterminator="\n")
    TABLE.with_suffix(".md").write_text(SHIPPED.format(count=count), "utf-8")


def main() -> None:
    """Measure, rank or write."""
    parser = argparse.ArgumentParser(description="what do cheaper activations cost?")
    parser.add_argument("what", choices=["measure", "mix", "ranks", "write"])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS))
    parser.add_argument("--images", type=int, default=1_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"measure": measure, "mix": mix, "ranks": ranks, "write": write}[options.what](options)


if __name__ == "__main__":
    main()
