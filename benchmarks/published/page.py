"""The page and the tables of what was measured on networks of others."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import machine
from common import table as table_text
from published import bearing, signals
from published.packages import FOLDER, fetched, licence, sha256

import acon_analysis as acon
import acon_figures
from acon_analysis.plotdata.depth import linearity_by_depth

HERE = Path(__file__).parents[1]
PAGE, PICTURES = HERE / "RESULTS_real.md", HERE / "pictures"
TABLES = Path(acon.__file__).parent / "studies" / "results"
RESULTS = FOLDER / "results"

#: Tables of the package: name -> (file of each network, what it holds).
KEPT = {
    "published_layers": (
        "layers.csv",
        "a row a layer: L with its interval, dead and straight channels",
    ),
    "published_depth": ("depth.csv", "the same for `acon_figures.linearity_by_depth`"),
    "published_blocks": ("blocks.csv", "a row a block, columns of `acon_analysis.block_linearity`"),
    "published_replaced": (
        "replaced.csv",
        "a row a network and form: the network's own measure before and after",
    ),
    "published_gates": (
        "gates.csv",
        "a row a layer and intervention, columns of `acon_analysis.gate_use`",
    ),
}


def write(names: Sequence[str], left_out: dict[str, str], remarks: list[str]) -> None:
    """Write tables, pictures and the page."""
    facts = {
        n: json.loads((RESULTS / n / "facts.json").read_text())
        for n in names
        if (RESULTS / n / "facts.json").exists()
    }
    tables = {name: _joined(list(facts), file) for name, (file, _) in KEPT.items()}
    tables["published_depth"] = _depth(facts)
    signal = bearing.tables(RESULTS / "bearing")
    tables["published_gates"] = pd.concat([tables["published_gates"], signal["gates"]])
    tables |= {
        "published_networks": _networks(facts, tables["published_layers"]),
        "published_beta": signal["beta"],
        "published_help": signal["help"],
    }
    said = {name: what for name, (_, what) in KEPT.items()}
    said |= {
        "published_networks": "a row a network: what it does, how well, and what the measures say",
        "published_beta": "a row a layer and seed of the signal network: β's spread, and L",
        "published_help": "a row a variant and seed of the signal network",
    }
    for name, table in tables.items():
        table.to_csv(TABLES / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")
        text = (
            f"{said[name][0].upper()}{said[name][1:]}. Made by\n\n    python benchmarks/real.py\n"
        )
        text = f"# Networks trained by others\n\n{text}"
        (TABLES / f"{name}.md").write_text(text, "utf-8")
    _draw(tables)
    PAGE.write_text(_page(facts, tables, left_out, remarks), "utf-8")


def _joined(names: list[str], file: str) -> pd.DataFrame:
    """Return the tables of all networks that have one."""
    paths = [RESULTS / name / file for name in names]
    return pd.concat([pd.read_csv(path) for path in paths if path.exists()], ignore_index=True)


def _depth(facts: dict[str, Any]) -> pd.DataFrame:
    """Return L by depth of all networks, from their runs."""
    parts = []
    for name, found in facts.items():
        network = found["job"]["name"]
        table = linearity_by_depth([acon.open_run(RESULTS / name / "run")])
        parts.append(table.assign(network=network, data=_data(network)))
    return pd.concat(parts, ignore_index=True)


def _data(network: str) -> str:
    """Return what a network was given."""
    known = {"MTCNN": "faces", "all-MiniLM-L6-v2": "sentences (MiniLM)"}
    return known.get(network.split()[0], "tones and speech")


def _networks(facts: dict[str, Any], layers: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for name, found in facts.items():
        job, linear = found["job"], found["linear"]
        own = layers[layers["network"] == job["name"]]
        measure, value = next(iter(job["quality"].items()))
        rows.append(
            {
                "name": name,
                "network": job["name"],
                "package": job["package"],
                "parameters": job["parameters"],
                "samples": linear["samples"],
                "job": job["job"],
                "measure": measure,
                "value": value,
                "layers": len(own),
                "channels": own["channels"].sum(),
                "dead": own["dead"].sum(),
                "straight": own["straight"].sum(),
                "L_min": own["L"].min(),
                "L_max": own["L"].max(),
                "census": linear["census"],
            }
        )
    return pd.DataFrame(rows)


def _draw(tables: dict[str, pd.DataFrame]) -> None:
    """Draw the pictures, small."""
    PICTURES.mkdir(exist_ok=True)
    blocks = tables["published_blocks"].assign(
        inside=lambda t: t["inside"].map(json.loads), data=lambda t: t["network"].map(_data)
    )
    gates = tables["published_gates"]
    depth = tables["published_depth"]
    made = {
        "linearity": acon_figures.linearity_by_depth(depth[depth["measure"] == "L"], by="depth"),
        "blocks_minilm": acon_figures.network_strip(
            blocks[blocks["network"] == "all-MiniLM-L6-v2"]
        ),
        "blocks_fcpe": acon_figures.network_strip(blocks[blocks["network"] == "FCPE"]),
        "gates_bearing": acon_figures.gate_changes(gates[gates["network"].str.contains("bearing")]),
    }
    for name, figure in made.items():
        figure.savefig(PICTURES / f"real_{name}.png", dpi=110)


def _page(
    facts: dict[str, Any],
    tables: dict[str, pd.DataFrame],
    left_out: dict[str, str],
    remarks: list[str],
) -> str:
    parts = [
        HEAD,
        "## Packages",
        _packages(left_out),
        "## What they do",
        _jobs(tables["published_networks"]),
        *remarks,
        "## Linearity of the activations",
        "![L by depth](pictures/real_linearity.png)",
        _layers(tables["published_layers"]),
        "## What is measured, and what is not",
        _census(tables["published_networks"]),
        "## Blocks",
        "![Blocks of MiniLM](pictures/real_blocks_minilm.png)",
        "![Blocks of FCPE](pictures/real_blocks_fcpe.png)",
        _blocks(tables["published_blocks"]),
        "## Activations replaced",
        _replaced(tables["published_replaced"]),
        "## Gates",
        _gates(tables["published_gates"]),
        "## A Meta-ACON network for signals",
        SIGNALS,
        _help(tables["published_help"]),
        _beta(tables["published_beta"]),
        "![Gates of the signal network](pictures/real_gates_bearing.png)",
        "## The numbers once more",
        CHECKED,
        _checks(facts),
        f"Measured on: {machine()}.",
    ]
    return "\n\n".join(parts) + "\n"


HEAD = """# Networks trained by others

Every measure on networks whose weights come in published Python packages, on photographs, tones,
synthesised speech and sentences. Nothing of the packages is handed on. Remake with `make real`; the
guide, "Networks trained by others", says what it means."""
SIGNALS = f"""Seven convolutions with Meta-ACON, a GRU and a classifier, written from the
description of public networks for bearing faults; trained on {signals.TRAINING:,} made signals of
{len(signals.CLASSES)} classes, tested on {signals.TESTING:,}, three seeds: accuracy in %. Variants
of a seed begin with the same weights."""
CHECKED = """Largest differences from programs of their own: L of layers and of channels by hooks
and sums in NumPy's float64 (sentences one by one, without padding); dead channels by the same;
operators counted by a dispatch mode; the nonlinearity coefficient by difference quotients in
float64 on 32 other triples of samples (in standard errors of both); outputs after replacement by
lines and ReLUs through hooks of their own."""


def _packages(left_out: dict[str, str]) -> str:
    rows = [
        [
            p.name,
            p.version,
            licence(wheel) or p.licence or "none stated",
            f"{wheel.stat().st_size / 1e6:.1f}",
            p.holds,
            f"`{sha256(wheel)[:16]}`",
        ]
        for p, wheel in fetched()
    ]
    text = table_text(["package", "version", "licence", "MB", "holds", "SHA-256 begins"], rows)
    gone = [f"Left out: {name}: {reason}" for name, reason in left_out.items()]
    return "\n\n".join([text, *gone])


def _jobs(table: pd.DataFrame) -> str:
    rows = [
        [r.network, f"{r.parameters / 1e6:.3g} M", r.job, f"{r.measure}: {r.value:.3g}"]
        for r in _rows(table)
    ]
    return table_text(["network", "parameters", "what it does here", "how well"], rows)


def _layers(table: pd.DataFrame) -> str:
    rows = [
        [
            r.network,
            r.layer,
            r.kind,
            r.channels,
            f"{r.L:.3f} ({r.L_low:.3f} to {r.L_high:.3f})",
            r.dead,
            r.straight,
        ]
        for r in _rows(table)
    ]
    return table_text(["network", "layer", "kind", "channels", "L", "dead", "straight"], rows)


def _census(table: pd.DataFrame) -> str:
    return table_text(
        ["network", "nonlinear calls of one batch"], [[r.network, r.census] for r in _rows(table)]
    )


def _blocks(table: pd.DataFrame) -> str:
    rows = [
        [
            r.network,
            r.block,
            f"{r.nlc:.2f} ± {r.nlc_error:.2f}",
            _number(r.r2),
            _number(r.r2_without_residual),
            r.vectors,
            _number(r.elementwise_L),
            _number(r.nlc_change, "+.2f"),
        ]
        for r in _rows(table)
    ]
    head = [
        "network",
        "block",
        "NLC",
        "R²",
        "without shortcut",
        "vectors",
        "mean L inside",
        "NLC without bends",
    ]
    return table_text(head, rows)


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a table."""
    yield from table.itertuples()


def _number(value: float, form: str = ".2f") -> str:
    return "" if np.isnan(value) else f"{value:{form}}"


def _replaced(table: pd.DataFrame) -> str:
    rows = [
        [
            network,
            f"{own['before'].iloc[0]:.3f}",
            *(f"{r.after:.3f} ({r.output_change:.2f})" for r in _rows(own)),
        ]
        for network, own in table.groupby("network", sort=False)
    ]
    forms = list(table["with"].unique())
    return "The network's own measure; in brackets the change of its outputs.\n\n" + table_text(
        ["network", "as it is", *forms], rows
    )


def _gates(table: pd.DataFrame) -> str:
    rows = [
        [
            r.network,
            r.layer,
            r.intervention,
            "again" if r.recalibrated else "as they are",
            f"{r.loss_change:+.3f} ({r.low:+.3f} to {r.high:+.3f})",
            _number(100 * r.accuracy_change, "+.1f"),
            r.verdict,
        ]
        for r in _rows(table)
        if r.layer == "all" or "bearing" not in r.network
    ]
    return table_text(
        [
            "network",
            "gates of",
            "intervention",
            "BatchNorms",
            "change of the loss",
            "points",
            "verdict",
        ],
        rows,
    )


def _help(table: pd.DataFrame) -> str:
    rows = [
        [
            signals.VARIANTS[str(variant)],
            *(f"{100 * value:.1f}" for value in own.sort_values("seed")["accuracy"]),
            f"{100 * own['accuracy'].mean():.1f}",
        ]
        for variant, own in table.groupby("variant", sort=False)
    ]
    return table_text(["β is", *(f"seed {seed}" for seed in bearing.SEEDS), "mean"], rows)


def _beta(table: pd.DataFrame) -> str:
    rows = [
        [
            r.seed,
            r.layer,
            f"{r.L:.3f}",
            f"{r.within_std:.3f}",
            f"{r.ratio:.2f}",
            f"{r.null_p05:.2f} to {r.null_p95:.2f}",
            f"{r.p_value:.2f}",
            r.answer,
        ]
        for r in _rows(table)
    ]
    head = [
        "seed",
        "layer",
        "L",
        "sd of β",
        "samples' means vary",
        "redrawn networks",
        "p",
        "answer",
    ]
    return table_text(head, rows)


def _checks(facts: dict[str, Any]) -> str:
    rows = []
    for found in facts.values():
        linear, blocks, replaced = (
            found["linear"],
            found["blocks"],
            found.get("replaced", {}).get("differences", {}),
        )
        outputs = [value["output"] for value in replaced.values()]
        rows.append(
            [
                found["job"]["name"],
                f"{linear['L_difference']:.0e}",
                f"{linear['L_difference_channels']:.0e}",
                linear["dead_differences"],
                linear["operators_difference"],
                f"{blocks['checked']}: {blocks['nlc']:.2f}, {blocks['nlc_again']:.2f} "
                f"({blocks['errors_apart']:.1f})",
                f"{max(outputs):.0e}" if outputs else "",
            ]
        )
    return table_text(
        ["network", "L", "L of channels", "dead", "operators", "NLC (errors apart)", "replaced"],
        rows,
    )
