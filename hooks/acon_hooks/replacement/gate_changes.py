"""Does a network use its gates? What becomes of its loss when they no longer depend on the sample.

Mean ablation, the comparison of every gate held at its channel's mean with the unchanged network,
asks whether the *variation* is used. Resampling doubles the variance of the perturbation and pairs
a sample with a foreign gate: it shows what later layers have adapted to. The constant asks for the
level as well: "level" compares it with the mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import nn

from acon_analysis.columns import GATE_COLUMNS, dtypes, names
from acon_analysis.errors import UsageError, closest
from acon_analysis.files import temporary_folder
from acon_analysis.screen import signed
from acon_analysis.statistics.donors import draw_donors
from acon_analysis.statistics.paired import UNCHANGED, Verdict, paired, verdict
from acon_hooks.engine.edits import Edit, EditPlan, Edits, Resample
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.held import Held
from acon_hooks.engine.inputs import Forward, input_options
from acon_hooks.engine.outputs import Output
from acon_hooks.engine.plans import run_batch, run_plans
from acon_hooks.engine.sites import Site
from acon_hooks.guards import full_precision, unwrap
from acon_hooks.replacement.gates import Recorded, SetGate, record_gates
from acon_hooks.replacement.recalibrating import batch_norms, recalibrated

#: What may be done with a gate.
INTERVENTIONS = {
    "mean": "each channel's gate is its mean over samples and positions",
    "constant": "every gate is 0.5",
    "resample": "each sample has the gates of another sample, the same one in all layers",
    "resample-within-class": "likewise, of another sample of its class",
    "level": "0.5 compared with the mean, not with the unchanged network",
}

DEFAULT = ("mean", "resample", "constant")

#: The gate of "constant": the sigmoid of 0.
CONSTANT = 0.5

#: Drawings of donors whose losses are averaged, sample by sample.
DRAWINGS = 3

#: δ: a mean change of the loss by less than this, in nats, does not matter.
MARGIN = 0.01

#: Level of the tests and intervals.
LEVEL = 0.01

#: The intervention that is the difference of two others.
LEVEL_QUESTION = "level"

#: All layers at once.
ALL = "all"


def gate_use(
    model: nn.Module,
    data: Any,
    interventions: Sequence[str] = DEFAULT,
    layers: Sequence[str] | None = None,
    recalibrate: Any = None,
    metric: str = "accuracy",
    forward: Forward | None = None,
    output: Output = None,
    seed: int = 0,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
    limit: int | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Measure whether a network uses what its gates decide for each sample.

    Gates are β of Meta-ACON, the factors of squeeze-and-excitation and the sigmoids of nn.GLU.
    They are recorded in one forward pass a sample; then one forward pass a sample measures each
    intervention on each layer, and on all layers at once.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode. It stays as it is and runs in its own dtype.
    data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        What to measure on, best held out; see `acon_hooks.engine.feeding.open_feed`. It is read
        more than once, and must yield the same samples each time.
    interventions : sequence of str
        "mean": each channel's gate is its mean over the samples (and positions). "constant": every
        gate is 0.5. "resample": each sample has the recorded gates of another sample as a whole,
        the same one in all layers, drawn at random so that each sample gives once; the losses of 3
        such drawings are averaged. "resample-within-class": of another sample of its class.
        "level": the constant compared with the mean, where all others are compared with the
        unchanged network; without labels its losses are divergences from that network all the same.
    layers : sequence of str, optional
        Only these; by default all that have a gate which depends on the sample.
    recalibrate : like data, optional
        Training samples. Every intervention is then also measured with all BatchNorms that are no
        part of a gate estimated again on them under that intervention, and compared with the
        unchanged network whose BatchNorms were estimated again likewise: what is left is no mere
        mismatch of their statistics. A pass an intervention over these samples is added.
    metric : "accuracy"
        What is shown besides the loss.
    forward : callable, optional
        forward(model, batch) -> output; by default as `acon_hooks.captures.capturing.capture` has
        it.
    output : int, str or callable, optional
        Which tensor of the output holds the logits; see `acon_hooks.engine.outputs.pick_output`.
    seed : int
        Of the drawings.
    margin : float
        δ, in nats: mean changes of the loss within ±δ do not matter.
    level : float
        Of the tests; the intervals have confidence 1 - level.
    limit, batch_size : int
        Only the first N samples of the data and of `recalibrate`; samples a forward pass.

    Returns
    -------
    DataFrame
        One row a layer ("all" for all at once), intervention and recalibrated (False, True);
        columns as in `acon_analysis.columns.GATE_COLUMNS`. The loss is the cross-entropy where
        the samples have class labels, otherwise the Kullback-Leibler divergence of the class
        probabilities from those of the unchanged network. Since a divergence is never negative,
        its p is that of no more than δ. Holm's procedure counts the layers of one intervention.

    Raises
    ------
    UsageError
        If the network has no such gate, an argument is unknown, labels are no class indices of the
        network, or its output holds no logits.
    ProofError
        If β of a layer cannot be read.
    AconError
        If rows of a layer are no samples, so that gates have none.

    Notes
    -----
    "Not used" needs an interval within ±δ: "not significant" alone is "undecided". That a network
    uses its gates does not say that they helped: later layers adapt to whatever a gate does. Only
    training without them can show that.
    """
    interventions = [interventions] if isinstance(interventions, str) else interventions
    layers = [layers] if isinstance(layers, str) else layers
    _check(interventions, metric, margin, level)
    network = unwrap(model)
    run, options = _Run(network, output), input_options(network, forward)
    generator = np.random.default_rng(seed)
    with temporary_folder() as folder, torch.no_grad(), full_precision():
        held = Held(data, limit, batch_size, options, "gates")
        own = record_gates(network, held.batches, layers, folder / "own", run)
        norms = batch_norms(network, (gate.site.module for gate in own.gates))
        if recalibrate is not None and not norms:
            raise UsageError(
                f"{type(network).__name__} has no BatchNorm outside its gates: leave "
                "recalibrate out"
            )
        plans = _plans(own, own, interventions, generator)
        frames = [_measured(network, held, plans, run)]
        if recalibrate is not None:
            others = Held(recalibrate, limit, batch_size, options, "gates")
            other = record_gates(network, others.batches, layers, folder / "other", run)
            same = _plans(other, own, interventions, generator) | {UNCHANGED: {}}
            others.what = "BatchNorms"
            fixed = recalibrated(network, others.batches(), same, norms, run)
            plans = {name: {**plan, **fixed[name]} for name, plan in plans.items()}
            base = fixed[UNCHANGED]
            frames.append(_measured(network, held, plans, run, base))
    tables = [_table(frame, interventions, run.labelled, margin, level) for frame in frames]
    table = pd.concat(tables, ignore_index=True)
    classes = {name: type(module).__name__ for name, module in network.named_modules()}
    table["class_name"] = table["layer"].map(classes).fillna("").astype("str")
    return table


def sentences(table: pd.DataFrame, *, margin: float = MARGIN, level: float = LEVEL) -> list[str]:
    """Return what a table of `gate_use` says, one sentence an intervention, and how to read it.

    `margin` and `level` are those that it was made with.
    """
    lines = []
    for _, part in table.groupby(["intervention", "recalibrated"], sort=False):
        again = ", BatchNorms estimated again" if part["recalibrated"].all() else ""
        single, whole = part[part["layer"] != ALL], part[part["layer"] == ALL].iloc[0]
        counts = single["verdict"].value_counts()
        each = ", ".join(f"{counts.get(word, 0)} {word}" for word in get_args(Verdict))
        more = whole["accuracy_change"]
        points = "" if np.isnan(more) else f", accuracy {100 * more:+.1f} points"
        lines.append(
            f"{whole['intervention']}{again}: all layers at once "
            f"{whole['verdict']} (loss {signed(whole['loss_change'])}, {signed(whole['low'])} to "
            f"{signed(whole['high'])}{points}); layers one by one: {each}"
        )
    labelled = bool(table["accuracy_change"].notna().any())
    done = "; ".join(f"{name}: {INTERVENTIONS[name]}" for name in table["intervention"].unique())
    return [*lines, f"{done}.", *_legend(margin, level, labelled=labelled)]


def _legend(margin: float, level: float, *, labelled: bool) -> Iterator[str]:
    """Yield what the columns and verdicts mean."""
    loss, tested = "the cross-entropy, in nats", "a change"
    if not labelled:
        tested = f"a change by more than {margin:g}"
        loss = (
            "the Kullback-Leibler divergence from the unchanged network, in nats, as the data have "
            "no class labels"
        )
    yield f"loss: {loss}; low to high: {100 * (1 - level):g} % interval of its change."
    yield (
        f"not used: the interval lies within ±{margin:g}, however small p is; otherwise used: "
        f"p_holm of {tested} is at most {level:g} (Holm's correction over the layers of an "
        "intervention); undecided: neither."
    )


def _check(interventions: Sequence[str], metric: str, margin: float, level: float) -> None:
    """Raise for an unknown intervention or metric, or a number that is out of range."""
    for name in interventions:
        if name not in INTERVENTIONS:
            raise UsageError(f"no intervention {name!r}: {closest(name, INTERVENTIONS)}")
    if not interventions:
        raise UsageError(f"no intervention given: choose from {', '.join(INTERVENTIONS)}")
    if metric != "accuracy":
        raise UsageError(f"metric can be 'accuracy' only so far; got {metric!r}")
    if not (margin > 0 and 0 < level < 0.5):
        raise UsageError(
            f"margin must be greater than 0 and level between 0 and 0.5; got {margin} and {level}"
        )


class _Run:
    """Runs a network on batches, and refuses outputs and labels that cannot be compared."""

    def __init__(self, network: nn.Module, output: Output) -> None:
        self.network, self.output = network, output
        self.labelled = False

    def __call__(self, batch: Batch) -> None:
        """Run the network on a batch."""
        logits = run_batch(self.network, batch, self.output)
        shape = tuple(logits.shape)
        if logits.ndim not in (2, 3) or shape[-1] < 2:
            raise UsageError(
                f"the output {shape} holds no class logits, (N, K) or (N, positions, K), so that "
                "there is no loss to compare; say which tensor does with output= (--output)"
            )
        self.labelled = logits.ndim == 2 and batch.labels is not None
        for label in batch.labels or [] if self.labelled else []:
            if not isinstance(label, int | np.integer) or not 0 <= label < shape[1]:
                raise UsageError(
                    f"labels must be class indices from 0 to {shape[1] - 1}, as the network has "
                    f"{shape[1]} logits; got {label!r}: give such labels, or data without any"
                )


def _plans(
    data: Recorded, own: Recorded, interventions: Sequence[str], generator: np.random.Generator
) -> dict[str, EditPlan]:
    """Return every plan by its name: the means are those of `own`, donors are among the data."""
    plans: dict[str, EditPlan] = {}
    more = ("mean", "constant") if LEVEL_QUESTION in interventions else ()
    wanted = dict.fromkeys(name for name in (*interventions, *more) if name != LEVEL_QUESTION)
    means = {(gate.site.name, gate.site.call): gate.mean for gate in own.gates}
    for intervention in wanted:
        for drawing in range(DRAWINGS if intervention.startswith("resample") else 1):
            donors = _donors(data, intervention, generator)
            edits: dict[Site, Edit | Resample] = {}
            for gate in data.gates:
                if donors is not None:
                    edits[gate.site] = Resample(
                        gate.values, data.ids, donors, partial(SetGate, gate)
                    )
                    continue
                mean = means[gate.site.name, gate.site.call]
                value = mean if intervention == "mean" else torch.full_like(mean, CONSTANT)
                edits[gate.site] = SetGate(gate, value)
            for layer in [*dict.fromkeys(site.name for site in edits), ALL]:
                plan = {site: edit for site, edit in edits.items() if layer in (site.name, ALL)}
                plans["\n".join((layer, intervention, str(drawing)))] = plan
    return plans


def _donors(data: Recorded, intervention: str, generator: np.random.Generator) -> Any:
    """Draw the donors of an intervention; None for one without."""
    if not intervention.startswith("resample"):
        return None
    if intervention == "resample":
        return draw_donors(len(data.ids), generator)
    if data.labels is None:
        raise UsageError(f"{intervention!r} needs data with labels")
    return draw_donors(len(data.ids), generator, data.labels)


def _measured(
    network: nn.Module,
    held: Held,
    plans: Mapping[str, EditPlan],
    run: _Run,
    base: Edits | None = None,
) -> pd.DataFrame:
    """Return one row a layer, intervention and sample, and those of the unchanged network."""
    held.what = "interventions"
    frame = run_plans(network, held, plans, output=run.output, logits=True, base=base)
    parts = frame["plan"].str.split("\n", expand=True)
    frame["correct"] = frame["correct"].astype("Float64").astype("float64")
    frame = frame.assign(layer=parts[0], intervention=parts[1].fillna(UNCHANGED))
    keys = ["intervention", "layer", "sample"]
    values = ["loss", "correct", "agrees", "output_change"]
    found = frame.groupby(keys, sort=False)[values].mean().reset_index()
    return pd.concat([found, _levels(found)], ignore_index=True).assign(
        recalibrated=base is not None
    )


def _levels(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of "level": the unchanged loss, and what the constant adds to the mean."""
    values = ["loss", "correct"]
    parts = {
        name: own.set_index(["layer", "sample"])[values]
        for name, own in frame.groupby("intervention", sort=False)
    }
    if not {"mean", "constant"} <= set(parts):
        return frame.iloc[:0]
    change = (parts["constant"] - parts["mean"]).reset_index()
    before = parts[UNCHANGED].droplevel("layer").loc[change["sample"]].reset_index(drop=True)
    change[values] += before
    return change.assign(intervention=LEVEL_QUESTION)


def _table(
    frame: pd.DataFrame, interventions: Sequence[str], labelled: bool, margin: float, level: float
) -> pd.DataFrame:
    """Return one row an intervention and layer; all layers at once is a test of its own."""
    before = frame[frame["intervention"] == UNCHANGED]
    tables = []
    for intervention in interventions:
        own = frame[frame["intervention"] == intervention]
        more_than = None if labelled or intervention == LEVEL_QUESTION else margin
        for part in (own[own["layer"] != ALL], own[own["layer"] == ALL]):
            both = pd.concat([before, part]).rename(columns={"layer": "plan"})
            tests = paired(both, confidence=1 - level, more_than=more_than)
            means = part.groupby("layer", sort=False)[["correct", "agrees", "output_change"]].mean()
            tables.append(
                tests.assign(
                    intervention=intervention,
                    accuracy_change=means["correct"].to_numpy() - before["correct"].mean(),
                    agreement=means["agrees"].to_numpy(),
                    output_change=means["output_change"].to_numpy(),
                )
            )
    table = pd.concat(tables, ignore_index=True).assign(recalibrated=frame["recalibrated"].iloc[0])
    ends = table[["low", "high", "p_holm"]].to_numpy(np.float64)
    table["verdict"] = [verdict(*end, margin=margin, level=level) for end in ends]
    table = table.rename(columns={"plan": "layer", "change": "loss_change", "n": "samples"})
    table["class_name"] = ""
    return table[names(GATE_COLUMNS)].astype(dtypes(GATE_COLUMNS))
