"""What the Meta-ACON network for signals does with β: its spread, its use, and whether it helps."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from published import signals

import acon_analysis as acon

SEEDS = (0, 1, 2)


def measured(folder: Path) -> None:
    """Train and measure what is missing; tables go to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = signals.signals(signals.TESTING, 1)
    batches = [(x[i : i + 100], y[i : i + 100]) for i in range(0, len(x), 100)]
    helped = folder / "help.json"
    rows: dict[str, Any] = json.loads(helped.read_text()) if helped.exists() else {}
    for seed in SEEDS:
        for variant in signals.VARIANTS:
            network, accuracy, loss = signals.trained(variant, seed, folder)
            rows[f"{variant} {seed}"] = {
                "variant": variant,
                "seed": seed,
                "accuracy": accuracy,
                "loss": loss,
            }
            helped.write_text(json.dumps(rows))
            pd.DataFrame(rows.values()).to_csv(folder / "help.csv", index=False)
            print(rows[f"{variant} {seed}"], flush=True)
            if variant == "meta" and not (folder / f"gates-{seed}.csv").exists():
                _look(network, batches, seed, folder)


def _look(network: signals.Bearing, batches: list[Any], seed: int, folder: Path) -> None:
    """Write β's spread and use of one network."""
    run = acon.capture(network, batches, folder / f"run-{seed}", progress=False)
    split = run.variance_split().drop(columns="text")
    split = split.merge(run.linearity(columns="all")[["layer", "L", "L_low", "L_high", "dead"]])
    split.insert(0, "seed", seed)
    split.to_csv(folder / f"beta-{seed}.csv", index=False)
    training, labels = signals.signals(1_200, 0)
    again = [(training[i : i + 100], labels[i : i + 100]) for i in range(0, 1_200, 100)]
    gates = acon.gate_use(
        network, batches, ("mean", "level", "resample"), recalibrate=again, batch_size=100
    )
    gates.insert(0, "network", f"bearing, seed {seed}")
    gates.to_csv(folder / f"gates-{seed}.csv", index=False)


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of all seeds: beta, gates, help."""
    made: dict[str, pd.DataFrame] = {"help": pd.read_csv(folder / "help.csv")}
    for name in ("beta", "gates"):
        files = sorted(folder.glob(f"{name}-*.csv"))
        made[name] = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    return made
