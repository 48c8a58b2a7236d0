"""Two runs compared on a page: a sentence, what differs between them, and a row a layer."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from acon_analysis.errors import AconError
from acon_analysis.runs.compare import clear_change, compare_runs, comparison_text, unlike
from acon_analysis.runs.run import Run
from acon_analysis.screen import signed
from acon_analysis.statistics.sentences import sentence
from acon_figures.names import visible
from acon_figures.report.numbers import exact, number, share

NOTHING_SHARED = "the two runs have no layer of one name, so that no layers can be compared"


def comparison(first: Run, second: Run, ids: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """Return what a page says of two runs together, the layers' ids in it given by path and call.

    It is a ``text``, sentences on what is ``unlike``, a row a layer, which of β and G it ``shows``,
    and the ``table`` of `compare_runs`: None where nothing can be compared, as the text then says.
    """
    keys = [set(run.layers[["layer", "call"]].itertuples(index=False)) for run in (first, second)]
    try:
        if not keys[0] & keys[1]:
            raise AconError(NOTHING_SHARED)
        found = compare_runs(first, second)
    except AconError as error:
        return {
            "text": sentence(visible(error)),
            "unlike": [],
            "rows": [],
            "shows": {},
            "table": None,
        }
    known = found[["first", "second"]].notna().any(axis=1).groupby(found["quantity"]).any()
    layers: dict[Any, pd.DataFrame] = dict(iter(found.groupby(["layer", "call"], sort=False)))
    return {
        "text": sentence(visible(comparison_text(found, names=first.layer_names))),
        "unlike": [sentence(visible(text).removesuffix(".")) for text in unlike(first, second)],
        "rows": [
            _row(first.layer_names[key], ids[key], rows)
            for key, rows in layers.items()
            if key in ids
        ],
        "shows": {name: bool(known.get(name, False)) for name in ("beta", "G")},
        "table": found,
    }


def _row(name: str, own_id: str, found: pd.DataFrame) -> dict[str, Any]:
    """Return the cells of one layer: L, its difference and what that means, then β and G."""
    rows = found.set_index("quantity").reindex(["L", "beta", "G"]).to_dict("index")
    of_index = rows["L"]
    low, high, change = (of_index[name] for name in ("low", "high", "difference"))
    second = ("no clear change", "more linear", "less linear")[clear_change(change, low, high)]
    return {
        "name": visible(name),
        "id": own_id,
        "L": [share(of_index[which]) for which in ("first", "second")],
        "difference": "–" if math.isnan(change) else signed(change).replace("-", "−"),
        "value": exact(change),
        "interval": "" if math.isnan(low) else f"{number(low)} to {number(high)}",
        "change": "" if math.isnan(low) else second,
        "beta": [number(rows["beta"][which]) for which in ("first", "second")],
        "G": [number(rows["G"][which]) for which in ("first", "second")],
    }
