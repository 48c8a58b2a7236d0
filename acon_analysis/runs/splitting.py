"""The variance of β layer by layer, compared with redrawn β networks in threads."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from acon_analysis.columns import SPLIT_COLUMNS, dtypes, names
from acon_analysis.runs.stored_run import StoredRun
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.statistics.redrawn_null import EmpiricalNull, drawn_rows, empirical_null
from acon_analysis.statistics.verdicts import LayerSplit

Redrawing = Callable[[], EmpiricalNull | None]


def split_layers(
    run: StoredRun, see: Callable[[BetaMatrix], object], *, draws: int, seed: int, max_samples: int
) -> pd.DataFrame:
    """Return `columns.SPLIT_COLUMNS`, one row a layer and call whose β depends on the sample.

    ``see`` is shown the β of each layer, which is read once. The rest is as for
    `Run.variance_split`; the results do not depend on the number of threads.
    """
    layers = run.per_sample_layers.to_dict("records")
    bar = tqdm(layers, desc="redrawn β", unit="layer", disable=None, leave=False)
    splits: list[LayerSplit] = []
    nulls: list[Future[EmpiricalNull | None]] = []
    threads = min(8, os.cpu_count() or 1)
    # Networks are redrawn while the next layers are read; one limit for all that run at a time.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for number, row in enumerate(bar):
            beta = run.beta(str(row["layer"]), int(row["call"]))
            if not beta.values.size:
                continue
            labels = run.labels.reindex(beta.sample_ids)
            splits.append(LayerSplit.of(beta, labels, seed + number))
            see(beta)
            redraw = _redrawing(run, beta, draws, seed + number, max_samples)
            del beta  # before the next layer is read
            if len(nulls) >= threads:
                nulls[-threads].result()
            nulls.append(pool.submit(redraw))
        rows = [split.row(null.result()) for split, null in zip(splits, nulls, strict=True)]
    return pd.DataFrame(rows, columns=names(SPLIT_COLUMNS)).astype(dtypes(SPLIT_COLUMNS))


def _redrawing(
    run: StoredRun, beta: BetaMatrix, draws: int, seed: int, max_samples: int
) -> Redrawing:
    """Return what computes the empirical null of a layer; it holds the samples drawn for it."""
    network, count = run.beta_network(beta.layer), len(beta.values)
    if not draws or network is None or count < 2:
        return lambda: None
    generator = np.random.default_rng(seed)
    rows = drawn_rows(count, max_samples, generator)
    stored = np.flatnonzero(np.isin(run.sample_ids, beta.sample_ids))[rows]
    pooled = run.pooled_matrix(beta.layer, beta.call, stored)
    if pooled is None:
        return lambda: None
    return partial(
        empirical_null,
        pooled,
        beta.values[rows],
        network,
        seed=generator,
        draws=draws,
        max_samples=max_samples,
    )
