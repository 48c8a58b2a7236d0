"""The logs of the training of the shipped networks, and their mean and spread over seeds."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from acon_analysis.errors import AconError
from acon_analysis.schema import CURVE_COLUMNS, names
from acon_analysis.selection import require_columns

#: Folder of the logs that come with the package, beside the weights.
LOGS = Path(__file__).parent / "models" / "weights"

#: Networks of the paper's picture of training curves, and what it calls their activation.
ACTIVATIONS = {
    "relu": "ReLU",
    "swish": "ACON-A (Swish)",
    "acon": "ACON-C",
    "metaacon": "Meta-ACON",
}


def training_logs(data: str = "digits", folder: str | Path = LOGS) -> pd.DataFrame:
    """Read the logs of one data set's networks.

    Parameters
    ----------
    data : str
        What their names begin with.
    folder : str or Path
        Holds ``DATA_ACTIVATION.csv``, and ``DATA_ACTIVATION_seedN.csv`` for further seeds.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``activation`` (in words), ``seed`` (0 where the name says none) and
        those of `schema.CURVE_COLUMNS`; networks in the order of `ACTIVATIONS`.

    Raises
    ------
    AconError
        If there is no log, or one lacks a column.
    """
    parts = []
    for short, words in ACTIVATIONS.items():
        network = f"{data}_{short}"
        paths = [Path(folder) / f"{network}.csv", *Path(folder).glob(f"{network}_seed*.csv")]
        for path in sorted(path for path in paths if path.is_file()):
            seed = int(path.stem.partition("_seed")[2] or 0)
            log = pd.read_csv(path)
            require_columns(log, names(CURVE_COLUMNS), f"the log {path.name}")
            head = {"network": network, "activation": words, "seed": seed}
            parts.append(pd.DataFrame({**head, **log[names(CURVE_COLUMNS)]}))
    if not parts:
        raise AconError(f"{str(folder)!r} holds no log {data}_*.csv of a training")
    return pd.concat(parts, ignore_index=True)


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
