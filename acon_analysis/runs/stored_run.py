"""What a run's folder holds, read when it is asked for and kept."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from acon_analysis.columns import (
    ERROR_COLUMNS,
    MOMENT_KEY_COLUMNS,
    NONLINEARITY_COLUMNS,
    SAMPLE_COLUMNS,
    Column,
    dtypes,
    names,
)
from acon_analysis.errors import AconError, StoreError, UsageError, closest
from acon_analysis.files import spelled
from acon_analysis.moments.fields import FEWEST_BLOCKS, MOST_BLOCKS, UNRECORDED_BLOCKS
from acon_analysis.moments.frames import MergedRows
from acon_analysis.runs.described_run import DescribedRun
from acon_analysis.screen import counted
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.statistics.linearity import in_order
from acon_analysis.statistics.redrawn_null import BetaNetwork
from acon_analysis.statistics.sentences import NOT_FINITE, ONLY_PADDING
from acon_analysis.store.histograms import histogram_frame, merged
from acon_analysis.store.parquet import ListColumns, release_memory
from acon_analysis.store.tables import stored_frame, stored_parts, stored_table

#: File of the census.
CENSUS = "nonlinearities.parquet"

#: Bytes of β that a run keeps in memory, of the layers read last.
KEPT_BYTES = 2**26


class StoredRun(DescribedRun):
    """The stored tables of a captured run.

    Frames are read once and kept, apart from `moments`: change only copies of them.

    Parameters
    ----------
    path : str or Path
        The run's folder, as `capture` wrote it. Nothing is read before it is asked for.

    Raises
    ------
    UsageError
        If the folder does not exist or holds no run.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._betas: dict[str, npt.NDArray[np.float32]] = {}  # by column, the last one at the end
        self._lists: dict[str, ListColumns] = {}

    def __repr__(self) -> str:
        units = f"{len(self.units)} of {self._unit_count} units"
        layers, samples = counted(len(self.layers), "layer"), counted(len(self.samples), "sample")
        state = "complete" if self.complete else units
        return f"Run({str(self.path)!r}: {self.model}, {layers}, {samples}, {state})"

    @property
    def data_words(self) -> str:
        """The data in a few words, such as "500 images of digits (test)"."""
        words = counted(len(self.sample_ids), self.sample_word)
        name, colon, split = self.data_name.partition(":")
        if name.endswith(".py"):
            name, split = f"{name}{colon}{split}", ""
        return spelled(words + (f" of {name}" if name else "") + (f" ({split})" if split else ""))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row an image, columns of `columns.SAMPLE_COLUMNS`."""
        path = self.path / "samples.parquet"
        return stored_frame(path, "samples") if path.is_file() else self.collected_samples()

    def collected_samples(self) -> pd.DataFrame:
        """Return the sample table put together from the units, for data without a list."""
        return self.part_frame("samples", SAMPLE_COLUMNS)

    @cached_property
    def sample_ids(self) -> npt.NDArray[np.int64]:
        """The samples that were captured, int64 (N,), in the order of the rows of β."""
        tables = (stored_table(path, "betas", ["sample_id"]) for path in self.files("betas"))
        parts = [table["sample_id"].to_numpy().astype(np.int64) for table in tables]
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        if len(np.unique(ids)) < len(ids):
            raise StoreError(f"two parts of {str(self.path / 'betas')!r} hold the same samples")
        return ids

    def require_samples(self) -> None:
        """Raise an AconError if no sample has been captured."""
        if not len(self.sample_ids):
            bad = f" ({len(self.errors)} could not be read)" if len(self.errors) else ""
            raise AconError(
                f"the run {str(self.path)!r} holds no finished {self.sample_word}s yet{bad}; run "
                "the same capture command again, then this one"
            )

    @cached_property
    def labels(self) -> "pd.Series[Any]":
        """The class of every captured sample, by sample_id as `sample_ids`; missing without one."""
        return self.samples.set_index("sample_id")["label"].reindex(self.sample_ids)

    @property
    def has_census(self) -> bool:
        """Whether the operators of the network were counted; older runs lack it."""
        return (self.path / CENSUS).is_file()

    @cached_property
    def nonlinearities(self) -> pd.DataFrame:
        """The census of the first batch, `columns.NONLINEARITY_COLUMNS`; AconError without any."""
        if not self.has_census:
            raise AconError(
                f"the run {str(self.path)!r} holds no census of the network's operators: it was "
                "captured by an earlier version; capture again, or see acon.nonlinearities"
            )
        return stored_frame(self.path / CENSUS, "nonlinearities").astype(
            dtypes(NONLINEARITY_COLUMNS)
        )

    @cached_property
    def channels(self) -> pd.DataFrame:
        """One row a layer and channel with p1, p2, static β: `columns.CHANNEL_COLUMNS`."""
        return stored_frame(self.path / "channels.parquet", "channels")

    def channels_of(self, layer: str) -> pd.DataFrame:
        """Return the rows of `channels` of one layer; none where it has no such channels."""
        return self.channels.take(self._channel_rows.get(self.layer_key(layer)[0], []))

    @cached_property
    def _channel_rows(self) -> dict[Any, Any]:
        """The positions of each layer's rows in `channels`."""
        return dict(self.channels.groupby("layer").indices)

    @cached_property
    def references(self) -> pd.DataFrame:
        """One row a layer, call and channel: what its moments are taken about."""
        return stored_frame(self.path / "references.parquet", "references")

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """`channels` with the reference β, one row a layer, call and channel; needs moments."""
        references = self.references[["layer", "call", "channel", "beta_reference"]]
        return references.merge(self.channels, on=["layer", "channel"], how="left")

    @cached_property
    def left_out(self) -> pd.DataFrame:
        """Samples that the statistics of a layer leave out.

        One row a ``sample``, ``layer`` and ``call``, with ``why``: NaN or infinity in the layer, or
        nothing but padding; layers in order of execution.
        """
        keys = ["sample", "layer", "call"]
        found = []
        for path in self.files("totals"):
            table = stored_table(path, "totals", [*keys, "cyy", "n"])
            lost = table.filter(pc.is_null(table["cyy"], nan_is_null=True)).to_pandas()
            lost["why"] = np.where(lost["n"] == 0, ONLY_PADDING, NOT_FINITE)
            found.append(lost[[*keys, "why"]])
        counts = self.histogram_table()
        if counts is not None:
            outside = (counts[name].to_numpy() for name in ("below", "above", "invalid"))
            suspects = counts.select(["layer", "call"]).filter(pa.array(sum(outside) > 0))
            for layer, call in suspects.to_pandas().drop_duplicates().itertuples(index=False):
                kept = self.beta(layer, call).sample_ids
                lost = np.setdiff1d(self.sample_ids, kept)
                at = {"layer": layer, "call": call, "why": NOT_FINITE}
                found.append(pd.DataFrame({"sample": lost, **at}))
        table = pd.concat([pd.DataFrame(columns=[*keys, "why"]), *found]).drop_duplicates(keys)
        kinds = {"sample": "int64", "layer": "str", "call": "int64", "why": "str"}
        return in_order(table.astype(kinds), self.layers, "sample")

    @cached_property
    def errors(self) -> pd.DataFrame:
        """One row an image that could not be read, with the reason."""
        return self.part_frame("errors", ERROR_COLUMNS)

    def beta(self, layer: str, call: int = 0) -> BetaMatrix:
        """Return β of one layer with its name and the samples' ids.

        Samples with NaN or infinity among their β are left out (`beta_matrix` holds them).
        """
        layer, call = self.layer_key(layer, call)
        values, ids = self.beta_matrix(layer, call), self.sample_ids
        found = BetaMatrix(layer, call, ids, values, name=self.layer_names[layer, call])
        finite = np.isfinite(found.sample_means)
        if finite.all():
            return found
        return replace(found, sample_ids=ids[finite], values=values[finite])

    def betas_of_layers(self) -> Iterator[BetaMatrix]:
        """Yield `beta` of every layer that has one, in order of execution, each when it is due."""
        for key in self.beta_layers[["layer", "call"]].itertuples(index=False, name=None):
            yield self.beta(*key)

    def beta_matrix(self, layer: str, call: int = 0) -> npt.NDArray[np.float32]:
        """Return β of one layer.

        Returns
        -------
        numpy.ndarray
            float32 (samples, channels), rows as `sample_ids`; read-only. For a layer with static
            β every row is the same.
        """
        row = self.layer_row(layer, call)
        if row.granularity == "static":
            beta = self.channels_of(layer)["beta"].to_numpy(dtype=np.float32)
            return np.broadcast_to(beta, (len(self.sample_ids), len(beta)))
        if not row.column:
            raise UsageError(f"layer {layer!r} is of kind {row.kind!r}, which has no beta")
        found = self._betas.pop(str(row.column), None)
        if found is None:
            self._forget_betas(KEPT_BYTES - 4 * len(self.sample_ids) * int(row.channels))
            found = self._matrix("betas", str(row.column))
            if found is None and len(self.sample_ids):
                raise StoreError(f"{str(self.path / 'betas')!r} lacks the column {row.column!r}")
            if found is None:
                return np.zeros((0, int(row.channels)), dtype=np.float32)
            found.flags.writeable = False
        self._betas[str(row.column)] = found
        self._forget_betas(KEPT_BYTES)
        return found

    def _forget_betas(self, most: int) -> None:
        """Keep at most N bytes of β, of the layers that were read last."""
        while self._betas and sum(values.nbytes for values in self._betas.values()) > most:
            del self._betas[next(iter(self._betas))]

    def pooled_matrix(
        self, layer: str, call: int = 0, rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32] | None:
        """Return the pooled inputs of one layer: their means over the pixels.

        Parameters
        ----------
        layer, call : str, int
            The layer.
        rows : ndarray, optional
            Positions in `sample_ids`, int64, ascending; by default all.

        Returns
        -------
        numpy.ndarray or None
            float32 (samples, channels), rows as `sample_ids`; None where they were not captured (no
            moments, or β is not one number a channel).
        """
        row = self.layer_row(layer, call)
        return self._matrix("pooled", str(row.column), rows) if row.column else None

    def _matrix(
        self, kind: str, column: str, rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32] | None:
        """Return a column of lists as a matrix (samples, channels); None without parts."""
        if kind not in self._lists:
            self._lists[kind] = ListColumns(list(self.files(kind)))
        parts = self._lists[kind]
        if parts.paths and parts.rows != len(self.sample_ids):
            raise StoreError(
                f"the parts of {str(self.path / kind)!r} hold {counted(parts.rows, 'row')} for "
                f"{counted(len(self.sample_ids), 'sample')}"
            )
        return parts.read(column, rows)

    def beta_network(self, layer: str) -> BetaNetwork | None:
        """Return the shape of a layer's β network; None where it is of another build."""
        facts = self.manifest.get("beta_networks", {}).get(self.layer_key(layer)[0])
        if facts is None:
            return None
        own = self.channels_of(layer)
        scale, shift = (own[name].to_numpy(dtype=np.float64) for name in ("bn_weight", "bn_bias"))
        return BetaNetwork(
            hidden=int(facts["hidden"]),
            bn_weight=scale if facts["norm"] else None,
            bn_bias=shift if facts["norm"] else None,
            inner_norm=bool(facts["inner_norm"]),
            relu=bool(facts["relu"]),
            eps=float(facts["eps"]),
        )

    @property
    def has_moments(self) -> bool:
        """Whether the run was captured with moments, and has any."""
        return next(self.files("moments"), None) is not None

    @property
    def moments(self) -> pd.DataFrame:
        """Moments of all units merged, `fields.MOMENT_COLUMNS`; AconError without any.

        They are large, so that they are not kept: they are read again each time.
        """
        merged, keys = MergedRows(), names(MOMENT_KEY_COLUMNS)
        for path in self.files("moments"):
            own = stored_frame(path, "moments", keys)
            self._require_known(path, own)
            merged.add(own, stored_parts(path, "moments"))
        release_memory()
        return self._required(merged.frame())

    @property
    def moment_blocks(self) -> int:
        """The number of blocks of samples that moments are kept in; 100 where not recorded."""
        options = self.identity.get("moments")
        found = (options if isinstance(options, dict) else {}).get("blocks", UNRECORDED_BLOCKS)
        if not isinstance(found, int) or not FEWEST_BLOCKS <= found <= MOST_BLOCKS:
            raise AconError(
                f"the manifest of the run {str(self.path)!r} gives {found!r} as the number of "
                f"blocks of its moments; expected {FEWEST_BLOCKS} to {MOST_BLOCKS}"
            )
        return found

    @property
    def totals(self) -> pd.DataFrame:
        """Sums of every sample and layer, `columns.TOTAL_COLUMNS`; AconError without moments."""
        return self._required(self.part_frame("totals"))

    def _required(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a frame of moments, or say why there is none."""
        if frame.empty:
            if self.identity.get("moments") and len(self.sample_ids):
                raise AconError(f"the mask of the run {str(self.path)!r} leaves no position")
            raise AconError(
                f"the run {str(self.path)!r} holds no moments; capture it again with --moments "
                "(moments=True) into another folder"
            )
        return frame

    def histograms(self, layer: str | None = None, *, by: str = "layer") -> pd.DataFrame:
        """Return counts of β in 256 bins from 0 to 1, summed while capturing.

        No value of β is read for it: all layers of a million images take well under a second.

        Parameters
        ----------
        layer : str, optional
            By default every layer whose β depends on the sample; another one is a UsageError.
        by : {"layer", "channel"}
            What each row is.

        Returns
        -------
        pandas.DataFrame
            Columns of `columns.HISTOGRAM_COLUMNS`; ``count`` holds arrays, int64 (256,), between
            the edges `histograms.bin_edges`.
        """
        if by not in ("layer", "channel"):
            raise UsageError(f"by: {closest(by, ('layer', 'channel'))} (given: {by!r})")
        if layer is not None and not self.layer_row(layer).column:
            raise UsageError(f"layer {layer!r} has the same beta for all samples: see channels")
        whole = self.path / "histograms.parquet"
        finished = self.complete and whole.name in self.manifest.get("tables", {})
        given = finished and whole.is_file()
        table = stored_table(whole, "histograms") if given else self.histogram_table()
        frame = histogram_frame(table, by_channel=by == "channel")
        if layer is not None:
            frame = frame.merge(self.rows_of([layer])[["layer", "call"]])
        return frame

    def histogram_table(self) -> pa.Table | None:
        """Return the sum of the units' counts, a row a channel; None if there are none."""
        return merged((path, stored_table(path, "histograms")) for path in self.files("histograms"))

    def part_frames(self, kind: str) -> Iterator[pd.DataFrame]:
        """Yield a kind's parts, unit by unit."""
        for path in self.files(kind):
            frame = stored_frame(path, kind)
            if {"layer", "call"} <= set(frame):
                self._require_known(path, frame)
            yield frame

    def _require_known(self, path: Path, frame: pd.DataFrame) -> None:
        """Raise StoreError unless the manifest names all layers and calls of a part."""
        pairs = frame[["layer", "call"]]
        changes = (pairs != pairs.shift()).any(axis=1)  # of hundred thousands of rows some dozens
        for layer, call in pairs[changes].drop_duplicates().itertuples(index=False):
            if (layer, call) not in self._layer_rows:
                text = f"the run has no layer {layer!r}, call {call}"
                raise StoreError(f"{str(path)!r} cannot be used: {text}")

    def part_frame(self, kind: str, columns: Sequence[Column] = ()) -> pd.DataFrame:
        """Return all parts of a kind in one frame; with these columns where there are none."""
        none = pd.DataFrame(columns=names(columns))
        return pd.concat([*self.part_frames(kind)] or [none], ignore_index=True)
