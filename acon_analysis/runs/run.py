"""A captured run, read back as frames."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acon_analysis.store.parquet import read_frame, read_lists
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.columns import ERROR_COLUMNS, LAYER_COLUMNS, SAMPLE_COLUMNS, dtypes, names
from acon_analysis.store.folder import RunFolder, StoreError

#: Rows of a long frame of β beyond which `Run.betas` refuses: about 0.5 GB.
MAX_ROWS = 20_000_000


class Run:
    """A captured run: samples, layers, and every β that was read.

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
        self.folder = RunFolder(path)
        self.manifest: dict[str, Any] = self.folder.read_manifest()
        self.folder.run_id = self.manifest.get("run_id")

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.units)} of {self._unit_count} units"
        return (
            f"Run({str(self.path)!r}: {self.manifest['identity']['model']}, "
            f"{len(self.layers)} layers, {len(self.samples)} samples, {state})"
        )

    @property
    def _unit_count(self) -> int | None:
        count: int | None = self.manifest["units"]
        return count

    @cached_property
    def units(self) -> list[int]:
        """The units that are done, in order."""
        count = self._unit_count
        return [unit for unit in self.folder.done_units() if count is None or unit < count]

    @property
    def complete(self) -> bool:
        """Whether every unit is done and the manifest is finished."""
        return bool(self.manifest["complete"])

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row an image, columns of `columns.SAMPLE_COLUMNS`."""
        path = self.path / "samples.parquet"
        return read_frame(path) if path.is_file() else self.collected_samples()

    def collected_samples(self) -> pd.DataFrame:
        """Return the sample table put together from the units, for data without a list."""
        frame = self.part_frame("samples")
        return frame if len(frame) else pd.DataFrame(columns=names(SAMPLE_COLUMNS))

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a layer and call, in order of execution, columns of `columns.LAYER_COLUMNS`."""
        frame = pd.DataFrame(self.manifest["layers"], columns=names(LAYER_COLUMNS))
        return frame.astype(dtypes(LAYER_COLUMNS))

    @cached_property
    def channels(self) -> pd.DataFrame:
        """One row a layer and channel with p1, p2, static β: `columns.CHANNEL_COLUMNS`."""
        return read_frame(self.path / "channels.parquet")

    @cached_property
    def references(self) -> pd.DataFrame:
        """One row a layer, call and channel: what its moments are taken about."""
        return read_frame(self.path / "references.parquet")

    @cached_property
    def errors(self) -> pd.DataFrame:
        """One row an image that could not be read, with the reason."""
        frame = self.part_frame("errors")
        return frame if len(frame) else pd.DataFrame(columns=names(ERROR_COLUMNS))

    @cached_property
    def sample_ids(self) -> npt.NDArray[np.int64]:
        """The samples that were captured, int64 (N,), in the order of the rows of β."""
        tables = [pq.read_table(path, columns=["sample_id"]) for path in self.files("betas")]
        if not tables:
            return np.zeros(0, dtype=np.int64)
        ids: npt.NDArray[np.int64] = pa.concat_tables(tables)["sample_id"].to_numpy()
        return ids

    def beta_matrix(self, layer: str, call: int = 0) -> npt.NDArray[np.float32]:
        """Return β of one layer.

        Parameters
        ----------
        layer : str
            Exact name in ``named_modules()``.
        call : int
            Which use of the layer within one forward pass.

        Returns
        -------
        numpy.ndarray
            float32 (samples, channels), rows as `sample_ids`; read-only where it needed no copy.
            For a layer with static β every row is the same.
        """
        row = self.layer_row(layer, call)
        if row.granularity == "static":
            own = self.channels.loc[self.channels["layer"] == layer, "beta"]
            beta = own.to_numpy(dtype=np.float32)
            return np.broadcast_to(beta, (len(self.sample_ids), len(beta)))
        if not row.column:
            raise UsageError(f"layer {layer!r} is of kind {row.kind!r}, which has no beta")
        found = self._matrix("betas", str(row.column))
        return np.zeros((0, int(row.channels)), dtype=np.float32) if found is None else found

    def pooled_matrix(self, layer: str, call: int = 0) -> npt.NDArray[np.float32] | None:
        """Return the pooled inputs of one layer.

        Parameters
        ----------
        layer : str
            Exact name in ``named_modules()``.
        call : int
            Which use of the layer within one forward pass.

        Returns
        -------
        numpy.ndarray or None
            Means of the inputs over the pixels, float32 (samples, channels), rows as `sample_ids`;
            None where they were not captured (no moments, or β is not one number a channel).
        """
        row = self.layer_row(layer, call)
        return self._matrix("pooled", str(row.column)) if row.column else None

    def _matrix(self, kind: str, column: str) -> npt.NDArray[np.float32] | None:
        return read_lists(list(self.files(kind)), column)

    def histograms(self, layer: str | None = None, *, by: str = "layer") -> pd.DataFrame:
        """Return counts of β in 256 bins from 0 to 1, summed while capturing.

        No value of β is read for it: all layers of a million images take well under a second.

        Parameters
        ----------
        layer : str, optional
            Exact name; by default every layer whose β depends on the sample.
        by : {"layer", "channel"}
            What each row is.

        Returns
        -------
        pandas.DataFrame
            Columns of `columns.HISTOGRAM_COLUMNS`; ``count`` holds arrays, int64 (256,), between
            the edges `histograms.bin_edges`.

        Raises
        ------
        UsageError
            If the layer is not in the run, or its β is static.
        """
        if by not in ("layer", "channel"):
            raise UsageError(f"by: {closest(by, ('layer', 'channel'))} (given: {by!r})")
        if layer is not None and not self.layer_row(layer, 0).column:
            raise UsageError(f"layer {layer!r} has the same beta for all samples: see channels")
        from acon_analysis.store.histograms import histogram_frame

        whole = self.path / "histograms.parquet"
        finished = self.complete and whole.name in self.manifest.get("tables", {})
        table = pq.read_table(whole) if finished and whole.is_file() else self.histogram_table()
        frame = histogram_frame(table, by_channel=by == "channel")
        if layer is not None:
            frame = frame[frame["layer"] == layer].reset_index(drop=True)
        return frame

    def histogram_table(self) -> pa.Table | None:
        """Return the sum of the units' counts, a row a channel; None if there are none."""
        from acon_analysis.store.histograms import merged

        return merged(pq.read_table(path) for path in self.files("histograms"))

    def betas(
        self, layers: str | Sequence[str] | None = None, samples: Iterable[int] | None = None
    ) -> pd.DataFrame:
        """Return β as a long frame: sample, layer, call, channel, beta.

        Parameters
        ----------
        layers : str or sequence of str, optional
            Exact names; by default every layer with a β.
        samples : iterable of int, optional
            sample_ids; by default all that were captured.

        Raises
        ------
        AconError
            If the frame would have more than 20 million rows.
        UsageError
            If a layer or sample is not in the run.
        """
        wanted = self._wanted_layers(layers)
        rows = self._wanted_rows(samples)
        total = len(rows) * int(wanted["channels"].sum())
        if total > MAX_ROWS:
            raise AconError(
                f"betas() would have {total:,} rows, the limit is {MAX_ROWS:,}; ask for less with "
                f"betas(layers=[...], samples=[...]), or take beta_matrix(layer), or let "
                f"duckdb or polars read {str(self.path / 'betas')!r}"
            )
        ids = self.sample_ids[rows]
        frames = []
        for row in wanted.to_dict("records"):
            matrix = self.beta_matrix(row["layer"], row["call"])[rows]
            count, width = matrix.shape
            frames.append(
                pd.DataFrame(
                    {
                        "sample": np.repeat(ids, width),
                        "layer": pd.Series(row["layer"], index=range(count * width), dtype="str"),
                        "call": np.full(count * width, row["call"], dtype=np.int64),
                        "channel": np.tile(np.arange(width, dtype=np.int64), count),
                        "beta": matrix.reshape(-1),
                    }
                )
            )
        if not frames:
            raise AconError(
                f"the run {str(self.path)!r} holds no layer with a beta; linearity() tells of "
                f"activations without one"
            )
        return pd.concat(frames, ignore_index=True)

    def layer_row(self, layer: str, call: int = 0) -> Any:
        """Return the row of `layers` of one layer and call; an error names what comes close."""
        own = self.layers[self.layers["layer"] == layer]
        if own.empty:
            options = self.layers["layer"].unique()
            raise UsageError(f"the run holds no layer {layer!r}; {closest(layer, options)}")
        own = own[own["call"] == call]
        if own.empty:
            raise UsageError(f"layer {layer!r} was not called {call + 1} times in a forward pass")
        return next(own.itertuples(index=False))

    def _wanted_layers(self, layers: str | Sequence[str] | None) -> pd.DataFrame:
        table = self.layers
        if layers is None:
            return table[(table["column"] != "") | (table["granularity"] == "static")]
        chosen = [layers] if isinstance(layers, str) else list(layers)
        for layer in chosen:
            self.layer_row(layer, 0)
        return table[table["layer"].isin(chosen)]

    def _wanted_rows(self, samples: Iterable[int] | None) -> npt.NDArray[np.int64]:
        ids = self.sample_ids
        if samples is None:
            return np.arange(len(ids))
        chosen = np.asarray(list(samples), dtype=np.int64)
        order = np.argsort(ids)
        place = np.searchsorted(ids, chosen, sorter=order)
        found = order[np.minimum(place, len(ids) - 1)] if len(ids) else np.zeros_like(chosen)
        missing = chosen[ids[found] != chosen] if len(ids) else chosen
        if len(missing):
            first = ", ".join(str(sample) for sample in missing[:5])
            span = f"{ids.min()} to {ids.max()}" if len(ids) else "none"
            raise UsageError(f"the run holds no sample {first}; it holds {span}")
        return found

    def files(self, kind: str) -> Iterator[Path]:
        """Yield the parts of a kind, of the units that are done, in order."""
        for unit in self.units:
            parts = self.folder.unit_parts(unit) or {}
            path = self.folder.part(kind, unit)
            if f"{kind}/{path.name}" in parts:
                if not path.is_file():
                    raise StoreError(f"{str(path)!r} is missing; `acon verify` tells what else is")
                yield path

    def part_frames(self, kind: str) -> Iterator[pd.DataFrame]:
        """Yield a kind's parts, unit by unit."""
        return (read_frame(path) for path in self.files(kind))

    def part_frame(self, kind: str) -> pd.DataFrame:
        """Return all parts of a kind in one frame; without columns where there are none."""
        frames = list(self.part_frames(kind))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def linearity(self, by: str = "layer", *, confidence: float = 0.95) -> pd.DataFrame:
        """Tabulate how linear the activation layers are, with intervals.

        Parameters
        ----------
        by : {"layer", "channel", "sample"}
            What a row is.
        confidence : float
            Of the intervals.

        Returns
        -------
        pandas.DataFrame
            Columns of `acon_analysis.columns.LINEARITY_LAYER_COLUMNS` and so on; definitions in `acon_analysis.statistics.linearity`.

        Raises
        ------
        AconError
            If the run was captured without moments.
        """
        from acon_analysis.runs.run_statistics import linearity_table

        return linearity_table(self, by, confidence=confidence)

    def null_model(self, layer: str, call: int = 0) -> pd.DataFrame:
        """Set each channel's β against what BatchNorm alone makes of it.

        Returns
        -------
        pandas.DataFrame
            ``layer``, ``call`` and the columns of `acon_analysis.columns.NULL_COLUMNS`, one row
            a channel; see `acon_analysis.runs.run_statistics.null_frame`.
        """
        from acon_analysis.runs.run_statistics import null_frame

        return null_frame(self, layer, call)

    def variance_split(self, *, draws: int = 99, seed: int = 0) -> pd.DataFrame:
        """Split the variance of β into samples, channels and the rest, against the null.

        Parameters
        ----------
        draws : int
            β networks redrawn for the empirical null, at least 20.
        seed : int
            Of their weights.

        Returns
        -------
        pandas.DataFrame
            Columns of `acon_analysis.columns.SPLIT_COLUMNS`, one row a layer and call.
        """
        from acon_analysis.runs.run_statistics import split_table

        return split_table(self, draws=draws, seed=seed)


def open_run(path: str | Path) -> Run:
    """Open a captured run.

    Parameters
    ----------
    path : str or Path
        Its folder.
    """
    return Run(path)
