"""Which layers of a network of very many are drawn one by one."""

import numpy as np
import pandas as pd

from acon_analysis.runs.run import Run
from acon_analysis.statistics.sentences import alive

#: Networks of at most this many layers, calls counted apart, are drawn whole.
WHOLE = 160

#: About how many layers of a larger network are drawn.
SPREAD = 60


def drawn_layers(run: Run) -> pd.DataFrame:
    """Return the rows of `Run.layers` that figures draw: all, or of very many a spread.

    The spread is even by depth. The first, the last, the most and the least linear layer (none of
    them dead) and the last with β per sample and with any β are always among it.
    """
    if len(run.layers) <= WHOLE:
        return run.layers
    key = (drawn_layers.__name__,)
    if key not in run.answers:
        run.answers[key] = run.layers.iloc[_spread(run)]
    return run.answers[key]


def _spread(run: Run) -> list[int]:
    """Return the positions of the layers of a spread."""
    table = run.layers
    positions = set(np.linspace(0, len(table) - 1, SPREAD).round().astype(int))
    keys = pd.MultiIndex.from_frame(table[["layer", "call"]])
    kept = [run.per_sample_layers.tail(1), run.beta_layers.tail(1)]
    if run.has_moments:
        known = alive(run.linearity(columns="all"))
        kept += [known.nlargest(1, "L"), known.nsmallest(1, "L")]
    for own in kept:
        positions |= set(keys.get_indexer(pd.MultiIndex.from_frame(own[["layer", "call"]])))
    return sorted(positions)


def drawn_text(run: Run, layers: pd.DataFrame | None = None) -> str:
    """Say how many layers of a run are drawn, `drawn_layers` or others; empty where all are."""
    drawn, every = len(drawn_layers(run) if layers is None else layers), len(run.layers)
    if drawn == every:
        return ""
    ends = "the first, the last, the most and the least linear"
    ends = ends if run.has_moments else "the first and the last"
    return f"{drawn} of {every:,} layers are drawn, evenly by depth and with {ends}"
