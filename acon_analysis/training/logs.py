"""The logs of the training of the shipped networks, and their mean and spread over seeds."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from acon_analysis.columns import CURVE_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.files import open_regular
from acon_analysis.paper.numbers import NETWORK_ACTIVATIONS
from acon_analysis.selection import require_columns

#: Folder of the logs that come with the package, next to the weights.
LOGS = Path(__file__).parents[1] / "models" / "weights"


_SEED = re.compile(r"(?:[_-]seed(\d+))?\.csv")


def logged_data(folder: str | Path | None = None) -> tuple[str, ...]:
    """Return the data sets of which a folder (by default the package's) holds logs, sorted."""
    folder = LOGS if folder is None else Path(folder)
    found = {path.name.partition("_")[0] for path in folder.glob("*_*.csv")}
    return tuple(sorted(name for name in found if _logs_of(name, folder)))


def training_logs(data: str = "digits", folder: str | Path | None = None) -> pd.DataFrame:
    """Read the logs of one data set's networks from a folder, by default the package's.

    It holds ``DATA_ACTIVATION.csv``, and for further seeds ``DATA_ACTIVATION_seedN.csv`` (or
    ``-seedN``). Columns ``network``, ``activation`` (in words), ``seed`` (0 where the name says
    none) and those of `columns.CURVE_COLUMNS`; networks in the order of `NETWORK_ACTIVATIONS`.
    `AconError` if there is no log, one lacks a column, or two are of the same seed.
    """
    folder = LOGS if folder is None else Path(folder)
    parts = []
    for short, seed, path in _logs_of(data, folder):
        with open_regular(path) as file:
            log = pd.read_csv(file)
        require_columns(log, names(CURVE_COLUMNS), f"the log {path.name}")
        head = {"network": f"{data}_{short}", "activation": NETWORK_ACTIVATIONS[short]}
        parts.append(pd.DataFrame({**head, "seed": seed, **log[names(CURVE_COLUMNS)]}))
    if not parts:
        raise AconError(f"{str(folder)!r} holds no log {data}_*.csv of a training")
    return pd.concat(parts, ignore_index=True)


def _logs_of(data: str, folder: Path) -> list[tuple[str, int, Path]]:
    """Return activation, seed and file of every log, in order of activations and seeds."""
    found = []
    for short in NETWORK_ACTIVATIONS:
        stem = f"{data}_{short}"
        seeds: dict[int, Path] = {}
        for path in sorted(folder.glob(f"{stem}*.csv")):
            match = _SEED.fullmatch(path.name.removeprefix(stem))
            if match is None:  # another network whose name begins alike
                continue
            seed = int(match[1] or 0)
            if seed in seeds:
                raise AconError(f"{path.name} and {seeds[seed].name} are both of seed {seed}")
            seeds[seed] = path
        found += [(short, seed, seeds[seed]) for seed in sorted(seeds)]
    return found


def curve_bands(
    logs: pd.DataFrame, quantities: Sequence[str] = ("train_error", "test_error")
) -> pd.DataFrame:
    """Take the mean and the range over seeds of every curve.

    Parameters
    ----------
    logs : pandas.DataFrame
        Columns ``activation``, ``seed``, ``iteration`` and the quantities; one row an epoch.
    quantities : sequence of str
        Columns to average.

    Returns
    -------
    pandas.DataFrame
        Columns ``activation``, ``quantity``, ``iteration``, ``mean``, ``low``, ``high`` (least
        and greatest of the seeds) and ``seeds``, in the order of the logs.
    """
    require_columns(logs, ["activation", "seed", "iteration", *quantities], "the training logs")
    if logs.empty:
        raise AconError("the training logs hold no epoch")
    long = logs.melt(["activation", "seed", "iteration"], list(quantities), var_name="quantity")
    by = ["activation", "quantity", "iteration"]
    grouped = long.groupby(by, sort=False)["value"]
    table = grouped.agg(mean="mean", low="min", high="max", seeds="count").reset_index()
    return table[[*by, "mean", "low", "high", "seeds"]]
