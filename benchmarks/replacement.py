"""Replace single channels by straight lines, and see which measure predicts the damage.

Trains the digits networks from several seeds (or takes given weights), fits a line to every unit
on the training split, replaces every unit alone on images of the test split, and sets the change of
the logits against s_c, L, G, κ, |β| and the other measures. Writes RESULTS_replacement.csv
(rank correlations), RESULTS_replacement_kinds.csv (line against input, zero and mean),
RESULTS_replacement_budgets.csv (many units at once) and RESULTS_replacement.md.

    python benchmarks/replacement.py --seeds 1 2 3 --epochs 12
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import table as table_text
from torch import nn

from acon_analysis.data.sources import open_data
from acon_analysis.models.registry import build_model
from acon_analysis.studies.replacement_ranks import rank_correlations
from acon_analysis.training.release import train_network
from acon_hooks.engine.plans import relative_change
from acon_hooks.readings.found_layers import find_layers
from acon_hooks.replacement.damage import channel_damage, channel_measures, first_order_damage
from acon_hooks.replacement.fitting import Fit, fit_units
from acon_hooks.replacement.linearizing import linearize

#: Measures that are compared; larger is more nonlinear.
MEASURES = (
    "s_c", "first_order", "kappa", "G", "nonlinearity", "not_affinity",
    "gate_entropy", "gradient_variance", "abs_beta",
)  # fmt: skip
FIGURE = ("s_c", "first_order", "kappa", "G", "nonlinearity", "abs_beta")
RANKINGS = ("s_c", "first_order", "kappa", "G", "nonlinearity", "abs_beta", "random")
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
REPLACEMENTS = ("affine", "identity", "zero")


@dataclass(frozen=True)
class Case:
    """A trained network: its name, the seed of its training, and its weights."""

    network: str
    seed: int
    weights: Path | str


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the networks of the experiment, trained here where their weights do not exist yet."""
    if options.weights:
        return [Case(options.networks[0], n, Path(file)) for n, file in enumerate(options.weights)]
    found = []
    for seed in options.seeds:
        for network in options.networks:
            weights = options.work / f"{network}-e{options.epochs}-s{seed}.safetensors"
            if not weights.exists():
                curves = train_network(
                    network, weights, epochs=options.epochs, seed=seed, progress=False
                )
                print(f"{weights.name}: test accuracy {1 - curves['test_error'].iloc[-1]:.4f}")
            found.append(Case(network, seed, weights))
    return found


def studied(model: nn.Module, kinds: Sequence[str], ending: str) -> list[str]:
    """Return the layers whose units are replaced: those that end in a name."""
    return [layer.name for layer in find_layers(model, kinds) if layer.name.endswith(ending)]


def run_case(case: Case, options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row a unit and replacement, and one row a ranking and budget."""
    start = time.process_time()
    model = build_model(case.network, weights=case.weights)
    data = case.network.partition("_")[0]
    layers = studied(model, ("meta_acon", "acon", "activation"), options.layers)
    fit = fit_units(model, f"{data}:train", layers=layers, limit=options.fit_images, batch_size=256)
    images, targets = test_images(data, options.images)
    damage = channel_damage(model, fit, images, layers=layers, replacements=REPLACEMENTS)
    table = scores(model, fit, layers)
    keys = ["layer", "call", "channel"]
    units = damage.merge(table, on=keys, validate="many_to_one")
    budgets = many_units(model, fit, table, images, targets)
    print(f"{case.network} seed {case.seed}: {time.process_time() - start:.0f} s of processor time")
    return (
        units.assign(network=case.network, seed=case.seed),
        budgets.assign(network=case.network, seed=case.seed),
    )


def test_images(data: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images at even distances in the test split, with their classes."""
    source = open_data(f"{data}:test")
    chosen = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    images = torch.stack([source[int(index)] for index in chosen])
    return images.contiguous(memory_format=torch.channels_last), torch.tensor(
        source.targets[chosen] if source.targets is not None else chosen
    )


def scores(model: nn.Module, fit: Fit, layers: Sequence[str]) -> pd.DataFrame:
    """Return the measures of every unit; those of the fit come from the training split."""
    keys = ["layer", "call", "channel"]
    train = open_data(f"{fit.data.partition(':')[0]}:train")
    some = torch.stack([train[index] for index in range(0, len(train), max(len(train) // 200, 1))])
    others = channel_measures(model, some, layers=layers, kinds=("meta_acon", "acon", "activation"))
    first = first_order_damage(model, fit, some, layers=layers)
    names = ["s_c", "G", "kappa", "nonlinearity", "slope", "intercept"]
    table = fit.table[[*keys, *names]].merge(first, on=keys)
    names = ["affinity", "gate_entropy", "gradient_variance", "abs_beta"]
    table = table.merge(others[[*keys, *names]], on=keys)
    return table.assign(not_affinity=1 - table["affinity"])


def many_units(
    model: nn.Module, fit: Fit, table: pd.DataFrame, images: torch.Tensor, targets: torch.Tensor
) -> pd.DataFrame:
    """Replace the least units of several rankings together, share by share."""
    rng = np.random.default_rng(0)
    ranked = table.merge(fit.table[["layer", "call", "channel", "L"]])
    ranked = ranked.assign(random=rng.permutation(len(ranked)).astype(float))
    rows = []
    with torch.inference_mode():
        before = model(images)
        for ranking in RANKINGS:
            if ranked[ranking].isna().any():
                continue
            for share in SHARES:
                count = round(share * len(ranked))
                chosen = ranked.sort_values(ranking, kind="stable").head(count)
                units = list(chosen[["layer", "call", "channel"]].itertuples(index=False))
                after = linearize(model, fit.plan(units=units))(images)
                rows.append(
                    {
                        "ranking": ranking,
                        "share": share,
                        "units": count,
                        "change": float(np.median(relative_change(before, after))),
                        "accuracy": float((after.argmax(1) == targets).double().mean()),
                        "accuracy_before": float((before.argmax(1) == targets).double().mean()),
                    }
                )
    return pd.DataFrame(rows)


def summarize(correlations: pd.DataFrame, draws: int = 2000) -> pd.DataFrame:
    """Average correlations over layers, then seeds; one row a network and measure.

    The interval of 95 % is a percentile bootstrap in two levels (Davison and Hinkley 1997,
    Bootstrap Methods and their Application, section 3.8): of seeds, then of layers of each.
    """
    rng = np.random.default_rng(0)
    rows = []
    known = correlations.dropna(subset=["spearman"])
    for (network, measure), part in known.groupby(["network", "measure"], sort=False):
        groups = [own["spearman"].to_numpy(np.float64) for _, own in part.groupby("seed")]
        means = np.array([own.mean() for own in groups])
        low, high = np.quantile([drawn(groups, rng) for _ in range(draws)], [0.025, 0.975])
        rows.append(
            {
                "network": network,
                "measure": measure,
                "spearman": means.mean(),
                "low": low,
                "high": high,
                "seed_std": means.std(ddof=1) if len(means) > 1 else np.nan,
                "least": part["spearman"].min(),
                "seeds": len(groups),
                "layers": len(part),
                "units": int(part["units"].sum()),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.sort_values(["network", "spearman"], ascending=[True, False], ignore_index=True)


def drawn(groups: list[np.ndarray], rng: np.random.Generator) -> float:
    """Return the mean of the means of layers drawn within drawn seeds."""
    chosen = rng.integers(len(groups), size=len(groups))
    return float(np.mean([rng.choice(groups[i], len(groups[i])).mean() for i in chosen]))


def compare(damage: pd.DataFrame) -> pd.DataFrame:
    """Compare what replaces a unit with its line; one row a network and replacement.

    ``times_affine``: the median damage over that of lines; ``affine_better``: the share of units
    where the line changes the logits less.
    """
    keys = ["network", "seed", "layer", "call", "channel"]
    wide = damage.pivot(index=keys, columns="replacement", values="median")
    rows = []
    for network, own in wide.groupby("network", sort=False):
        for name in REPLACEMENTS:
            pair = own[["affine", name]].dropna().to_numpy()
            line, other = pair[:, 0], pair[:, -1]
            rows.append(
                {
                    "network": network,
                    "replacement": name,
                    "median": np.median(other),
                    "times_affine": np.median(other) / np.median(line),
                    "affine_better": np.nan if name == "affine" else (line < other).mean(),
                    "seeds": own.reset_index()["seed"].nunique(),
                    "units": len(pair),
                }
            )
    return pd.DataFrame(rows)


def report(units: pd.DataFrame, budgets: pd.DataFrame, options: argparse.Namespace) -> None:
    """Write the tables and the page."""
    folder: Path = options.out
    affine = units[units["replacement"] == "affine"].assign(damage=lambda f: f["mean"])
    correlations = rank_correlations(affine, MEASURES)
    summary = summarize(correlations)
    kinds = compare(units)
    groups = budgets.groupby(["network", "ranking", "share"], sort=False)
    curve = groups[["change", "accuracy", "accuracy_before"]].mean().reset_index()
    frames: dict[str, pd.DataFrame] = {
        "": summary,
        "_layers": correlations,
        "_kinds": kinds,
        "_budgets": curve,
    }
    for name, frame in frames.items():
        frame.to_csv(
            folder / f"RESULTS_replacement{options.suffix}{name}.csv",
            index=False, float_format="%.6g", lineterminator="\n",
        )  # fmt: skip
    columns = ["network", "seed", "layer", "call", "channel", *FIGURE, "damage"]
    affine[columns].to_csv(
        folder / f"RESULTS_replacement{options.suffix}_units.csv", index=False, float_format="%.4g",
        lineterminator="\n",
    )  # fmt: skip
    text = page(summary, kinds, curve, units, options)
    (folder / f"RESULTS_replacement{options.suffix}.md").write_text(text, "utf-8")


def page(
    summary: pd.DataFrame,
    kinds: pd.DataFrame,
    curve: pd.DataFrame,
    units: pd.DataFrame,
    options: argparse.Namespace,
) -> str:
    """Return the results as Markdown."""
    networks = list(dict.fromkeys(units["network"]))
    wide = summary.assign(
        cell=[f"{r.spearman:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in summary.itertuples()]
    ).pivot(index="measure", columns="network", values="cell")
    order = summary.groupby("measure")["spearman"].mean().sort_values(ascending=False).index
    errors = kinds.assign(
        cell=[f"{r.median:.3g} ({r.times_affine:.1f}x)" for r in kinds.itertuples()]
    ).pivot(index="replacement", columns="network", values="cell")
    changes = curve[curve["share"].isin([0.25, 0.5, 0.75])].assign(
        cell=lambda f: [f"{r.change:.3f}, {r.accuracy:.3f}" for r in f.itertuples()]
    )
    seeds = ", ".join(str(seed) for seed in sorted(units["seed"].unique()))
    trained = f"seeds {seeds}; {options.epochs} epochs each"
    if options.weights:
        trained = f"given weights ({', '.join(Path(file).name for file in options.weights)})"
    count = units.drop_duplicates(["network", "seed", "layer", "call", "channel"])
    per = count.groupby(["network", "seed"]).size().iloc[0]
    parts = [
        "# Replacing single channels by straight lines",
        "",
        f"Networks: {', '.join(networks)}; {trained}. Layers "
        f"`*{options.layers}`: {per} units a network. Lines fitted on the training split, damage "
        f"measured on {options.images} images of the test split: the mean over images of the "
        "change of the logits, norm of the difference over the norm. Measures come from the "
        "training split alone.",
        "",
        "## Spearman's correlation of measure and damage, within layers",
        "",
        "Mean over layers and seeds, [95 % interval: bootstrap over seeds, then layers].",
        "",
        markdown(wide.loc[order, networks]),
        "",
        "## What is put in a unit's place",
        "",
        "Median over units of the median change of the logits (times that of the line).",
        "",
        markdown(errors.loc[list(REPLACEMENTS), networks]),
        "",
        "## Many units at once",
        "",
        "Median change of the logits, accuracy; mean over seeds; units ranked over all layers.",
    ]
    for network, own in changes.groupby("network", sort=False):
        before = curve.loc[curve["network"] == network, "accuracy_before"].iloc[0]
        table = own.pivot(index="ranking", columns="share", values="cell")
        rows = [name for name in RANKINGS if name in table.index]
        parts += ["", f"### {network} (accuracy {before:.3f})", "", markdown(table.loc[rows])]
    return "\n".join(parts) + "\n"


def markdown(frame: pd.DataFrame) -> str:
    """Write a frame as a Markdown table, its index first."""
    shown = frame.reset_index()
    return table_text([*map(str, shown)], shown.astype(object).fillna("-").to_numpy().tolist())


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description="which measure predicts the damage?")
    networks = [f"digits_{name}" for name in ("metaacon", "acon", "swish", "relu")]
    parser.add_argument("--networks", nargs="+", default=networks)
    parser.add_argument("--weights", nargs="+", help="weights of the one network given")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--layers", default="acon", help="layers whose names end so")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--fit-images", type=int, default=None)
    parser.add_argument("--work", type=Path, default=Path("runs/replacement"))
    parser.add_argument("--suffix", default="", help="added to the names of the results")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [run_case(case, options) for case in cases(options)]
    units = pd.concat([pair[0] for pair in found], ignore_index=True)
    budgets = pd.concat([pair[1] for pair in found], ignore_index=True)
    report(units, budgets, options)


if __name__ == "__main__":
    main()
