"""What tables of a run say, in sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from acon_analysis.screen import counted, listed, three_digits
from acon_analysis.statistics.causes import FAR

#: Clauses of `left_out_text`, and layers or samples that each names.
MOST_PARTS, MOST_NAMED = 3, 5

#: Why a sample is left out of a layer.
NOT_FINITE, ONLY_PADDING = "NaN or infinity", "nothing but padding"

#: Functions in which the pieces of an activation meet; also the classes of gated products.
_JOINS = ("mul", "div")

#: What L is, for where it is named first.
WHAT_L_IS = (
    "L is the share of the variance of a layer's output that one straight line per channel "
    "explains: 1 is a straight line, 0.733 a ReLU on Gaussian inputs (mean 0, standard deviation 1)"
)


#: How each layer and call of a run is called wherever people read it.
Names = Mapping[tuple[str, int], str]


def layer_names(layers: pd.DataFrame) -> dict[tuple[str, int], str]:
    """Return what sentences, tables on screens, figures and pages call each layer of a run.

    ``layers`` has ``layer`` and perhaps ``call`` and ``class_name`` or ``activation``. By (layer,
    call): the module path, with its class where it ends in a number, and with the call, from 0 as
    in every table, where there are several: ``"features.3 (Tanh, call 1)"``. An activation in
    pieces has the name of what it computes: ``"blocks.0:GELU#0"`` where tables have
    ``"blocks.0:mul#3"``.
    """
    calls = layers["call"] if "call" in layers else pd.Series(0, index=layers.index)
    known = next((name for name in ("class_name", "activation") if name in layers), None)
    classes = pd.Series("", index=layers.index) if known is None else layers[known]
    found = dict(zip(zip(layers["layer"], calls, strict=True), classes, strict=True))
    several = Counter(layer for layer, _ in found)
    paths = _by_what_they_compute({layer: own for (layer, _), own in found.items()})
    names = {}
    for (layer, call), own in found.items():
        kind = own if layer.rpartition(".")[2].isdigit() or not layer else ""
        turn = f"call {call}" if several[layer] > 1 else ""
        more = ", ".join(filter(None, [kind, turn]))
        path = paths[layer]
        names[layer, int(call)] = f"{path} ({more})".lstrip() if more else path
    return names


def _by_what_they_compute(classes: Mapping[str, str]) -> dict[str, str]:
    """Return layers by their paths; those in pieces with what they compute instead of a product."""
    counts: Counter[tuple[str, str]] = Counter()
    paths = {}
    for layer, own in classes.items():
        owner, _, call = str(layer).rpartition(":")
        paths[layer] = str(layer)
        if call.partition("#")[0] in _JOINS and own and own not in _JOINS:
            paths[layer] = f"{owner}:{own}#{counts[owner, own]}"
            counts[owner, own] += 1
    return paths


def block_names(blocks: pd.DataFrame) -> list[str]:
    """Return what people read for blocks: ``block``, with its class where that is but a number."""
    if "class_name" not in blocks:
        return [str(block) for block in blocks["block"]]
    numbers = blocks["block"].str.partition(" ")[0].str.replace(".", "").str.isdigit()
    named = blocks["block"] + " (" + blocks["class_name"] + ")"
    return [str(name) for name in blocks["block"].where(~numbers, named)]


def row_names(table: pd.DataFrame, names: Names | None = None) -> list[str]:
    """Return the name of each row's layer, by default one of `layer_names` of the table itself."""
    known = layer_names(table) if names is None else names
    calls = table["call"] if "call" in table else [0] * len(table)
    return [known[str(layer), int(call)] for layer, call in zip(table["layer"], calls, strict=True)]


def named(table: pd.DataFrame, names: Names | None = None) -> pd.DataFrame:
    """Return a table for people: `row_names` in place of layer and call."""
    return table.assign(layer=row_names(table, names)).drop(columns="call", errors="ignore")


def sentence(text: str) -> str:
    """Return words as a sentence; "β" stays small, a large one would be read as B."""
    first = text[:1].upper() if text[:1].isascii() else text[:1]
    return f"{first}{text[1:]}."


def alive(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `layer_overview` whose L is known and whose output varies at all."""
    return layers[layers["L"].notna() & (layers["dead"] < layers["channels"])]


def is_product(layers: pd.DataFrame) -> "pd.Series[bool]":
    """Return which layers are gated products."""
    return layers.reindex(columns=["kind"], fill_value="")["kind"] == "product"


def is_gate(layers: pd.DataFrame) -> "pd.Series[bool]":
    """Return which layers make the gates, between 0 and 1, of squeeze-and-excitation or a GLU."""
    table = layers.reindex(columns=["class_name", "gate_of"], fill_value="")
    sigmoid = table["class_name"].str.casefold().isin(["sigmoid", "hardsigmoid"])
    return sigmoid & (table["gate_of"] != "")


def main_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Return layers without gates and products; all where there are no others."""
    own = layers[~is_product(layers) & ~is_gate(layers)]
    return own if len(own) else layers


def left_out_text(left_out: pd.DataFrame, total: int, names: Names) -> str:
    """Return which samples the statistics of which layers leave out, in one sentence or ""."""
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    each: dict[tuple[str, int, str], list[int]] = {}
    for sample, layer, call, why in left_out.itertuples(index=False):
        each.setdefault((layer, call, why), []).append(sample)
    for (layer, call, why), samples in each.items():
        groups.setdefault((why, tuple(samples)), []).append(names[layer, call])
    parts = [
        f"{len(samples)} of {counted(total, 'sample')} left out of {_listed('layer', own)}: {why} "
        f"in {_listed('sample', samples)}"
        for (why, samples), own in list(groups.items())[:MOST_PARTS]
    ]
    if len(groups) > MOST_PARTS:
        rest = sum(len(own) for own in list(groups.values())[MOST_PARTS:])
        parts.append(f"others of {counted(rest, 'more layer')}")
    return "; ".join(parts)


def gates_text(layers: pd.DataFrame, names: Names) -> str:
    """Return which products are far (`causes.FAR`) from what their gates suggest, or ""."""
    far = layers[(layers["L"] - layers["L_gate"]).abs() > FAR]
    items = [
        f"{names[row['layer'], row['call']]} (L of the product {three_digits(row['L'])}, of its "
        f"gate {three_digits(row['L_gate'])})"
        for row in far.to_dict("records")
    ]
    return listed(items, MOST_NAMED)


def _listed(word: str, items: Sequence[object]) -> str:
    """Return the first few items of a list after a noun."""
    shown = ", ".join(str(item) for item in items[:MOST_NAMED])
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return f"{word}{'s' * (len(items) > 1)} {shown}{more}"
