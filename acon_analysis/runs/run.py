"""A captured run: the one object that people hold; it reads, and answers with frames."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, wraps
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError, UsageError
from acon_analysis.files import spelled
from acon_analysis.runs.splitting import split_layers
from acon_analysis.runs.stored_run import StoredRun
from acon_analysis.runs.summary import Summary
from acon_analysis.screen import counted, three_digits
from acon_analysis.statistics.batchnorm_null import null_table
from acon_analysis.statistics.beta_matrix import BetaMatrix, long_frame
from acon_analysis.statistics.beta_summary import summarize
from acon_analysis.statistics.channel_sums import ChannelSums, channel_sums
from acon_analysis.statistics.findings import Finding, findings
from acon_analysis.statistics.linearity import BY, in_order, linearity_table, totals_by_sample
from acon_analysis.statistics.sentences import left_out_text, named, sentence
from acon_analysis.store.parquet import release_memory

#: Rows of a long frame of β beyond which `Run.betas` refuses: about 0.5 GB.
MAX_ROWS = 20_000_000

#: Columns of linearity that a summary adds to those of β.
_SUMMARY = {
    "layer": ("layer", "call", "L", "L_low", "L_high", "s_max", "dead", "L_gate", "G", "why"),
    "channel": ("layer", "call", "channel", "L", "s_c", "dead", "G", "cause", "why"),
    "sample": ("layer", "call", "sample", "L", "dead", "G"),
}

#: Columns of a summary.
_SHOWN = ("layer", "call", "channels", "L", "L_low", "L_high", "L_gate", "G", "mean", "std", "kind")

P = ParamSpec("P")
SomeRun = TypeVar("SomeRun", bound="Run")


def _kept(
    method: Callable[Concatenate[SomeRun, P], pd.DataFrame],
) -> Callable[Concatenate[SomeRun, P], pd.DataFrame]:
    """Keep a method's frames in the run, by its arguments, and return copies of them."""
    signature = inspect.signature(method)

    @wraps(method)
    def answer(run: SomeRun, /, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        bound = signature.bind(run, *args, **kwargs)
        bound.apply_defaults()
        key = (method.__name__, *tuple(bound.arguments.values())[1:])
        if key not in run.answers:
            run.answers[key] = method(run, *args, **kwargs)
        return run.answers[key].copy()

    return answer


class Run(StoredRun):
    """A captured run: samples, layers, every β that was read, and how linear the layers are.

    Frames that are attributes are read once and kept, apart from `moments`: change only copies of
    them. Methods return frames of their own; what takes long to compute is computed once.

    Parameters
    ----------
    path : str or Path
        The run's folder; see `open_run`.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.answers: dict[tuple[Any, ...], pd.DataFrame] = {}

    def summary(self, *, draws: int = 99) -> Summary:
        """Return what was found, in sentences and a table with a row a layer; see `findings`.

        It prints as text; notebooks show it as HTML. ``draws`` is that of `findings`.
        """
        said = self.findings(draws=draws)  # first: β is read once for both
        found = self.summary_table()
        lost = left_out_text(self.left_out, len(self.sample_ids), self.layer_names)
        sentences = (*map(str, said), *([sentence(lost)] if lost else []))
        shown = [name for name in _SHOWN if name in found and found[name].notna().any()]
        return Summary(self._title(), sentences, found[shown], self.layer_names)

    def findings(self, *, draws: int = 99) -> list[Finding]:
        """Say what was found, each as a question, an answer and its numbers.

        Parameters
        ----------
        draws : int
            β networks redrawn for the test of β, as for `variance_split`; 0 for no word on β.

        Returns
        -------
        list of Finding
            Linearity first, then what β depends on, then what is not measured.
        """
        self.require_samples()
        pooled = bool(draws) and next(iter(self.files("pooled")), None) is not None
        classes = self.layers[["layer", "call", "kind", "class_name", "parameters", "gate_of"]]
        layers = self.linearity(columns="all").merge(classes) if self.has_moments else None
        return findings(
            layers,
            self.variance_split(draws=draws) if pooled else None,
            self.nonlinearities if self.has_census else None,
            self.layer_names,
            self.kinds,
        )

    def _title(self) -> str:
        """Name the network, and say how much was captured."""
        count, word = len(self.sample_ids), self.sample_word
        state = "" if self.complete else ", not complete"
        return (
            f"{self.network}: {counted(len(self.layers), 'layer')}, {counted(count, word)}{state}"
        )

    def _repr_html_(self) -> str:
        table = self.layers[["layer", "call", "kind", "channels"]]
        if self.has_moments:
            known = self.linearity()[["layer", "call", "L", "L_low", "L_high"]]
            table = table.merge(known, on=["layer", "call"], how="left")
        html = named(table, self.layer_names).to_html(
            index=False, border=0, max_rows=20, float_format=three_digits, na_rep=""
        )
        return spelled(f"<p><b>{escape(self._title())}</b></p>{html}")

    def plot(self, name: str | None = None, **options: Any) -> Any:
        """Draw a figure of this run.

        Parameters
        ----------
        name : str
            A figure of ``acon figures --list``, such as ``"linearity_by_depth"``; without one the
            error lists those that this run can draw.
        **options
            Arguments of the figure's function in `acon_figures`.

        Returns
        -------
        acon_figures.AconFigure
            A matplotlib Figure with its caption.

        Raises
        ------
        UsageError
            Without a name, or for an unknown one.
        AconError
            If the figure needs what the run does not hold.
        """
        return import_module("acon_figures.drawing").plot(self, name, **options)

    def report(
        self, path: str | Path, second: "Run | None" = None, *, blocks: pd.DataFrame | None = None
    ) -> Path:
        """Write the report of this run, an HTML page that needs no other file, and return its path.

        Parameters
        ----------
        path : str or Path
            The page.
        second : Run, optional
            A run to compare this one with, on the same page.
        blocks : pandas.DataFrame, optional
            From `acon_analysis.block_linearity` of this network; drawn as well.
        """
        import_module("acon_figures").write_report(self, Path(path), second=second, blocks=blocks)
        return Path(path)

    def betas(
        self, layers: str | Sequence[str] | None = None, samples: Iterable[int] | None = None
    ) -> pd.DataFrame:
        """Return β as a long frame: sample, layer, call, channel, beta.

        Parameters
        ----------
        layers : str or sequence of str, optional
            Module paths, or names that figures and tables show; by default every layer with a β.
        samples : iterable of int, optional
            sample_ids; by default all that were captured.

        Raises
        ------
        AconError
            If the frame would have more than 20 million rows.
        UsageError
            If a layer or sample is not in the run.
        """
        names = [layers] if isinstance(layers, str) else layers
        wanted = self.beta_layers if names is None else self.rows_of(names)
        rows = self._wanted_rows(samples)
        total = len(rows) * int(wanted["channels"].sum())
        if total > MAX_ROWS:
            raise AconError(
                f"betas() would have {total:,} rows, the limit is {MAX_ROWS:,}; ask for less with "
                f"betas(layers=[...], samples=[...]), or take beta_matrix(layer), or let "
                f"duckdb or polars read {str(self.path / 'betas')!r}"
            )
        ids = self.sample_ids[rows]
        frames = [
            long_frame(layer, call, ids, self.beta_matrix(layer, call)[rows])
            for layer, call in wanted[["layer", "call"]].itertuples(index=False)
        ]
        if not frames:
            raise AconError(
                f"the run {str(self.path)!r} holds no layer with a beta; linearity() covers "
                f"activations without one"
            )
        return pd.concat(frames, ignore_index=True)

    def _wanted_rows(self, samples: Iterable[int] | None) -> npt.NDArray[np.int64]:
        """Return the rows of β of some samples."""
        ids = self.sample_ids
        if samples is None:
            return np.arange(len(ids))
        chosen = np.asarray(list(samples), dtype=np.int64)
        order = np.argsort(ids)
        position = np.searchsorted(ids, chosen, sorter=order)
        found = order[np.minimum(position, len(ids) - 1)] if len(ids) else np.zeros_like(chosen)
        missing = chosen[ids[found] != chosen] if len(ids) else chosen
        if len(missing):
            first = ", ".join(str(sample) for sample in missing[:5])
            span = f"{ids.min()} to {ids.max()}" if len(ids) else "none"
            raise UsageError(f"the run holds no sample {first}; it holds {span}")
        return found

    @cached_property
    def channel_sums(self) -> ChannelSums:
        """The sums behind every table of linearity; AconError without moments."""
        found = channel_sums(self.moments, self.parameters, eps=self.rounding)
        release_memory()
        return found

    @_kept
    def linearity(
        self, by: str = "layer", *, confidence: float = 0.95, columns: str = "short"
    ) -> pd.DataFrame:
        """Tabulate how linear the activation layers are; AconError without moments.

        Parameters
        ----------
        by : {"layer", "channel", "sample"}
            What a row is.
        confidence : float
            Of the intervals; jackknife over blocks of samples.
        columns : {"short", "all"}
            ``"short"``: those to look at first, `columns.SHORT_LINEARITY`.

        Returns
        -------
        pandas.DataFrame
            All columns are `acon_analysis.columns.LINEARITY_LAYER_COLUMNS` and so on; layers in
            order of execution; definitions in `acon_analysis.statistics.linearity`.
        """
        return linearity_table(
            by,
            self.layers,
            lambda: self.channel_sums,
            lambda: totals_by_sample(
                self.part_frame("totals") if self.has_moments else self.totals,
                self.manifest.get("rows"),
            ),
            confidence=confidence,
            columns=columns,
        )

    def null_model(self, layer: str, call: int = 0) -> pd.DataFrame:
        """Compare the β of each channel with the BatchNorm-only null model.

        Returns
        -------
        pandas.DataFrame
            ``layer``, ``call`` and the columns of `acon_analysis.columns.NULL_COLUMNS`, one row a
            channel; NaN where β is not the sigmoid of a BatchNorm's output.

        Raises
        ------
        UsageError
            If the layer has no β that depends on the sample.
        """
        row = self.layer_row(layer, call)
        if not row.column:
            others = ", ".join(self.per_sample_layers["layer"].unique()) or "none"
            raise UsageError(
                f"layer {layer!r} (kind {row.kind!r}) has no β that depends on the sample: the "
                f"null model is about the others: {others}"
            )
        layer, call = row.layer, row.call
        beta = self.beta(layer, call).values
        own = self.channels_of(layer)
        if len(own) == beta.shape[1]:
            bias, weight = own["bn_bias"].to_numpy(), own["bn_weight"].to_numpy()
        else:  # one β for the whole layer
            bias = weight = np.full(beta.shape[1], np.nan)
        table = null_table(beta, bias, weight)
        table.insert(0, "layer", pd.Series([layer] * len(table), dtype="str"))
        table.insert(1, "call", call)
        return table

    @_kept
    def variance_split(
        self, *, draws: int = 99, seed: int = 0, max_samples: int = 512
    ) -> pd.DataFrame:
        """Split the variance of β into samples, channels and the rest, against the null.

        Parameters
        ----------
        draws : int
            β networks redrawn for the empirical null, at least 20, or 0 for no null. With d draws
            no p-value is below 1/(d + 1).
        seed : int
            Of their weights, and of the permutation test of the labels.
        max_samples : int
            Samples that the redrawn networks see.

        Returns
        -------
        pandas.DataFrame
            Columns of `acon_analysis.columns.SPLIT_COLUMNS`, one row a layer and call whose β
            depends on the sample; without pooled inputs the columns of the null are NaN.
        """
        return split_layers(
            self,
            lambda beta: self._layer_summary(beta.layer, beta.call, beta),
            draws=draws,
            seed=seed,
            max_samples=max_samples,
        )

    @_kept
    def beta_summary(self, by: str = "layer") -> pd.DataFrame:
        """Summarise β by layer, channel or sample; AconError if the run holds none.

        Returns
        -------
        pandas.DataFrame
            The columns of `acon_analysis.statistics.beta_summary.summarize`; by layer also
            ``kind``, ``granularity`` and ``channels`` of `layers`.
        """
        if by in BY and not self.has_beta:
            kinds = ", ".join(sorted(self.layers["kind"].unique())) or "none"
            raise AconError(
                f"the run {str(self.path)!r} holds no layer with a beta; its layers are of kind: "
                f"{kinds}"
            )
        if by != "layer":
            return summarize(self.betas_of_layers(), by)
        facts = self.beta_layers[["layer", "call", "kind", "granularity", "channels"]]
        keys = facts[["layer", "call"]].itertuples(index=False, name=None)
        rest = pd.concat([self._layer_summary(*key) for key in keys], ignore_index=True)
        rest = rest.drop(columns=["layer", "call", "channels"])
        return pd.concat([facts.reset_index(drop=True), rest], axis=1)

    def _layer_summary(self, layer: str, call: int, beta: BetaMatrix | None = None) -> pd.DataFrame:
        """Return the summary of β of one layer, which is kept; β is read where it is not given."""
        key = ("_layer_summary", layer, call)
        if key not in self.answers:
            self.answers[key] = summarize([beta or self.beta(layer, call)])
        return self.answers[key]

    def summary_table(self, by: str = "layer") -> pd.DataFrame:
        """Summarise β, and where the run holds moments the linearity of its layers.

        Returns
        -------
        pandas.DataFrame
            A row a layer, channel or sample: the columns of `beta_summary`, where there is any β,
            then those of `linearity` that matter most, with ``L_gate`` and ``G`` where some layer
            has them; NaN where a layer lacks something.

        Raises
        ------
        AconError
            If the run holds neither β nor moments.
        """
        self.require_samples()
        if not self.has_moments:
            return self.beta_summary(by)
        keys = ["layer", "call", *([] if by == "layer" else [by])]
        found = self.linearity(by, columns="all")[list(_SUMMARY.get(by, keys))]
        lacking = [name for name in ("L_gate", "G") if name in found and found[name].isna().all()]
        found = found.drop(columns=lacking)
        facts = self.layers[["layer", "call", "kind", "channels"]]
        if not self.has_beta:
            return found if by != "layer" else facts.merge(found, on=["layer", "call"], how="right")
        table = self.beta_summary(by).merge(found, on=keys, how="outer")
        if by == "layer":  # of layers without β too
            table = table.drop(columns=["kind", "channels"]).merge(facts, on=["layer", "call"])
            for position, name in ((2, "kind"), (4, "channels")):
                table.insert(position, name, table.pop(name))
        return in_order(table, self.layers, *keys[2:])


def as_run(run: Run | str | Path) -> Run:
    """Return a run as it is, or open the folder of one."""
    if isinstance(run, Run):
        return run
    if not isinstance(run, str | Path):
        raise UsageError(f"expected a Run or the folder of one; got a {type(run).__name__}")
    return open_run(run)


def open_run(path: str | Path) -> Run:
    """Open a captured run; a UsageError if the folder holds none."""
    run = Run(path)
    run.folder.read_unaltered_manifest()
    return run
