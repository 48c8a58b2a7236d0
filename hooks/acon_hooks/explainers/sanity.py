"""Does an explanation depend on what the layer has learned? Randomise the layer and see."""

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_hooks.explainers.explaining import explain
from acon_hooks.explainers.explanations import Explanation
from acon_hooks.guards import unwrap

if TYPE_CHECKING:
    import pandas as pd


def randomization_check(
    model: nn.Module,
    images: Tensor,
    layer: str,
    channel: int | None = None,
    *,
    seed: int,
    draws: int = 10,
    **arguments: Any,
) -> "pd.DataFrame":
    """Compare the maps of β with those after shuffling what computes β, in a copy of the network.

    A map that stays the same shows the image and not what the layer has learned. Maps that multiply
    by the image, as integrated gradients do, share the image's outline: their absolute values
    correlate by themselves. Further arguments are those of `explain`.

    Returns a row a draw and image: ``draw``, ``sample``, ``correlation`` and
    ``correlation_absolute`` (Spearman's rank correlations of the maps before and after, with and
    without signs, over the pixels where either map is not 0; NaN where a map is constant there),
    ``pixels`` (how many these are), ``beta_before``, ``beta_after``.
    """
    # Source: J. Adebayo et al. (2018), Sanity Checks for Saliency Maps, NeurIPS, arXiv:1810.03292.
    import pandas as pd

    if draws < 1:
        raise UsageError(f"at least one draw is needed; got {draws}")
    before = explain(model, images, layer, channel, **arguments)
    inner = unwrap(model)
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    for draw in range(draws):
        copy = deepcopy(inner)
        shuffle(copy.get_submodule(layer), generator)
        rows += _rows(draw, before, explain(copy, images, layer, channel, **arguments))
    return pd.DataFrame(rows)


def shuffle(module: nn.Module, generator: torch.Generator) -> None:
    """Shuffle the entries of every floating-point parameter and buffer of a module, in place."""
    changed = False
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        for tensor in tensors.values():
            if not tensor.is_floating_point() or tensor.numel() < 2:
                continue
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            changed = changed or bool((tensor != tensor.reshape(-1)[0]).any())
            tensor.copy_(tensor.reshape(-1)[order].reshape(tensor.shape))
    if not changed:
        raise UsageError(
            f"nothing in this {type(module).__name__} can be shuffled: its β has no weights of its "
            "own"
        )


def _rows(draw: int, before: Explanation, after: Explanation) -> list[dict[str, Any]]:
    """Return one row an image of the maps before and after one shuffling."""
    rows = []
    for index, sample in enumerate(before.samples):
        first, second = before.maps[index].ravel(), after.maps[index].ravel()
        shown = (first != 0) | (second != 0)
        first, second = first[shown], second[shown]
        rows.append(
            {
                "draw": draw,
                "sample": sample,
                "correlation": rank_correlation(first, second),
                "correlation_absolute": rank_correlation(np.abs(first), np.abs(second)),
                "pixels": int(shown.sum()),
                "beta_before": float(before.beta[index]),
                "beta_after": float(after.beta[index]),
            }
        )
    return rows


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return Spearman's rank correlation; NaN for fewer than 3 values, or where all are equal."""
    from scipy.stats import spearmanr

    if len(first) < 3 or (first == first[0]).all() or (second == second[0]).all():
        return float("nan")
    return float(spearmanr(first, second).statistic)
