"""What tables of a run say, in sentences."""

from collections.abc import Sequence

import pandas as pd

from acon_analysis.screen import three_digits
from acon_analysis.statistics.causes import FAR

#: Clauses of `left_out_text`, and layers or samples that each names.
MOST_PARTS, MOST_NAMED = 3, 5

#: Why a sample is left out of a layer.
NOT_FINITE, ONLY_PADDING = "NaN or infinity", "nothing but padding"

#: What L is, for where it is named first.
WHAT_L_IS = (
    "L is the share of the variance of a layer's output that one straight line per channel "
    "explains: 1 is a straight line, 0.733 a ReLU on Gaussian inputs (mean 0)"
)


def layer_name(layer: object, call: object) -> str:
    """Return a layer as sentences name it: with its call, counted from 0 as in every table."""
    return f"{layer} (call {call})" if call else str(layer)


def sentence(text: str) -> str:
    """Return words as a sentence; "β" stays small, a large one would be read as B."""
    first = text[:1].upper() if text[:1].isascii() else text[:1]
    return f"{first}{text[1:]}."


def alive(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `layer_overview` whose L is known and whose output varies at all."""
    return layers[layers["L"].notna() & (layers["dead"] < layers["channels"])]


def left_out_text(left_out: pd.DataFrame, total: int) -> str:
    """Return which samples the statistics of which layers leave out, in one sentence or ""."""
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    each: dict[tuple[str, int, str], list[int]] = {}
    for sample, layer, call, why in left_out.itertuples(index=False):
        each.setdefault((layer, call, why), []).append(sample)
    for (layer, call, why), samples in each.items():
        groups.setdefault((why, tuple(samples)), []).append(layer_name(layer, call))
    parts = [
        f"{len(samples)} of {total} samples left out of {_listed('layer', names)}: {why} in "
        f"{_listed('sample', samples)}"
        for (why, samples), names in list(groups.items())[:MOST_PARTS]
    ]
    if len(groups) > MOST_PARTS:
        rest = sum(len(names) for names in list(groups.values())[MOST_PARTS:])
        parts.append(f"others of {rest} more layer{'s' * (rest > 1)}")
    return "; ".join(parts)


def gates_text(layers: pd.DataFrame) -> str:
    """Return which products are far (`causes.FAR`) from what their gates suggest, or ""."""
    far = layers[(layers["L"] - layers["L_gate"]).abs() > FAR]
    items = [
        f"{layer_name(row['layer'], row['call'])} (L = {three_digits(row['L'])}, its gate "
        f"{three_digits(row['L_gate'])})"
        for row in far.to_dict("records")
    ]
    return f"the gate alone misleads: {_listed('layer', items)}" if items else ""


def _listed(word: str, items: Sequence[object]) -> str:
    """Return the first few items of a list after a noun."""
    shown = ", ".join(str(item) for item in items[:MOST_NAMED])
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return f"{word}{'s' * (len(items) > 1)} {shown}{more}"
