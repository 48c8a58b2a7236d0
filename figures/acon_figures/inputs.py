"""What measured figures draw: frames and matrices of captured runs and the package's logs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis.plotdata.channels import channel_facts
from acon_analysis.plotdata.depth import linearity_by_depth
from acon_analysis.plotdata.drawn import drawn_layers, drawn_text
from acon_analysis.plotdata.networks import network_names
from acon_analysis.plotdata.sample_spread import sample_spread
from acon_analysis.runs.run import Run
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.statistics.sentences import left_out_text
from acon_analysis.studies import results
from acon_analysis.training.logs import logged_data, training_logs
from acon_figures.spec import FigureSpec

Sources = Mapping[str, Callable[[Run], Any]]
"""What runs do not hold, by the inputs' names: each takes a run, and returns None for nothing."""

MOST_NETWORKS = 12
"""As many as `linearity_by_depth` can distinguish."""

_KEYS = ["layer", "call"]


class Inputs:
    """The inputs of figures, each made from captured runs when a figure asks for it.

    Nothing is kept but the facts of the channels, which several figures draw. Figures of a single
    run are of ``main``, the first with β per sample. ``sources`` give what a run does not hold
    itself, such as its images; they are asked for the main run, or for the first if none is the
    main one. Where a ``layer`` is asked for, figures of one layer are of this one, not of the last
    with β per sample, by default in its last ``call``, and its channels are among those drawn.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        sources: Sources | None = None,
        layer: str | None = None,
        call: int | None = None,
    ) -> None:
        self.runs, self.sources, self.layer, self.call = list(runs), sources or {}, layer, call
        self.main = next((run for run in runs if _main_layer(run) is not None), None)
        self._facts: dict[Run, pd.DataFrame] = {}
        self._names = dict(zip(self.runs, network_names(self.runs), strict=True))

    def of(self, spec: FigureSpec) -> dict[str, Any]:
        """Return what there is of a figure's inputs, by the names of `FigureSpec.frames`."""
        made = {name: self.get(name, spec) for name in spec.frames}
        return {name: found for name, found in made.items() if found is not None}

    def get(self, name: str, spec: FigureSpec | None = None) -> Any:
        """Make one input for a figure; None where no run has it, or it is empty.

        It is named in `sources` or `PROVIDES`, or is a function of the figure's own file that takes
        the runs.
        """
        if name in self.sources:
            asked = self.main or next(iter(self.runs), None)
            found = None if asked is None else self.sources[name](asked)
        elif name in PROVIDES:
            found = PROVIDES[name](self)
        else:
            own = None if spec is None else spec.own(name)
            found = None if own is None else own(self.runs)
        size = found.values if isinstance(found, BetaMatrix) else found
        return found if size is not None and len(size) else None

    def left_out(self, spec: FigureSpec) -> str:
        """Return sentences on the layers and samples that a figure of these runs leaves out."""
        runs = self.runs if set(spec.frames) - SHIPPED else []
        texts = [] if spec.one_layer else self._drawn(set(spec.frames))
        texts += [
            (run, left_out_text(run.left_out, len(run.sample_ids), run.layer_names)) for run in runs
        ]
        several = len(runs) > 1
        said = [f"{self._names[run]}: {text}" if several else text for run, text in texts if text]
        return "; ".join(said) + "." if said else ""

    def _drawn(self, frames: set[str]) -> list[tuple[Run, str]]:
        """Say of which layers of each run the numbers of a figure of these inputs are."""
        texts = [(run, drawn_text(run)) for run in self.runs if frames & OF_LAYERS]
        if "depth" in frames and (runs := _depth_runs(self.runs)):
            common = _depth_layers(runs)
            texts = [(run, drawn_text(run, run.layers.merge(common))) for run in runs]
        return [(run, f"{text}; all counts and ranks are of these") for run, text in texts if text]

    def later(self) -> Iterator["Inputs"]:
        """Yield the inputs of ever fewer runs: those from the next main run on."""
        for number, run in enumerate(self.runs[1:], 1):
            if _main_layer(run) is not None:
                found = Inputs(self.runs[number:], self.sources, self.layer, self.call)
                found._facts, found._names = self._facts, self._names
                yield found

    def subject(self, spec: FigureSpec) -> str:
        """Name the network and the data of a figure whose inputs do not name them."""
        asked = self.main or next(iter(self.runs), None)
        taken = {"frame", "null_table", "explained"} & set(spec.frames)
        return f"{asked.network} on {asked.data_words}" if asked and taken else ""

    def facts(self, run: Run) -> pd.DataFrame:
        """Return the facts of the channels of a run's drawn layers; they are kept."""
        if run not in self._facts:
            asked = run.layers[run.layers["layer"] == self.layer]
            layers = pd.concat([drawn_layers(run), asked]).drop_duplicates()
            facts = channel_facts([run], layers)
            self._facts[run] = facts.assign(network=self._names[run])
        return self._facts[run]


def _main_layer(run: Run) -> str | None:
    """Return the last layer whose β depends on the sample."""
    own = run.per_sample_layers
    return None if own.empty else str(own["layer"].iloc[-1])


def _betas(inputs: Inputs) -> BetaMatrix | None:
    """Return β of the layer that is asked for, by default the main run's last Meta-ACON layer."""
    if inputs.main is None:
        return None
    layer = inputs.layer or str(_main_layer(inputs.main))
    calls = inputs.main.layers.loc[inputs.main.layers["layer"] == layer, "call"]
    last = inputs.call is None and len(calls)
    return inputs.main.beta(layer, int(calls.iloc[-1]) if last else inputs.call or 0)


def _static_betas(inputs: Inputs) -> pd.DataFrame | None:
    """Return layer, channel, β of the first run with static β, in layers as the main run's."""
    main = inputs.main and (inputs.layer or _main_layer(inputs.main))
    fitting = (run for run in inputs.runs if main is None or main in set(run.layers["layer"]))
    tables = (run.channels.dropna(subset=["beta"]) for run in fitting)
    own = next((table for table in tables if len(table)), None)
    return None if own is None else own[["layer", "channel", "beta"]]


def _batch_norms(run: Run, layer: str | None = None) -> pd.DataFrame | None:
    """Return layer, channel and BatchNorm's scale and shift, where a layer, the last, has them."""
    own = run.channels.dropna(subset=["bn_weight"])
    if (layer or _main_layer(run)) not in set(own["layer"]):
        return None
    return own[["layer", "channel", "bn_weight", "bn_bias"]]


def _channel_null(run: Run) -> pd.DataFrame | None:
    """Compare β of every channel of the last Meta-ACON layer with BatchNorm's null model."""
    layer = _main_layer(run)
    known = layer is not None and _batch_norms(run) is not None and len(run.sample_ids)
    return run.null_model(str(layer)).merge(_classes(run), on=_KEYS) if known else None


def _mean_betas(run: Run) -> pd.DataFrame:
    """Return each sample's mean β over the channels of the last Meta-ACON layer."""
    beta = run.beta(str(_main_layer(run)))
    means = beta.values.mean(axis=1, dtype=np.float64)
    return pd.DataFrame({"sample": beta.sample_ids, "beta": means})


def _acon_facts(inputs: Inputs, run: Run) -> pd.DataFrame:
    """Return the facts of a run's channels that have p1, p2 and β."""
    return inputs.facts(run).dropna(subset=["p1", "p2", "beta_middle"])


def _acon_channels(inputs: Inputs) -> pd.DataFrame | None:
    """Return the facts of the channels of all runs that have p1, p2 and β."""
    tables = [_acon_facts(inputs, run) for run in inputs.runs if run.has_moments]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else None


def _every_channel(inputs: Inputs) -> pd.DataFrame | None:
    """Return the facts of all channels of the first run without β, or else of the first run."""
    runs = sorted((run for run in inputs.runs if run.has_moments), key=lambda run: run.has_beta)
    return inputs.facts(runs[0]) if runs else None


def _depth_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the first run with moments and those that share its layers."""
    fitting: list[Run] = []
    common: set[tuple[str, int]] = set()
    for run in runs:
        own = set(zip(run.layers["layer"], run.layers["call"], strict=True))
        if run.has_moments and len(fitting) < MOST_NETWORKS and (not fitting or common & own):
            common = common & own if fitting else own
            fitting.append(run)
    return fitting


def _depth_layers(runs: Sequence[Run]) -> pd.DataFrame:
    """Return layer and call of what is drawn of any of these runs."""
    return pd.concat([drawn_layers(run)[_KEYS] for run in runs]).drop_duplicates()


def _sample_spread(inputs: Inputs) -> pd.DataFrame | None:
    """Return how L of the samples spreads in the run of `_every_channel`."""
    runs = sorted((run for run in inputs.runs if run.has_moments), key=lambda run: run.has_beta)
    return sample_spread(runs[0]).merge(drawn_layers(runs[0])[_KEYS], on=_KEYS) if runs else None


def _depth_of_all(inputs: Inputs) -> pd.DataFrame:
    """Return the measures by depth of the first run and of those that share its layers."""
    runs = _depth_runs(inputs.runs)
    depth = linearity_by_depth(runs)
    return depth.merge(_depth_layers(runs), on=_KEYS) if runs else depth


def _classes(run: Run) -> pd.DataFrame:
    """Return the class of every layer and call."""
    return run.layers[[*_KEYS, "class_name"]]


def _drawn_splits(run: Run) -> pd.DataFrame:
    """Return how β of a run's drawn layers splits."""
    return run.variance_split().merge(drawn_layers(run)[_KEYS], on=_KEYS).merge(_classes(run))


def _shipped_logs(inputs: Inputs) -> pd.DataFrame:
    """Return the logs of the shipped networks of the first run's data, or else of the digits."""
    named = (run.model.partition("_")[0] for run in inputs.runs)
    return training_logs(next((name for name in named if name in logged_data()), "digits"))


def _shipped_table(name: str, **more: str) -> Callable[[Inputs], pd.DataFrame | None]:
    """Return what reads a table of `studies.results`, where there is one, with more columns."""
    return lambda _inputs: (
        results.table(name).assign(**more) if name in results.available() else None
    )


def _of_main(make: Callable[[Run], Any]) -> Callable[[Inputs], Any]:
    """Return what makes an input of the main run, where there is one."""
    return lambda inputs: None if inputs.main is None else make(inputs.main)


#: What makes each input, by the figures' argument names; it may return None for nothing.
PROVIDES: Mapping[str, Callable[[Inputs], Any]] = {
    "frame": _betas,
    "null": lambda inputs: None if inputs.main is None else _batch_norms(inputs.main, inputs.layer),
    "labels": _of_main(lambda run: run.labels.dropna()),
    "null_table": _of_main(_channel_null),
    "sample_means": _of_main(_mean_betas),
    "splits": _of_main(_drawn_splits),
    "own_channels": lambda inputs: (
        None if inputs.main is None else _acon_facts(inputs, inputs.main)
    ),
    "channels": _acon_channels,
    "every_channel": _every_channel,
    "static": _static_betas,
    "depth": _depth_of_all,
    "spread": _sample_spread,
    "training": _shipped_logs,
    "damage": _shipped_table("replacement_damage"),
    "gates": _shipped_table("gate_use"),
    "forms": _shipped_table("replacement_forms"),
    "epochs": _shipped_table("beta_over_epochs", data="cifar10"),
}

#: Inputs that hold the layers of a run one by one, of very many those that are drawn.
OF_LAYERS = {"depth", "channels", "every_channel", "spread", "splits"}

#: Inputs that no captured run has a part in.
SHIPPED = {"training", "damage", "epochs", "gates", "blocks", "forms"}

#: What the inputs are, for people who lack them.
IN_WORDS = {
    "frame": "β per sample (a Meta-ACON layer)",
    "training": "training curves",
    "depth": "an activation layer captured with moments",
    "spread": "an activation layer with at least 3 values a sample, captured with moments",
    "null_table": "a Meta-ACON layer with BatchNorm",
    "sample_means": "β per sample (a Meta-ACON layer)",
    "splits": "a Meta-ACON layer captured with moments",
    "channels": "an ACON layer captured with moments",
    "every_channel": "an activation layer captured with moments",
    "own_channels": "a Meta-ACON layer captured with moments",
    "blocks": "shipped weights and their data (others: acon blocks)",
    "explained": "a Meta-ACON layer and shipped weights (others: acon explain)",
    "damage": "the table of replaced channels",
    "gates": "the table of interventions on gates",
    "forms": "the table of replaced activations",
    "epochs": "the table of β over epochs",
}
