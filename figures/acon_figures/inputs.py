"""The frames that measured figures need, taken from captured runs and the package's own logs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis.plotdata.channels import channel_facts
from acon_analysis.plotdata.depth import linearity_by_depth
from acon_analysis.runs.run import Run
from acon_analysis.studies import results
from acon_analysis.training.logs import logged_data, training_logs

Frames = dict[str, Any]
"""Frames by name: pandas.DataFrame or Series, or a mapping for images and what was explained."""

Sources = Mapping[str, Callable[[Run], Any]]
"""What runs do not hold, by the frames' names: each takes a run, and returns None for nothing."""

MOST_NETWORKS = 12
"""As many as `linearity_by_depth` can tell apart."""


def frames_of(
    runs: Sequence[Run],
    names: Collection[str] | None = None,
    sources: Sources | None = None,
) -> Frames:
    """Return every frame that these runs can give to a figure, by the figures' argument names.

    Parameters
    ----------
    runs : sequence of Run
        Captured runs.
    names : collection of str, optional
        Frames that are wanted, by default all.
    sources : mapping of str to callable, optional
        What a run does not hold itself, such as its images; asked for the main run.

    Returns
    -------
    dict of str to pandas.DataFrame, Series or mapping
        Names as in `FigureSpec.frames`; without what no run has. Frames of `OF_MAIN` are of one
        run, the main one: the first with β per sample; those of `OF_ANY` of the first run that
        has them, those of `OF_ALL` of all runs together.
    """
    main = next((run for run in runs if main_layer(run) is not None), None)
    found: Frames = {}
    for name, of_all in OF_ALL.items():
        if names is None or name in names:
            found[name] = of_all(runs)
    for name, of_one in {**OF_MAIN, **OF_ANY}.items():
        if names is not None and name not in names:
            continue
        candidates = runs if name in OF_ANY else [main] if main is not None else []
        if name == "static" and main is not None:  # beside β of the same layer only
            candidates = [run for run in runs if main_layer(main) in set(run.layers["layer"])]
        frames = (of_one(run) for run in candidates)
        frame = next((one for one in frames if one is not None and len(one)), None)
        if frame is not None:
            found[name] = frame
    for name, source in (sources or {}).items():
        asked = main if main is not None else next(iter(runs), None)
        if asked is not None and (names is None or name in names):
            frame = source(asked)
            if frame is not None:
                found[name] = frame
    return {name: frame for name, frame in found.items() if len(frame)}


def main_layer(run: Run) -> str | None:
    """Return the last layer whose β depends on the sample."""
    own = run.per_sample_layers
    return None if own.empty else str(own["layer"].iloc[-1])


def last_betas(run: Run) -> pd.DataFrame | None:
    """Return β per sample of the run's last Meta-ACON layer."""
    layer = main_layer(run)
    return None if layer is None else run.betas(layers=[layer])


def static_betas(run: Run) -> pd.DataFrame | None:
    """Return layer, channel, β of every layer whose β is a parameter."""
    own = run.channels.dropna(subset=["beta"])
    return None if own.empty else own[["layer", "channel", "beta"]]


def batch_norms(run: Run) -> pd.DataFrame | None:
    """Return layer, channel and BatchNorm's scale and shift, where the last layer has them."""
    own = run.channels.dropna(subset=["bn_weight"])
    if main_layer(run) not in set(own["layer"]):
        return None
    return own[["layer", "channel", "bn_weight", "bn_bias"]]


def sample_labels(run: Run) -> "pd.Series[Any] | None":
    """Return each sample's class, by sample_id, where the images have classes."""
    labels = run.samples.set_index("sample_id")["label"].dropna()
    return None if labels.empty else labels


def channel_null(run: Run) -> pd.DataFrame | None:
    """Return β of every channel of the last Meta-ACON layer against BatchNorm's null."""
    layer = main_layer(run)
    if layer is None or batch_norms(run) is None:
        return None
    return run.null_model(layer)


def mean_betas(run: Run) -> pd.DataFrame | None:
    """Return each sample's mean β over the channels of the last Meta-ACON layer."""
    layer = main_layer(run)
    if layer is None:
        return None
    means = run.beta_matrix(layer).mean(axis=1, dtype=np.float64)
    return pd.DataFrame({"sample": run.sample_ids, "beta": means})


def variance_splits(run: Run) -> pd.DataFrame | None:
    """Return the split of the variance of β, layer by layer."""
    return run.variance_split()


def own_channels(run: Run) -> pd.DataFrame | None:
    """Return the facts of the run's channels that have p1, p2 and β."""
    own = acon_channels([run])
    return None if own.empty else own


def depth_of_all(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the measures by depth of the first run and of up to five that share its layers."""
    fitting: list[Run] = []
    common: set[tuple[str, int]] = set()
    for run in runs:
        own = set(zip(run.layers["layer"], run.layers["call"], strict=True))
        if run.has_moments and len(fitting) < MOST_NETWORKS and (not fitting or common & own):
            common = common & own if fitting else own
            fitting.append(run)
    return linearity_by_depth(fitting)


def acon_channels(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the facts of the channels that have p1, p2 and β."""
    return channel_facts(runs).dropna(subset=["p1", "p2", "beta_middle"])


def shipped_logs(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the logs of the shipped networks of the first run's data, or else of the digits."""
    named = (run.model.partition("_")[0] for run in runs)
    return training_logs(next((name for name in named if name in logged_data()), "digits"))


def shipped_table(name: str) -> Callable[[Sequence[Run]], pd.DataFrame]:
    """Return what reads a table of `studies.results`; it is empty where it is missing."""

    def read(_runs: Sequence[Run]) -> pd.DataFrame:
        return results.table(name) if name in results.available() else pd.DataFrame()

    return read


OF_MAIN: Mapping[str, Callable[[Run], "pd.DataFrame | pd.Series[Any] | None"]] = {
    "frame": last_betas,
    "null": batch_norms,
    "labels": sample_labels,
    "null_table": channel_null,
    "sample_means": mean_betas,
    "splits": variance_splits,
    "own_channels": own_channels,
}
OF_ANY: Mapping[str, Callable[[Run], "pd.DataFrame | pd.Series[Any] | None"]] = {
    "static": static_betas,
}
OF_ALL: Mapping[str, Callable[[Sequence[Run]], pd.DataFrame]] = {
    "training": shipped_logs,
    "depth": depth_of_all,
    "channels": acon_channels,
    "damage": shipped_table("replacement_damage"),
    "epochs": shipped_table("beta_over_epochs"),
}
FROM_PACKAGE = ("training", "damage", "epochs")
"""Frames that come with the package, whatever the runs."""

FROM_SOURCES = ("images", "inputs", "measures", "explained")
"""Frames that only `sources` give."""
