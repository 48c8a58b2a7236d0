"""Every measure on one network of others, with what an independent program makes of it."""

import contextlib
import io
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from published import independent
from published.case import Case, run
from torch import nn

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_analysis.plotdata.depth import linearity_by_depth
from acon_analysis.statistics.census import census_text

LAYERS = ["layer", "call", "kind", "channels", "L", "L_low", "L_high", "dead", "straight"]
FORMS = ("line", "two-piece", "relu")


def measured(case: Case, folder: Path) -> dict[str, Any]:
    """Measure what is missing of one network; return its facts. Tables are files of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = folder / "facts.json"
    known: dict[str, Any] = json.loads(facts.read_text()) if facts.exists() else {}
    for step in (_job, _linear, _blocks, _replaced, _gates):
        name = step.__name__.strip("_")
        if name in known:
            continue
        start = time.perf_counter()
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("always")
            found = step(case, folder)
        said = {
            str(w.message).splitlines()[0]
            for w in caught
            if "Acon" in str(w.category.__mro__) or "Block" in w.category.__name__
        }
        known[name] = {
            **found,
            "warnings": sorted(said),
            "seconds": round(time.perf_counter() - start),
        }
        facts.write_text(json.dumps(known, indent=1, default=float))
        print(f"{case.name}: {name} {known[name]}", flush=True)
    return known


def _save(table: pd.DataFrame, case: Case, path: Path) -> None:
    if "network" not in table:
        table = table.copy()
        table.insert(0, "network", case.name)
    table.assign(network=case.name).to_csv(path, index=False, float_format="%.6g")


def _job(case: Case, _folder: Path) -> dict[str, Any]:
    """Return what it does, and how well."""
    return {
        "name": case.name,
        "job": case.job,
        "package": case.package,
        "parameters": sum(p.numel() for p in case.model.parameters()),
        "quality": case.quality(case.model),
    }


def _linear(case: Case, folder: Path) -> dict[str, Any]:
    """Measure L by layer, dead and straight channels, the census."""
    found = acon.capture(case.model, case.batches, folder / "run", progress=False, **case.options)
    table = found.linearity(by="layer", columns="all").merge(
        found.layers[["layer", "call", "kind"]]
    )
    table["straight"] = table["linear"] - table["dead"]
    _save(table[LAYERS], case, folder / "layers.csv")
    _save(linearity_by_depth([found]), case, folder / "depth.csv")
    census = acon.nonlinearities(
        case.model, case.batches[0], forward=lambda _, batch: case.call(batch)
    )
    return {
        "samples": len(found.samples),
        "census": census_text(found.nonlinearities),
        **{name: int(table[name].sum()) for name in ("channels", "dead", "linear", "one_signed")},
        **_compared(case, table, found.linearity(by="channel", columns="all")),
        "operators": int(census["calls"].sum()),
        "operators_difference": int(census["calls"].sum()) - independent.operators(case),
    }


def _compared(case: Case, table: pd.DataFrame, channels: pd.DataFrame) -> dict[str, Any]:
    """Return the largest differences of L from those of the independent program."""
    again = {(row["layer"], row["call"]): row for row in independent.linearity(case)}
    whole, single, dead = [], [], 0
    for row in table.to_dict("records"):
        oracle = again[row["layer"], row["call"]]
        own = channels[(channels["layer"] == row["layer"]) & (channels["call"] == row["call"])]
        flat = own["dead"].to_numpy()
        gaps = np.abs(own["L"].to_numpy() - oracle["channels"])[~flat & ~oracle["dead"]]
        whole.append(abs(row["L"] - oracle["L"]))
        single.append(gaps.max(initial=0))
        dead += int((flat != oracle["dead"]).sum())
    return {
        "L_difference": max(whole),
        "L_difference_channels": max(single),
        "dead_differences": dead,
    }


def _blocks(case: Case, folder: Path) -> dict[str, Any]:
    """Measure how linear blocks are, and the network."""
    batches = case.block_batches or case.batches
    options = {
        k: v for k, v in case.options.items() if k == "forward" and case.block_batches is None
    }
    table = acon.block_linearity(case.model, batches, case.blocks, **options)
    table["inside"] = [
        json.dumps([round(float(v), 4) for v in values]) for values in table["inside"]
    ]
    _save(table, case, folder / "blocks.csv")
    own = table[table["block"] == case.checked_block].iloc[0]
    value, error = independent.coefficient(case)
    return {
        "checked": case.checked_block,
        "nlc": own["nlc"],
        "nlc_again": value,
        "errors_apart": abs(own["nlc"] - value) / np.hypot(own["nlc_error"], error),
    }


def _replaced(case: Case, folder: Path) -> dict[str, Any]:
    """Measure what is lost when activations become lines, two pieces or ReLUs."""
    layers = [
        layer
        for layer in independent.bare(case)
        if layer.kind == "activation" and layer.name not in case.kept
    ]
    if not layers:
        return {"left out": "it has no activation but the last one"}
    names, axes = [x.name for x in layers], {x.name: x.axis for x in layers}
    before = next(iter(case.quality(case.model).values()))
    outputs = _outputs(case, case.model)
    rows, differences = [], {}
    for form in FORMS:
        copy = acon.replace(case.model, case.fit, form, names, **case.options)
        made, quality = _outputs(case, copy), next(iter(case.quality(copy).values()))
        rows.append(
            {
                "with": form,
                "activations": len(names),
                "before": before,
                "after": quality,
                "output_change": float((made - outputs).norm() / outputs.norm()),
            }
        )
        if form != "two-piece":
            again, own = independent.replaced(case, form, axes)
            gap = float((torch.cat([o.flatten() for o in own]) - made).norm() / made.norm())
            differences[form] = {"output": gap, "quality": abs(again - quality)}
    _save(pd.DataFrame(rows), case, folder / "replaced.csv")
    return {"differences": differences}


def _outputs(case: Case, model: nn.Module) -> torch.Tensor:
    """Return all values that a network returns, (n)."""
    with torch.no_grad():
        found = [run(model, batch, case.options.get("forward")) for batch in case.batches]
    return torch.cat([independent.first(output).flatten() for output in found])


def _gates(case: Case, folder: Path) -> dict[str, Any]:
    """Measure whether gates are used."""
    try:
        options = {k: v for k, v in case.options.items() if k in ("forward", "output")}
        table = acon.gate_use(case.model, case.batches, ("mean", "resample"), **options)
    except AconError as error:
        return {"none": str(error)}
    _save(table, case, folder / "gates.csv")
    return {"quality with gates at their means": independent.without_gates(case)}
