"""What a page says about a run: frames turned into texts, numbers and rows, nothing computed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from acon_analysis.plotdata.drawn import drawn_layers, drawn_text
from acon_analysis.plotdata.overview import headline_frame
from acon_analysis.runs.run import Run
from acon_analysis.screen import counted
from acon_analysis.statistics.census import census_table, census_text
from acon_analysis.statistics.findings import findings
from acon_analysis.statistics.sentences import left_out_text, sentence
from acon_figures.names import last_part, visible
from acon_figures.report.layers import Page, layer_entries
from acon_figures.report.numbers import count, number, share
from acon_figures.report.units import unit_facts
from acon_figures.report.words import next_steps, signs, yardstick

#: Unreadable images that a page lists.
MOST_ERRORS = 200


class Tile(NamedTuple):
    """One of the headline numbers."""

    value: str
    label: str
    note: str = ""


def run_page(
    run: Run, layers: pd.DataFrame, channels: pd.DataFrame, splits: pd.DataFrame | None, prefix: str
) -> Page:
    """Return what the template shows of a run but for its figures and their tables."""
    kept = pd.MultiIndex.from_frame(drawn_layers(run)[["layer", "call"]])
    shown = layers[pd.MultiIndex.from_frame(layers[["layer", "call"]]).isin(kept)]
    rows, data = layer_entries(shown, channels, run.histograms(), unit_facts(run), prefix)
    operators = run.nonlinearities if run.has_census else None
    return {
        "prefix": prefix,
        "title": visible(f"{run.network} on {_data(run)}"),
        "notices": notices(run),
        "cut": drawn_text(run).replace("are drawn", "are listed"),
        "findings": [
            [visible(part).replace(" %", "\u00a0%") for part in one]
            for one in findings(layers, splits, operators, run.layer_names, run.kinds)
        ],
        "tiles": tiles(layers, run),
        "facts": facts(run),
        "layers": rows,
        "kinds": sorted({row["kind"] for row in rows}),
        "shows": shows(layers),
        "census": census(run),
        "errors": errors(run),
        "yardstick": yardstick(layers),
        "signs": signs(layers),
        "intervals": bool(layers["L_low"].notna().any()),
        "next": next_steps(run, layers),
        "channels": data,
    }


def notices(run: Run) -> list[tuple[str, str]]:
    """Return what a reader must know first: (kind, sentence), kind "warning" or "note"."""
    found = []
    if not run.complete:
        total = run.manifest["units"]
        units = counted(len(run.units), "unit")
        units = f"{len(run.units)} of {counted(total, 'unit')}" if total else units
        found.append(
            ("warning", f"This run is not complete: {units} done; all numbers are of those.")
        )
    if len(run.errors):
        bad = f"{counted(len(run.errors), run.sample_word)} could not be read; see the end."
        found.append(("warning", bad))
    if run.weights == "random":
        found.append(("warning", "The weights are random: this network was never trained."))
    if lost := left_out_text(run.left_out, len(run.sample_ids), run.layer_names):
        rest = "All numbers are of the other samples."
        found.append(("warning", f"{visible(sentence(lost))} {rest}"))
    known = run.linearity().dropna(subset=["L"]) if run.has_moments else pd.DataFrame()
    if len(known) and known["L_low"].isna().all():
        few = "Too few samples for intervals: what other samples would give is not known."
        found.append(("warning", few))
    if not run.has_moments:
        found.append(
            (
                "note",
                "The run was captured without moments, so there is no linearity in this report "
                "(acon capture --moments).",
            )
        )
    return found


def facts(run: Run) -> list[tuple[str, str]]:
    """Return how the run was captured, as terms and values."""
    manifest, identity = run.manifest, run.identity
    origin = manifest.get("origin", {})
    listed = manifest["samples"]
    weights, word = run.weights, run.sample_word.capitalize()
    found: list[tuple[str, Any]] = [
        ("Model", last_part(run.model)),
        ("Weights", _weights(weights, origin)),
        ("SHA-256 of the weights file", origin.get("weights_sha256")),
        ("SHA-256 of the weights in use", identity.get("weights_sha256")),
        ("Data", _data(run)),
        (f"{word}s", f"{len(run.sample_ids):,}" + (f" of {listed:,}" if listed else "")),
        (f"{word}s that could not be read", f"{len(run.errors):,}"),
        ("Preprocessing", _listed(identity.get("preprocess"))),
        ("Mask of padded positions", _listed(identity.get("mask"))),
        ("Kinds of layers", ", ".join(identity.get("kinds") or ())),
        ("Sums for L", _sums(identity.get("moments")) if run.has_moments else "none"),
        ("Computed with", _listed(_computed(manifest.get("compute"), identity.get("data")))),
        ("Numbers", identity.get("dtype")),
        ("Versions", _listed(manifest.get("versions"))),
        ("Run", f"{run.path.absolute().name}, id {manifest.get('run_id', '')}"),
    ]
    return [(term, visible(value)) for term, value in found if value not in (None, "")]


def _weights(weights: str, origin: Mapping[str, Any]) -> str:
    """Return where the weights come from; those of a user's own network are known by their hash."""
    if weights == "not known":
        return "as the network came (no file is known)"
    return f"{weights} (seed {origin['seed']})" if weights == "random" else weights


def _sums(moments: Any) -> str:
    """Return how the sums were made."""
    if not isinstance(moments, Mapping) or not {"blocks", "kernel"} <= moments.keys():
        return _listed(moments)
    return f"{moments['blocks']} blocks of samples (for intervals), {moments['kernel']} kernel"


def _computed(compute: Any, data: Any) -> Any:
    """Return with what a run was computed; a loader's batches are its own."""
    if isinstance(compute, Mapping) and str(data).startswith("stream of"):
        return {key: value for key, value in compute.items() if key != "batch_size"}
    return compute


def _data(run: Run) -> str:
    """Return the data's name, of objects their class and length."""
    name = run.data_name or "given data"
    given = run.sample_word == "image" or ":" in name
    return name if given else f"{name}, {counted(len(run.sample_ids), run.sample_word)}"


def _listed(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "" if value is None else last_part(str(value))
    return ", ".join(f"{key} {_listed(part)}" for key, part in value.items())


def _tile(number: int, word: str, note: str) -> Tile:
    """Return how many there are of something."""
    value, _, label = counted(number, word).partition(" ")
    return Tile(value, label, note)


def tiles(layers: pd.DataFrame, run: Run) -> list[Tile]:
    """Return the headline numbers."""
    rows = {str(row["quantity"]): row for row in headline_frame(layers).to_dict("records")}
    unread = f"{len(run.errors):,} could not be read" if len(run.errors) else "all could be read"
    layer_count, channel_count = (int(rows[name]["value"]) for name in ("layers", "channels"))
    found = [
        _tile(len(run.sample_ids), run.sample_word, unread),
        _tile(layer_count, "layer", counted(channel_count, "channel")),
    ]
    for end, word in (("least", "least linear layer"), ("greatest", "most linear layer")):
        if f"L_{end}" in rows:
            row = rows[f"L_{end}"]
            found.append(Tile(f"L {share(row['value'])}", word, visible(row["layer"])))
    if "linear" in rows:
        linear, dead = rows["linear"], rows["dead"]
        of, note = counted(int(linear["total"]), "channel"), count(dead["value"])
        found.append(Tile(count(linear["value"]), f"of {of} linear", f"L ≥ 0.99; {note} dead"))
    if "beta_least" in rows:
        low, high = (number(rows[f"beta_{end}"]["value"], 2) for end in ("least", "greatest"))
        found.append(Tile(f"{low} to {high}", "mean β of the layers"))
    if "more" in rows:
        value = f"{count(rows['more']['value'])} of {count(rows['more']['total'])}"
        word = "layer" if rows["more"]["total"] == 1 else "layers"
        label = f"{word} whose β varies more than with random weights"
        found.append(Tile(value, label, "at the 5 % level each"))
    return found


def shows(layers: pd.DataFrame) -> dict[str, bool]:
    """Say which groups of columns of the table of layers hold anything."""
    groups = {
        "L": "L", "L_gate": "L_gate", "G": "G", "kappa": "kappa", "beta": "beta_mean",
        "ratio": "ratio", "null": "null_p05",
    }  # fmt: skip
    return {name: bool(layers[column].notna().any()) for name, column in groups.items()}


def census(run: Run) -> Page | None:
    """Return what the network computes that is not linear in its input; None in older runs."""
    if not run.has_census:
        return None
    rows = [
        {
            "operator": visible(row["operator"]),
            "reason": visible(row["reason"]),
            "calls": count(row["calls"]),
            "share": share(row["share"]),
            "measured": "yes" if row["measured"] else row["class"].replace("nonlinear", "no"),
            "modules": visible(row["modules"]),
        }
        for row in census_table(run.nonlinearities).to_dict("records")
    ]
    text = census_text(run.nonlinearities, run.kinds)
    return {"text": sentence(visible(text)), "rows": rows}


def errors(run: Run) -> Page:
    """Return the samples that could not be read."""
    shown = run.errors.head(MOST_ERRORS)
    pairs = zip(shown["path"], shown["reason"], strict=True)
    return {
        "rows": [(visible(path), visible(reason)) for path, reason in pairs],
        "total": len(run.errors),
        "word": run.sample_word.capitalize(),
    }
