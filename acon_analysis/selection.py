"""Which rows of a frame are meant: layers, samples, calls and columns, checked and explained."""

import re
from collections.abc import Container, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.screen import counted


def layer_path(name: str, known: Container[str] = ()) -> str:
    """Return the module path of a layer that is named as in tables: ``features.3 (Tanh)``.

    A name among `known` is a path as it stands; one of a single call is a UsageError.

    Examples
    --------
    >>> layer_path("features.3 (Tanh)"), layer_path("layer1.0.acon")
    ('features.3', 'layer1.0.acon')
    """
    shown = None if name in known else re.fullmatch(r"(.*?)\s*\(([^()]+)\)", name.strip())
    if shown is None:
        return name
    path, words = shown.groups()
    if re.search(r"\bcall \d+$", words):
        raise UsageError(
            f"{name!r} is one call of a layer; give the layer, {path!r}, and the call as a number "
            "where calls can be chosen"
        )
    return str(path)


def choose_layer(frame: pd.DataFrame, layer: str | None) -> str:
    """Return `layer` if the frame holds it, or the frame's last layer for None."""
    if frame.empty:
        raise AconError("the frame holds no rows, so there is no layer to show")
    names = [str(name) for name in frame["layer"].drop_duplicates()]
    if layer is None:
        return names[-1]
    path = layer_path(layer, names)
    if path not in names:
        raise UsageError(f"the frame holds no layer {layer!r}; {closest(path, names)}")
    return path


def choose_network(frame: pd.DataFrame, network: str | None) -> pd.DataFrame:
    """Return the rows of a network, by default the first; all rows of a frame that names none."""
    if "network" not in frame:
        return frame
    names = [str(name) for name in frame["network"].unique()]
    if network is not None and network not in names:
        raise UsageError(f"the frame holds no network {network!r}; {closest(network, names)}")
    return frame[frame["network"] == (network or next(iter(names), ""))]


def choose_samples(
    column: npt.ArrayLike, samples: int | Sequence[int], seed: int | np.random.Generator
) -> list[int]:
    """Draw a count of samples, in rising order, or check the ids given and keep their order.

    Repeated ids count once; of a count greater than the samples there are, all are drawn.
    """
    known = np.unique(np.asarray(column, dtype=np.int64))
    if isinstance(samples, int | np.integer):
        if samples < 1:
            raise UsageError(f"samples must be at least 1; it is {samples}")
        drawn = np.random.default_rng(seed).choice(known, min(int(samples), known.size), False)
        return [int(sample) for sample in np.sort(drawn)]
    wanted = [int(sample) for sample in dict.fromkeys(samples)]
    if not wanted:
        raise UsageError("samples is empty: give a count or at least one sample id")
    for sample in wanted:
        if sample not in known:
            near = int(known[np.abs(known - sample).argmin()])
            raise UsageError(
                f"sample {sample} is not in the frame: it holds {counted(known.size, 'sample')} "
                f"from {known[0]} to {known[-1]}, the nearest is {near}"
            )
    return wanted


def choose_call(rows: pd.DataFrame, call: int | None) -> pd.DataFrame:
    """Return the rows of one use of a layer, by default its last use."""
    if "call" not in rows.columns:
        return rows
    calls = sorted(int(number) for number in rows["call"].unique())
    if call is not None and call not in calls:
        raise UsageError(f"the layer has no call {call}; its calls are {calls}")
    return rows[rows["call"] == (calls[-1] if call is None else call)]


def require_columns(frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Raise an AconError that names the columns a frame lacks and those it has."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise AconError(
            f"{what} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"it has {', '.join(str(column) for column in frame.columns) or 'none'}"
        )


def require_finite(rows: pd.DataFrame, layer: str) -> None:
    """Raise an AconError that says where the first β of a layer that is not finite lies."""
    bad = rows[~np.isfinite(rows["beta"].to_numpy(dtype=np.float64))]
    if bad.empty:
        return
    first = bad.iloc[0]
    where = f"channel {int(first['channel'])}"
    if "sample" in bad.columns:
        where = f"sample {int(first['sample'])}, {where}"
    raise AconError(
        f"β is NaN or infinite in {len(bad)} of {counted(len(rows), 'row')} of layer {layer!r}, "
        f"first at {where}"
    )
