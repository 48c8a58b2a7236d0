"""Two captured runs compared: per layer β, L, L_own, beta_gain and G, with intervals.

The jackknife of a paired comparison leaves the same images out of both runs. Runs of a and b blocks
are therefore merged to their greatest common divisor g: a block sample_id mod g holds exactly the
images of a/g blocks of the one and of b/g of the other. Nothing is approximated, but the intervals
become those of g blocks. Without a common divisor no images can be left out of both, and the
comparison is refused: variances of dependent estimates must not simply be added.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from acon_analysis.columns import DIFFERENCE_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.moments.fields import BLOCKS
from acon_analysis.runs.run import Run, as_run
from acon_analysis.screen import counted, listed, signed, three_digits
from acon_analysis.statistics.differences import Side, compare_layers, difference
from acon_analysis.statistics.linearity import in_order
from acon_analysis.statistics.sentences import Names, row_names

#: The smallest difference of L or β that counts as a change: tables show none below it.
SMALLEST = 0.001


def compare_runs(
    first: Run | str | Path, second: Run | str | Path, *, confidence: float = 0.95
) -> pd.DataFrame:
    """Compare two runs layer by layer, with intervals of the differences.

    Runs of the same images are compared sample by sample (paired), which makes the intervals
    narrower; others as independent. Where the moments of such runs are kept in other numbers of
    blocks (``acon capture --moment-blocks``), intervals come from as many blocks as divide both.

    Parameters
    ----------
    first, second : Run, str or Path
        Captured runs, or their folders, that share names of layers: two epochs, before and after a
        change, ACON and Meta-ACON.
    confidence : float
        Of the intervals; jackknife over blocks of samples.

    Returns
    -------
    DataFrame
        Columns `columns.DIFFERENCE_COLUMNS`: layers in the first run's order, for each the
        quantity beta (the mean over samples and channels) where both have one, and L, L_own,
        beta_gain and G where both runs hold moments. NaN where a layer lacks a quantity; one that
        every layer lacks has no rows.

    Raises
    ------
    AconError
        If the runs share no layer, or are of the same images in numbers of blocks that have no
        common divisor.
    """
    first, second = as_run(first), as_run(second)
    paired = same_samples(first, second)
    blocks = shared_blocks(first, second) if paired else (first.moment_blocks, second.moment_blocks)
    frames = [_beta_differences(first, second, blocks, paired=paired, confidence=confidence)]
    if first.has_moments and second.has_moments:
        frames.append(
            compare_layers(
                _in_blocks(first.moments, blocks[0]),
                _in_blocks(second.moments, blocks[1]),
                first.parameters,
                second.parameters,
                paired=paired,
                confidence=confidence,
                eps=max(first.rounding, second.rounding),
            )
        )
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        raise AconError(_nothing_shared(first, second))
    table = pd.concat(filled, ignore_index=True)
    known = table["quantity"].map(
        table.groupby("quantity")[["first", "second"]].count().sum(axis=1)
    )
    table = table[(known > 0) | (table["quantity"] == "L")]
    return in_order(table, first.layers)[names(DIFFERENCE_COLUMNS)]


def side_by_side(found: pd.DataFrame) -> pd.DataFrame:
    """Return a comparison of `compare_runs` with one row a layer, for the screen.

    Returns
    -------
    DataFrame
        ``layer, call``, L of both runs and its difference with the interval in words, then β (the
        mean) and G of both; columns that neither run has are missing.
    """
    keys = ["layer", "call"]
    table = found[keys].drop_duplicates().reset_index(drop=True)
    for quantity, label in (("L", "L"), ("beta", "β"), ("G", "G")):
        own = found.loc[found["quantity"] == quantity].set_index(keys)
        if own.empty:
            continue
        rows = own.reindex(pd.MultiIndex.from_frame(table[keys]))
        for which in ("first", "second"):
            table[f"{label} {which}"] = rows[which].to_numpy()
        if quantity == "L":
            given = rows[["difference", "low", "high"]].to_numpy()
            table["difference"] = [_with_interval(*map(float, row)) for row in given]
    return table


def _with_interval(value: float, low: float, high: float) -> str:
    """Return a difference and its interval in words."""
    if math.isnan(value):
        return ""
    return signed(value) + ("" if math.isnan(low) else f" ({signed(low)} to {signed(high)})")


def comparison_text(
    found: pd.DataFrame, confidence: float = 0.95, names: Names | None = None
) -> str:
    """Return in how many layers the second of two runs is more linear, or less, in words."""
    rows = found[found["quantity"] == "L"].dropna(subset=["difference"])
    if rows.empty:
        betas = found[found["quantity"] == "beta"]
        return f"mean β of the second run: {_more_and_less(betas, 'higher', 'lower')}"
    how = "sample by sample" if bool(rows["paired"].all()) else "as independent samples"
    text = (
        f"the second run is {_more_and_less(rows, 'more linear', 'less linear')} "
        f"({100 * confidence:g} % intervals of L, each layer by itself; changes below {SMALLEST:g} "
        f"do not count; compared {how})"
    )
    at = int(rows["difference"].abs().argmax())
    largest = rows.iloc[at]
    if largest["difference"]:
        ends = " to ".join(three_digits(largest[which]) for which in ("first", "second"))
        text += f"; largest change in {row_names(rows, names)[at]}, L = {ends}"
    return text


def clear_change(difference: float, low: float, high: float) -> int:
    """Return the sign of a difference of at least `SMALLEST` whose interval excludes 0, or 0."""
    clear = abs(difference) >= SMALLEST and (low > 0 or high < 0)
    return (1 if difference > 0 else -1) if clear else 0


def _more_and_less(rows: pd.DataFrame, more: str, less: str) -> str:
    """Return in how many layers there is a clear change, upwards or downwards."""
    signs = [clear_change(*row) for row in rows[["difference", "low", "high"]].to_numpy()]
    up, down = signs.count(1), signs.count(-1)
    total = f"of {counted(len(rows), 'layer')}"
    if not up and not down:
        return (
            f"neither {more} nor {less} in {f'any {total}' if len(rows) > 1 else 'its one layer'}"
        )
    parts = [f"{more} in {up} {total}"] if up else []
    parts += [f"{less} in {down}" + ("" if up else f" {total}")] if down else []
    return " and ".join(parts)


def same_samples(first: Run, second: Run) -> bool:
    """Say whether two runs captured the same images, known by their SHA-256, in the same order."""
    one, two = first.sample_ids, second.sample_ids
    if not np.array_equal(one, two) or not len(one):
        return False
    hashes = [
        run.samples.set_index("sample_id")["sha256"].reindex(one).fillna("").to_numpy(dtype=str)
        for run in (first, second)
    ]
    return bool((hashes[0] == hashes[1]).all() and (hashes[0] != "").all())


def shared_blocks(first: Run, second: Run) -> tuple[int, int]:
    """Return, twice, the blocks to which the moments of runs of the same images can be merged.

    A single block, which gives no interval, is an AconError.
    """
    numbers = [run.moment_blocks for run in (first, second) if run.has_moments]
    if len(numbers) < 2:
        return (numbers or [BLOCKS])[0], (numbers or [BLOCKS])[0]
    found = math.gcd(*numbers)
    if found == 1:
        raise AconError(
            f"the runs are of the same images, in {numbers[0]} and {numbers[1]} blocks, which have "
            "no common divisor: no images can be left out of both for the intervals; capture one "
            f"of them again with --moment-blocks {numbers[0]} or {numbers[1]}"
        )
    return found, found


def _in_blocks(moments: pd.DataFrame, blocks: int) -> pd.DataFrame:
    """Give each row the number of its wider block; whoever reads the rows merges them."""
    return moments.assign(block=moments["block"] % blocks)


def unlike(first: Run, second: Run) -> list[str]:
    """Return in what two runs differ that a comparison takes to be equal, a sentence each.

    Other samples, another preprocessing or mask, other blocks, and layers that only one has.
    """
    found = []
    if not same_samples(first, second):
        one, two = len(first.sample_ids), len(second.sample_ids)
        found.append(
            f"the runs are not of the same samples ({one} and {two}): they are compared as "
            "independent ones, and differences may come from the samples"
        )
    else:
        if first.identity.get("preprocess") != second.identity.get("preprocess"):
            found.append("the runs took the same images through different preprocessings")
        numbers = [run.moment_blocks for run in (first, second) if run.has_moments]
        if len(set(numbers)) == 2:
            found.append(
                f"the runs' moments are of {numbers[0]} and {numbers[1]} blocks of images: the "
                f"intervals are those of {math.gcd(*numbers)} blocks"
            )
    masks = [run.identity.get("mask") for run in (first, second)]
    if masks[0] != masks[1]:
        which = [f"{mask!r}" if mask else "none, so padded positions count" for mask in masks]
        found.append(f"the runs have other masks of padded positions: {which[0]}; {which[1]}")
    keys = [
        {(row["layer"], row["call"]): row["channels"] for row in run.layers.to_dict("records")}
        for run in (first, second)
    ]
    for order, run, (own, other) in (("first", first, keys), ("second", second, keys[::-1])):
        alone = [run.layer_names[key] for key in own.keys() - other]
        if alone:
            named = listed(sorted(alone), 3)
            found.append(f"{_layers(len(alone))} only in the {order} run: {named}")
    wider = [key for key, width in keys[0].items() if keys[1].get(key, width) != width]
    if wider:
        named = listed([first.layer_names[key] for key in wider], 3)
        found.append(f"{_layers(len(wider))} of other widths in the two runs: {named}")
    return found


def _layers(count: int) -> str:
    """Return a number of layers as the subject of a sentence."""
    return f"{counted(count, 'layer')} {'is' if count == 1 else 'are'}"


def _nothing_shared(first: Run, second: Run) -> str:
    """Return the message for two runs that cannot be compared."""
    shown = [", ".join(run.layers["layer"].unique()[:5]) or "none" for run in (first, second)]
    return (
        "the two runs have nothing in common that could be compared: the layers of the first are "
        f"{shown[0]}; of the second {shown[1]} (β needs layers of the same name with a β, L and G "
        "need moments in both)"
    )


def _beta_differences(
    first: Run, second: Run, blocks: tuple[int, int], *, paired: bool, confidence: float
) -> pd.DataFrame:
    """Compare the means of β over samples and channels."""
    sides = (run.beta_layers[["layer", "call"]] for run in (first, second))
    own, others = ([*side.itertuples(index=False, name=None)] for side in sides)
    keys = [key for key in own if key in set(others)]
    if not keys:
        return pd.DataFrame(columns=names(DIFFERENCE_COLUMNS))
    one, two = _means(first, keys, blocks[0]), _means(second, keys, blocks[1])
    table = difference("beta", one, two, paired, confidence)
    return table.assign(layer=[key[0] for key in keys], call=[key[1] for key in keys])


def _means(run: Run, keys: list[tuple[str, int]], number: int) -> Side:
    """Return the mean β of some layers (R,), and without each block of samples (B, R)."""
    shape = number, len(keys)
    sums, size = np.zeros(shape), np.zeros(shape)
    for index, key in enumerate(keys):
        beta = run.beta(*key)
        blocks = beta.sample_ids % number
        np.add.at(sums[:, index], blocks, beta.values.mean(1, dtype=np.float64))
        size[:, index] = np.bincount(blocks, minlength=number)
    total, count = sums.sum(0), size.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = (total - sums) / np.where(size < count, count - size, np.nan)
        mean = total / np.where(count > 0, count, np.nan)
    return Side(np.arange(number), size, {"beta": (mean, without)})
