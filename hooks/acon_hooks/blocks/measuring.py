"""`block_linearity`: how linear blocks of a network are, and the whole network."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from acon_analysis.columns import BLOCK_COLUMNS, dtypes
from acon_analysis.errors import UsageError
from acon_analysis.screen import counted, listed
from acon_analysis.statistics.affine_blocks import held_out_r2
from acon_hooks.blocks.calls import block_sites
from acon_hooks.blocks.finding import WHOLE, choose_blocks
from acon_hooks.blocks.gathering import FEWEST_KEPT, MOST_SAMPLES, Gathered, Gathering
from acon_hooks.blocks.triples import change, coefficient
from acon_hooks.blocks.vectors import MIXED
from acon_hooks.captures.identity import model_name
from acon_hooks.engine.edits import Form
from acon_hooks.engine.feed import Feed
from acon_hooks.engine.feeding import data_name, named_data, open_feed
from acon_hooks.engine.inputs import Forward, Mask, input_options
from acon_hooks.engine.sites import Site
from acon_hooks.errors import BlockWarning, HookError
from acon_hooks.guards import full_precision, unwrap
from acon_hooks.layers.choosing import NoLayerError
from acon_hooks.readings.batch import Key
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.linearizing import plan_edits

#: Difference of R² and L from which on a warning says that the activations mislead.
DISAGREEMENT = 0.2

#: Activations of a block that are also replaced one at a time; samples for replacements, and for
#: those in the whole network.
_MOST_ALONE, _REPLACED, _REPLACED_WHOLE = 4, 1024, 256


#: What the row of a block holds that is left out.
_NOTHING: dict[str, Any] = {
    "vectors": "", "dimension": 0, "inside": [], "activation": "", "n": 0
}  # fmt: skip


def block_linearity(
    model: nn.Module,
    data: Any,
    blocks: Iterable[str] | None = None,
    forward: Forward | None = None,
    seed: int = 0,
    *,
    mask: Mask | None = None,
    limit: int | None = None,
    announce: Callable[[str], None] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure how linear blocks of a network are, and the whole network.

    L of an activation says little of the block that it is in: a shortcut makes a block nearly
    linear whatever is inside, and a product of two branches bends without any activation.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode. It stays as it is.
    data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        Images, or other inputs such as the ids of tokens; see
        `acon_hooks.engine.feeding.open_feed`. They are read twice, so an iterator is refused.
    blocks : iterable of str, optional
        Module paths, "whole network" among them. By default the repeated blocks, found by
        structure, and the whole network.
    forward : callable, optional
        Runs the network: (model, batch) -> output.
    seed : int
        Of the folds of R² and of the batches that are kept.
    mask : str, int, callable or mapping, optional
        Which positions hold data; the others are left out. As for
        `acon_hooks.captures.capturing.capture`. Samples that differ in length are compared where
        all of a triple hold data.
    limit : int, optional
        Only the first N samples.
    announce : callable, optional
        Gets one sentence about the memory that is needed, before the start.
    progress : bool
        Show bars.

    Returns
    -------
    DataFrame
        Columns `columns.BLOCK_COLUMNS`, one row a block, in order of execution. A block that runs
        several times in a forward pass has a row for each. ``nlc`` is of pairs of samples
        (`statistics.affine_blocks.nonlinearity_coefficient`) and is the number to go by: it is
        defined whatever a block does with positions. ``r2``, of five folds of the samples,
        measures linearity only where ``vectors`` is "positions" or "samples".

    Raises
    ------
    UsageError
        If there is no such module, or the data can be read only once.
    HookError
        If a named block is no map of real vectors, or does not run.
    AconError
        If there are too few samples, or the blocks need too much memory.

    Warns
    -----
    BlockWarning
        If a number is left out, with the reason; if a block is much more or much less linear than
        the activations inside.
    """
    network = unwrap(model)
    if isinstance(data, Iterator):
        raise UsageError(
            f"the data are read twice, and a {type(data).__name__} can be read once: give a list "
            "of batches, a DataLoader or a data set"
        )
    named = None if blocks is None else [blocks] if isinstance(blocks, str) else list(blocks)
    sites = block_sites(choose_blocks(network, named))
    name, data = data_name(data), named_data(data)
    lines = _Lines(network, data, limit, forward, mask)
    mixed = shuffled(data, limit, seed)
    options = input_options(network, forward, mask)
    feed = open_feed(mixed, limit=limit, batch_size=MOST_SAMPLES, options=options)
    gathering = Gathering(network, feed, _count(feed, mixed, limit), seed)
    with torch.inference_mode(False), torch.no_grad(), full_precision():
        gathering.first(sites, lines.layers)
        _refuse_or_warn(gathering.left_out, named)
        if announce is not None:
            announce(gathering.words())
        gathering.gather(progress=progress)
        bar = tqdm(gathering.blocks, desc="derivatives", unit="block", disable=not progress)
        own = model_name(network).removeprefix("__main__.")
        facts = {"network": own, "data": name, "samples": gathering.samples}
        rows = [_row(block, lines, gathering.samples) for block in bar]
        at = len(rows) - (bool(rows) and rows[-1]["block"] == WHOLE)
        rows[at:at] = [_NOTHING | {"block": n, "why": w} for n, w in gathering.left_out.items()]
        rows = [row | facts for row in rows]
    table = pd.DataFrame(rows, columns=[column.name for column in BLOCK_COLUMNS])
    classes = {name or WHOLE: type(part).__name__ for name, part in network.named_modules()}
    paths = table["block"].str.replace(r" \(call \d+\)$", "", regex=True)
    table = table.assign(class_name=paths.map(classes)).astype(dtypes(BLOCK_COLUMNS))
    _warn_of_disagreement(table)
    return table


def shuffled(data: Any, limit: int | None, seed: int) -> Any:
    """Return data in random order, where they have numbers: neighbours may be of one class."""
    if not isinstance(data, Dataset) or not isinstance(data, Sized):
        return data
    count = len(data) if limit is None else min(limit, len(data))
    order = np.random.default_rng(seed).permutation(count)
    return Subset(data, [int(index) for index in order])


def _count(feed: Feed, data: Any, limit: int | None) -> int | None:
    """Return how many samples there are, as far as it is known beforehand."""
    if feed.count is not None:
        return feed.count
    found = None
    if isinstance(data, DataLoader) and isinstance(data.dataset, Sized):
        found = len(data.dataset)
    if isinstance(data, list):
        batches = (next(iter(b.values())) if isinstance(b, dict) else b for b in data)
        found = sum(len(b if isinstance(b, Tensor) else b[0]) for b in batches)
    return found if found is None or limit is None else min(found, limit)


class _Lines:
    """L and the line of every use of an activation of a network."""

    def __init__(
        self,
        network: nn.Module,
        data: Any,
        limit: int | None,
        forward: Forward | None,
        mask: Mask | None,
    ) -> None:
        self.layers: set[Site] = set()
        self.edits: dict[Key, tuple[Site, Form]] = {}
        self.L: dict[Key, float] = {}
        try:
            fit = fit_units(
                network, data, limit=limit, batch_size=MOST_SAMPLES, forward=forward, mask=mask,
                kernel="auto" if mask is None else "eager",
            )  # fmt: skip
        except NoLayerError:
            return
        for site, line in plan_edits(network, fit.plan(budget=1.0)).items():
            self.edits[site.name, site.call or 0] = site, line
            self.layers.add(replace(site, call=None, axis=1))
        for key in self.edits:
            own = fit.table[(fit.table["layer"] == key[0]) & (fit.table["call"] == key[1])]
            alive = own[~own["dead"]]
            self.L[key] = 1 - float(alive["s_c"].sum()) if len(alive) else np.nan

    def inside(self, block: Gathered) -> dict[Site, Form]:
        """Return the line of every use of an activation inside a block that is run by itself."""
        used = [key for key in block.first.inside if key in self.edits]
        first = {name: min(call for other, call in used if other == name) for name, _ in used}
        found = (self.edits[name, call] for name, call in used)
        return {
            replace(site, call=(site.call or 0) - first[site.name]): line for site, line in found
        }


def _refuse_or_warn(left_out: dict[str, str], named: list[str] | None) -> None:
    """Say which blocks cannot be measured, and why."""
    if not left_out:
        return
    text = listed([f"{name!r}: {why}" for name, why in left_out.items()], 3, joint="; ")
    if named is not None:
        raise HookError(f"blocks that cannot be measured: {text}")
    warnings.warn(f"blocks left out: {text}", BlockWarning, stacklevel=3)


def _row(block: Gathered, lines: _Lines, samples: int) -> dict[str, Any]:
    """Return the row of a block."""
    L = [lines.L.get(key, np.nan) for key in block.first.inside]
    known = [value for value in L if not np.isnan(value)]
    row = {
        "block": block.label,
        "vectors": block.kind,
        "dimension": block.inputs,
        "inside": L,
        "elementwise_L": float(np.mean(known)) if known else np.nan,
        "activation": "",
        "why": block.why,
        **_affine(block),
    }
    try:
        return row | _nonlinear(block, lines, samples)
    except HookError as error:
        warnings.warn(f"block {block.label!r} has no nlc: {error}", BlockWarning, stacklevel=3)
        return row | {"why": "; ".join(filter(None, [f"no nlc: {error}", block.why]))}


def _affine(block: Gathered) -> dict[str, Any]:
    """Return what the best affine map explains of a block."""
    if block.sums is None:
        return {"n": 0}
    sums = block.sums.result()
    found = held_out_r2(sums, block.inputs)
    return {
        "n": int(sums.n.sum()),
        "r2": found.r2,
        "r2_low": found.low,
        "r2_high": found.high,
        "r2_without_residual": found.without_input,
    }


def _nonlinear(block: Gathered, lines: _Lines, samples: int) -> dict[str, Any]:
    """Return a block's nonlinearity coefficient, or raise, and what its activations make of it."""
    kept = [block.kept[slot] for slot in sorted(block.kept)]
    if len(kept) < FEWEST_KEPT:
        few = counted(len(kept), "batch")
        raise HookError(f"it has {few} of samples of one size, and needs three")
    whole, size = block.label == WHOLE, len(kept[0].x)
    # As many derivatives as samples, and half as many of the whole network: they take the time.
    most = samples // (2 * size if whole else size)
    value, error, triples = coefficient(kept, most)
    found = {"nlc": value, "nlc_error": error}
    edits = lines.inside(block)
    if not edits:
        return found
    most = (_REPLACED_WHOLE if whole else _REPLACED) // size
    found["nlc_change"], found["nlc_change_error"] = change(kept, edits, triples, most)
    names = [site.name for site in edits]
    if 1 < len(edits) <= _MOST_ALONE and not whole:
        alone = [
            change(kept, {site: line}, triples, FEWEST_KEPT)[0] for site, line in edits.items()
        ]
        return found | {"activation": names[int(np.argmax(np.abs(alone)))]}
    return found | {"activation": names[0] if len(names) == 1 else ""}


def _warn_of_disagreement(table: pd.DataFrame) -> None:
    """Warn where L of the activations misleads about their block; see `DISAGREEMENT`."""
    gap = table["r2"] - table["elementwise_L"]
    misleads = (gap > DISAGREEMENT) | ((gap < -DISAGREEMENT) & (table["vectors"] != MIXED))
    rows = table[misleads]
    if rows.empty:
        return
    shown = [
        f"{row.block!r}: R² {row.r2:.2f}, mean L {row.elementwise_L:.2f}"
        for row in rows.itertuples()
    ]
    warnings.warn(
        f"the activations inside say little about {len(rows)} of {counted(len(table), 'block')} "
        f"({listed(shown, 3, joint='; ')}): a shortcut makes a block more linear, products and "
        "normalisations less",
        BlockWarning,
        stacklevel=3,
    )
