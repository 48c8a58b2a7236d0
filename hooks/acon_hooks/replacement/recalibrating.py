"""BatchNorms estimated again while a network is edited, themselves as edits: the network stays."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from acon_analysis.moments.gram import Gram
from acon_hooks.engine.edits import Edit, Editing, EditPlan, Line, edits_of
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.sites import Site
from acon_hooks.engine.visiting import visiting
from acon_hooks.guards import full_precision


def batch_norms(network: nn.Module, outside: Iterable[nn.Module]) -> list[Site]:
    """Return the BatchNorms with running statistics that are no part of some modules."""
    inside = {part for module in outside for part in module.modules()}
    return [
        Site(name, module)
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and module not in inside
    ]


@dataclass(eq=False)
class BatchStatistics:
    """A BatchNorm that normalises by the statistics of its batch, as in training, and sums them."""

    reads_input: ClassVar[bool] = True
    module: Any
    # Of its inputs so far, one variable a channel, (C,).
    sums: Gram | None = None

    def apply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the input normalised within the batch; one value a channel cannot be."""
        count = x.numel() // x.shape[1]
        if count < 2:
            return y
        axes = [axis for axis in range(x.ndim) if axis != 1]
        var, mean = torch.var_mean(x.float() if x.itemsize < 4 else x, axes, correction=0)
        own = Gram(
            torch.full_like(var, count, dtype=torch.float64),
            mean.double()[:, None],
            (count * var.double())[:, None, None],
        )
        self.sums = own if self.sums is None else self.sums + own
        module = self.module
        return batch_norm(x, None, None, module.weight, module.bias, training=True, eps=module.eps)

    def line(self) -> Line | None:
        """Return the line that the BatchNorm is with these statistics; None without any."""
        if self.sums is None:
            return None
        n, module = self.sums.n, self.module
        variance = self.sums.C[:, 0, 0] / (n - 1)
        weight = 1.0 if module.weight is None else module.weight.detach().double()
        bias = 0.0 if module.bias is None else module.bias.detach().double()
        slope = weight * (variance + module.eps).rsqrt()
        return Line(slope, bias - slope * self.sums.mean[:, 0])


class _Estimating(Editing):
    """Edits also where a BatchNorm does not run, as in a part that only training uses."""

    def end(self) -> None:
        """Finish a forward pass."""
        self.abort()


def recalibrated(
    network: nn.Module,
    batches: Iterable[Batch],
    plans: Mapping[str, EditPlan],
    norms: list[Site],
    run: Callable[[Batch], Any],
) -> dict[str, dict[Site, Edit]]:
    """Estimate BatchNorms again under every plan; return them as edits, by plan.

    As `torch.optim.swa_utils.update_bn`, each BatchNorm normalises by its batch meanwhile; mean and
    variance are those of all values together. There is none of a BatchNorm that never saw two
    values a channel.
    """
    summing = {name: {site: BatchStatistics(site.module) for site in norms} for name in plans}
    sites = dict.fromkeys([*(site for plan in plans.values() for site in plan), *norms])
    editing = _Estimating({})
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        full_precision(),
        visiting(network, sites, editing),
    ):
        for batch in batches:
            for name, plan in plans.items():
                editing.edits = {**edits_of(plan, batch.ids), **summing[name]}
                run(batch)
    return {
        name: {site: line for site, norm in own.items() if (line := norm.line()) is not None}
        for name, own in summing.items()
    }
