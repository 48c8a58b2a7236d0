"""Run a network under several plans of edits and compare it with itself, sample by sample."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, one_hot

from acon_analysis.errors import AconError, UsageError
from acon_analysis.statistics.paired import UNCHANGED
from acon_hooks.engine.edits import Editing, EditPlan, Edits, edits_of
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.outputs import Output, pick_output
from acon_hooks.engine.rows import mean_of
from acon_hooks.engine.visiting import visiting
from acon_hooks.guards import full_precision, unwrap

#: What outputs are taken for.
LOGITS, CLASSES, ALONE = "logits", "probabilities of classes", "probabilities of each class alone"

#: How near to 1 probabilities of classes sum, the smallest one that counts, and how many outputs
#: do not lie between 0 and 1 by chance.
_NEAR, _TINY, _FEW = 1e-2, 1e-12, 64

#: Values of an output that are brought to float64 at once.
_VALUES = 2**22


class Batches(Protocol):
    """Where the samples come from: an `acon_hooks.engine.feed.Feed`, or anything like it."""

    def batches(self) -> Iterable[Batch]:
        """Yield the batches, in order."""


def run_plans(
    model: nn.Module,
    feed: Batches,
    plans: Mapping[str, EditPlan],
    *,
    output: Output = None,
    logits: bool | None = None,
    base: Edits | None = None,
) -> pd.DataFrame:
    """Run a network once for every plan and batch, and once unchanged.

    The network, in evaluation mode, stays as it is and runs in its own dtype, without gradient.
    `plans` says what is edited, by the plan's name; `base` what is edited in every plan,
    "unchanged" too, unless the plan edits that site itself. `output` picks the tensor that is
    compared, see `acon_hooks.engine.outputs.pick_output`; `logits` is as for `Comparison`.

    Returns one row a plan and sample, batch by batch; in each batch the rows of the unchanged
    network, a plan named "unchanged", come first; columns as `Comparison.rows` has them. A
    UsageError if some batches have class labels and others have none, an AconError if there are no
    samples, a HookError if an edited site does not run.
    """
    if plans.get(UNCHANGED):
        raise UsageError(f"the plan {UNCHANGED!r} is the network as it is: it must be empty")
    network = unwrap(model)
    base = base or {}
    sites = dict.fromkeys(site for edits in (base, *plans.values()) for site in edits)
    editing, comparison = Editing({}), Comparison(logits)
    with (
        torch.inference_mode(False),  # where PyTorch counts what is overwritten
        torch.no_grad(),
        full_precision(),
        visiting(network, sites, editing),
    ):
        for batch in feed.batches():
            if not batch.ids:
                continue
            editing.edits = base
            unchanged = run_batch(network, batch, output)
            comparison.add(UNCHANGED, batch, unchanged, unchanged)
            for name, plan in plans.items():
                if name != UNCHANGED:
                    editing.edits = {**base, **edits_of(plan, batch.ids)}
                    after = run_batch(network, batch, output)
                    comparison.add(name, batch, after, unchanged)
    return comparison.rows()


def run_batch(network: nn.Module, batch: Batch, output: Output = None) -> Tensor:
    """Return the tensor of a network's output on a batch that is meant, 0 at padded positions."""
    own = fitted(network, batch)
    axis, samples = batch.options.sample_axis, len(batch.ids)
    found = pick_output(own.run(network), output, samples=samples, sample_axis=axis)
    valid = _valid(own, found)
    return found if valid is None else torch.where(valid.unsqueeze(2), found, 0)


def fitted(network: nn.Module, batch: Batch) -> Batch:
    """Return a copy of a batch, which a network may overwrite, in its dtype and on its device.

    Floating-point inputs get the dtype of the network's parameters, if these have only one;
    integers, such as the ids of tokens, stay integers.
    """
    values = list(network.parameters())
    device = values[0].device if values else torch.device("cpu")
    dtypes = {value.dtype for value in values if value.is_floating_point()}
    dtype = dtypes.pop() if len(dtypes) == 1 else None

    def changed(value: Tensor) -> Tensor:
        return value.to(device, dtype if value.is_floating_point() else None, copy=True)

    return batch.to(device).map(changed)


class Comparison:
    """Compares outputs of a network under several plans with those of the unchanged network.

    `logits`: whether they are class logits, (N, K) or (N, T, K) with T positions such as tokens.
    None takes them for logits where they have such a shape, K is 2 or more and the labels, if there
    are any, are not fractions. Outputs that the first batch shows to be probabilities, of classes
    (a softmax) or of each class by itself (a sigmoid), are taken as such.
    """

    def __init__(self, logits: bool | None = None) -> None:
        self.logits = logits
        self._scale = ""
        self.shape: tuple[int, ...] = ()
        self.labelled: bool | None = None
        self._frames: list[pd.DataFrame] = []

    def add(self, plan: str, batch: Batch, output: Tensor, unchanged: Tensor) -> None:
        """Compare the outputs of one plan and batch, (N, ...) of any floating-point dtype.

        A UsageError if some batches have class labels and others none, or logits another shape.
        """
        self.shape = tuple(output.shape[1:])
        self.logits = self._are_logits(batch) if self.logits is None else self.logits
        if self.logits and (output.ndim not in (2, 3) or output.shape[-1] < 2):
            raise UsageError(
                f"logits are (N, K) or (N, positions, K); the output is {tuple(output.shape)}"
            )
        self._scale = self._scale or _scale_of(unchanged)
        wanted = self.logits and output.ndim == 2
        labels = _class_indices(batch.labels, output.shape[1]) if wanted else None
        if self.labelled not in (None, labels is not None):
            raise UsageError("some batches have class indices as labels and others do not")
        self.labelled = labels is not None
        valid = _valid(batch, output)
        parts = [self._compared(*part) for part in _parts(output, unchanged, labels, valid)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        correct = columns.get("correct", [None] * len(output))
        self._frames.append(
            pd.DataFrame(
                {
                    "plan": pd.array([plan] * len(output), dtype="str"),
                    "sample": np.asarray(batch.ids, dtype=np.int64),
                    "loss": columns["loss"],
                    "correct": pd.array(correct, dtype="boolean"),
                    "output_change": columns["output_change"],
                    "agrees": columns["agrees"],
                }
            )
        )

    def rows(self) -> pd.DataFrame:
        """Return one row a plan and sample, in the order in which they were added.

        plan; sample (sample_id); loss: of logits (N, K) the cross-entropy where every label is a
        class index, otherwise the Kullback-Leibler divergence Σ p₀·log(p₀/p) of the class
        probabilities p from p₀ of the unchanged network (both in nats, float64; a mean over
        positions), NaN where there are no logits; correct: whether the largest logit is that of the
        label (missing without such labels); output_change: ‖z - z₀‖/‖z₀‖ of all values of a sample
        (float64, NaN where both are 0); agrees: whether the largest logit is the one of the
        unchanged network, the share of positions where there are several, NaN where there are no
        logits. An AconError if nothing was compared.
        """
        if not self._frames:
            raise AconError("there were no samples to measure on")
        return pd.concat(self._frames, ignore_index=True)

    def words(self) -> str:
        """Return what was compared and what the loss is, in words."""
        shape = ", ".join(["N", *map(str, self.shape)])
        if not self.logits:
            return f"output ({shape}), not taken for logits: no loss, no agreement"
        loss = "cross-entropy" if self.labelled else "Kullback-Leibler divergence from before"
        mean = ", a mean over positions" if len(self.shape) == 2 else ""
        return f"output ({shape}) taken for {self._scale or LOGITS}; loss: {loss}{mean}"

    def _are_logits(self, batch: Batch) -> bool:
        """Return whether outputs look like logits."""
        fractions = any(isinstance(label, float | np.floating) for label in batch.labels or [])
        return len(self.shape) in (1, 2) and self.shape[-1] > 1 and not fractions

    def _compared(
        self, output: Tensor, unchanged: Tensor, labels: Tensor | None, valid: Tensor | None
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of some samples, from float64 outputs (N, ...) on the host."""
        found = {"output_change": relative_change(unchanged, output)}
        if not self.logits:
            return found | dict.fromkeys(("loss", "agrees"), np.full(len(output), np.nan))
        choice = output.argmax(-1)
        agrees = choice == unchanged.argmax(-1)
        loss = _loss(output, unchanged, labels, self._scale)
        if output.ndim == 3:
            agrees, loss = (mean_of(v.double()[:, None], valid)[:, 0] for v in (agrees, loss))
        if labels is not None:
            found["correct"] = (choice == labels).numpy()
        return found | {"loss": loss.numpy(), "agrees": agrees.numpy()}


def relative_change(before: Tensor, after: Tensor) -> npt.NDArray[np.float64]:
    """Return ‖after - before‖ / ‖before‖ of each sample, float64 (N,)."""
    return relative_norm(after.detach().double() - before.detach().double(), before)


def relative_norm(change: Tensor, before: Tensor) -> npt.NDArray[np.float64]:
    """Return ‖change‖ / ‖before‖ of each sample, float64 (N,)."""
    first, second = (v.detach().double().reshape(len(v), -1) for v in (change, before))
    return np.asarray((first.norm(dim=1) / second.norm(dim=1)).cpu().numpy(), dtype=np.float64)


def _valid(batch: Batch, output: Tensor) -> Tensor | None:
    """Return which positions of an output (N, T, K) hold data; None if all do."""
    valid = batch.valid.get("")
    if valid is None or output.ndim != 3 or output.shape[:2] != valid.shape:
        return None
    return valid


def _parts(
    output: Tensor, unchanged: Tensor, labels: Tensor | None, valid: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
    """Yield outputs in float64 on the host, labels and valid positions, some samples at a time."""
    size = max(1, _VALUES * len(output) // max(output.numel(), 1))
    for start in range(0, len(output), size):
        part = slice(start, start + size)
        first, second = (value[part].detach().cpu().double() for value in (output, unchanged))
        own, kept = (None if value is None else value[part].cpu() for value in (labels, valid))
        yield first, second, own, kept


def _loss(output: Tensor, unchanged: Tensor, labels: Tensor | None, scale: str) -> Tensor:
    """Return the loss of each sample and position, (N,) or (N, T)."""
    if scale == ALONE:
        return _loss_alone(output, unchanged, labels)
    if scale == CLASSES:
        output, unchanged = (value.clamp_min(_TINY).log() for value in (output, unchanged))
    if labels is not None:
        return cross_entropy(output, labels, reduction="none")
    first, second = output.log_softmax(-1), unchanged.log_softmax(-1)
    return kl_div(first, second, reduction="none", log_target=True).sum(-1)


def _loss_alone(output: Tensor, unchanged: Tensor, labels: Tensor | None) -> Tensor:
    """Return the sum of the losses of all classes, each of which is there or not."""
    after, before = (
        torch.stack([value, 1 - value], -1).clamp_min(_TINY) for value in (output, unchanged)
    )
    if labels is not None:
        there = one_hot(labels, output.shape[-1])
        return -(torch.stack([there, 1 - there], -1) * after.log()).sum((-2, -1))
    return (before * (before.log() - after.log())).sum((-2, -1))


def _scale_of(output: Tensor) -> str:
    """Return what outputs are: logits, or probabilities; few values may lie in [0, 1] by chance."""
    if not bool(((output >= 0) & (output <= 1)).all()):
        return LOGITS
    if bool(((output.sum(-1) - 1).abs() < _NEAR).all()):
        return CLASSES
    return ALONE if output.numel() >= _FEW else LOGITS


def _class_indices(labels: list[Any] | None, classes: int) -> Tensor | None:
    """Return labels as int64 (N,) if all are class indices, otherwise None."""
    whole = (int, np.integer)
    if not labels or not all(isinstance(k, whole) and 0 <= k < classes for k in labels):
        return None
    return torch.tensor([int(label) for label in labels])
