"""Two runs compared: differences of the index per layer, with intervals."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.columns import DIFFERENCE_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.moments.gram import EPS32
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.channel_sums import ChannelSums, ResidualSums, channel_sums, ratio
from acon_analysis.statistics.jackknife import jackknife_error, symmetric_interval
from acon_analysis.statistics.linearity_columns import beta_gain


@dataclass(frozen=True)
class Side:
    """Estimates of one run: (value (R,), value without each block (B, R)) per quantity."""

    blocks: npt.NDArray[np.int64]
    size: FloatArray
    values: dict[str, tuple[FloatArray, FloatArray]]


def compare_layers(
    first: pd.DataFrame,
    second: pd.DataFrame,
    channels_first: pd.DataFrame | None = None,
    channels_second: pd.DataFrame | None = None,
    *,
    paired: bool,
    confidence: float = 0.95,
    eps: float = EPS32,
) -> pd.DataFrame:
    """Compare the moments of two runs layer by layer, with intervals of the differences.

    ``first`` and ``second`` are moments with blocks, as for `linearity.layer_table`; layers that
    only one has are left out. Paired runs saw the same samples in the same blocks: then the
    difference itself is jackknifed, otherwise the two variances are added (degrees of freedom by
    Welch and Satterthwaite). Returns `columns.DIFFERENCE_COLUMNS` of L, L_own, beta_gain and G; NaN
    where a quantity does not exist, or with fewer than two blocks.
    """
    one = channel_sums(first, channels_first, eps=eps)
    two = channel_sums(second, channels_second, eps=eps)
    keys = [_layers(sums) for sums in (one, two)]
    shared = [key for key in keys[0] if key in keys[1]]
    if not shared:
        raise AconError(
            f"the two runs share no layer: the first has {', '.join(k[0] for k in keys[0])}; "
            f"the second {', '.join(k[0] for k in keys[1])}"
        )
    a = _side(one, [keys[0].index(key) for key in shared])
    b = _side(two, [keys[1].index(key) for key in shared])
    if paired and not np.array_equal(a.blocks, b.blocks):
        raise AconError(
            f"paired runs need the same blocks of samples: the first has {len(a.blocks)} "
            f"({a.blocks[0]} to {a.blocks[-1]}), the second {len(b.blocks)} ({b.blocks[0]} to "
            f"{b.blocks[-1]}); compare them with paired=False"
        )
    tables = [difference(name, a, b, paired, confidence) for name in a.values]
    layers, calls = [key[0] for key in shared], [key[1] for key in shared]
    frame = pd.concat([t.assign(layer=layers, call=calls) for t in tables], ignore_index=True)
    return frame[names(DIFFERENCE_COLUMNS)]


def _layers(sums: ChannelSums) -> list[tuple[str, int]]:
    """Return layer and call of every layer of the sums."""
    rows = sums.keys.loc[sums.layer_starts, ["layer", "call"]]
    return list(zip(rows["layer"], rows["call"], strict=True))


def _side(sums: ChannelSums, rows: list[int]) -> Side:
    """Return the estimates of some layers of one run, given by their positions."""
    whole = sums.whole.summed(sums.layer_starts)
    without = sums.without.summed(sums.layer_starts)
    both = [estimates(p) for p in (whole, without)]
    values = {name: (both[0][name][rows], both[1][name][:, rows]) for name in both[0]}
    return Side(sums.blocks, sums.size[:, sums.layer_starts][:, rows], values)


def estimates(whole: ResidualSums) -> dict[str, FloatArray]:
    """Compute the compared quantities of layers."""
    return {
        "L": 1 - ratio(whole.sse, whole.cyy),
        "L_own": 1 - ratio(whole.own, whole.cyy),
        "beta_gain": beta_gain(whole),
        "G": whole.gate,
    }


def difference(name: str, a: Side, b: Side, paired: bool, confidence: float) -> pd.DataFrame:
    """Tabulate the difference of one quantity, a row a layer."""
    (first, firsts), (second, seconds) = a.values[name], b.values[name]
    change = second - first
    if paired:
        error, freedom = jackknife_error(change, seconds - firsts, a.size)
    else:
        error_a, freedom_a = jackknife_error(first, firsts, a.size)
        error_b, freedom_b = jackknife_error(second, seconds, b.size)
        error = np.hypot(error_a, error_b)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = error_a**4 / freedom_a + error_b**4 / freedom_b
            freedom = np.where(terms > 0, error**4 / terms, freedom_a + freedom_b)
    low, high = symmetric_interval(change, error, freedom, confidence)
    return pd.DataFrame(
        {
            "quantity": name,
            "first": first,
            "second": second,
            "difference": change,
            "error": error,
            "low": low,
            "high": high,
            "paired": paired,
        }
    )
