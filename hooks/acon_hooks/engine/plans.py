"""Run a network under several plans of edits and compare it with itself, sample by sample."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from acon_analysis.errors import AconError, UsageError
from acon_analysis.statistics.paired import UNCHANGED
from acon_hooks.engine.edits import Editing, Edits
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.visiting import visiting
from acon_hooks.guards import unwrap


class Batches(Protocol):
    """Where the samples come from: an `acon_hooks.engine.feed.Feed`, or anything like it."""

    def batches(self) -> Iterable[Batch]:
        """Yield the batches, in order."""


def run_plans(model: nn.Module, feed: Batches, plans: Mapping[str, Edits]) -> pd.DataFrame:
    """Run a network once for every plan and batch, and once unchanged.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode, with logits (N, K) as its output. It stays as it is and
        runs in its own dtype, without gradient.
    feed : Feed
        The samples, from `acon_hooks.engine.feeding.open_feed`.
    plans : mapping of str to mapping of Site to Edit
        What is edited in each plan, by the plan's name.

    Returns
    -------
    DataFrame
        One row a plan and sample, batch by batch; in each batch the rows of the unchanged network,
        a plan named "unchanged", come first. plan; sample (sample_id); loss: the cross-entropy
        where every label is a class index, otherwise the Kullback-Leibler divergence
        Σ p₀·log(p₀/p) of the class probabilities p from p₀ of the unchanged network (both in nats,
        float64); correct: whether the largest logit is that of the label (missing without such
        labels); output_change: ‖z - z₀‖/‖z₀‖ of the logits (float64, NaN where both are 0);
        agrees: whether the largest logit is the one of the unchanged network.

    Raises
    ------
    UsageError
        If a plan named "unchanged" edits something, or some batches have class labels and others
        have none.
    AconError
        If there are no samples, or the output is not (N, K).
    HookError
        If an edited site does not run.
    """
    if plans.get(UNCHANGED):
        raise UsageError(f"the plan {UNCHANGED!r} is the network as it is: it must be empty")
    network = unwrap(model)
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    sites = dict.fromkeys(site for edits in plans.values() for site in edits)
    editing = Editing({})
    frames: list[pd.DataFrame] = []
    labelled: set[bool] = set()
    with torch.inference_mode(), visiting(network, sites, editing):
        for batch in feed.batches():
            if not batch.ids:
                continue
            arguments = batch.to(device).arguments()
            editing.edits = {}
            unchanged = logits_of(network(*arguments))
            labels = _class_indices(batch.labels, unchanged.shape[1])
            labelled.add(labels is not None)
            frames.append(_rows(UNCHANGED, batch.ids, unchanged, unchanged, labels))
            for name, editing.edits in plans.items():
                if name != UNCHANGED:
                    output = logits_of(network(*arguments))
                    frames.append(_rows(name, batch.ids, output, unchanged, labels))
    if not frames:
        raise AconError("there were no samples to measure on")
    if len(labelled) > 1:
        raise UsageError("some batches have class indices as labels and others do not")
    return pd.concat(frames, ignore_index=True)


def logits_of(output: Any) -> Tensor:
    """Return the output of a network as float64 logits (N, K) on the host.

    Raises
    ------
    AconError
        If it has another shape.
    """
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise AconError(f"the model's output must be logits (N, K); it is {shape}")
    return output.cpu().double()


def _rows(
    plan: str, ids: list[int], output: Tensor, unchanged: Tensor, labels: Tensor | None
) -> pd.DataFrame:
    """Return the rows of one plan and batch, from logits (N, K)."""
    choice = output.argmax(1)
    correct = [None] * len(ids) if labels is None else (choice == labels).numpy()
    return pd.DataFrame(
        {
            "plan": pd.array([plan] * len(ids), dtype="str"),
            "sample": np.asarray(ids, dtype=np.int64),
            "loss": _loss(output, unchanged, labels).numpy(),
            "correct": pd.array(correct, dtype="boolean"),
            "output_change": ((output - unchanged).norm(dim=1) / unchanged.norm(dim=1)).numpy(),
            "agrees": (choice == unchanged.argmax(1)).numpy(),
        }
    )


def _loss(output: Tensor, unchanged: Tensor, labels: Tensor | None) -> Tensor:
    """Return the loss of each sample, (N,)."""
    if labels is not None:
        return cross_entropy(output, labels, reduction="none")
    first, second = output.log_softmax(1), unchanged.log_softmax(1)
    return kl_div(first, second, reduction="none", log_target=True).sum(1)


def _class_indices(labels: list[Any] | None, classes: int) -> Tensor | None:
    """Return labels as int64 (N,) if all are class indices, otherwise None."""
    whole = (int, np.integer)
    if not labels or not all(isinstance(k, whole) and 0 <= k < classes for k in labels):
        return None
    return torch.tensor([int(label) for label in labels])
