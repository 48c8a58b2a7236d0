"""The second look: whether row i of what a layer sees belongs to sample i.

The first batch is run once more in a fixed random order, cut into two unequal parts. Per sample, β
and the sums of every layer's output must move with it. Reversing the batch would not show samples
that the network itself reverses, and only a cut shows values that depend on the whole batch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from acon_analysis.screen import listed
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.rows import Rows
from acon_hooks.engine.sites import SiteCall, Visitor

Status = Literal["proved", "not proved", "skipped", "mixed", "batch"]

#: Largest difference between two runs of one sample, of the spread over the samples, and of the
#: size of the values: kernels may round otherwise in batches of other sizes.
_OF_SPREAD, _OF_SIZE = 1e-3, 1e-5


#: Begins the sentence for a network that its own forward pass changes.
CHANGED = "the first forward pass changed"

#: Attributes that every module has: its parameters and parts are looked at by themselves.
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}


@dataclass(frozen=True)
class RowCheck:
    """What the second look has found."""

    # "proved"; "not proved" (one sample, or samples that do not differ); "skipped" (the first
    # forward pass changed the network, or the network does not take a part of its batch); "mixed"
    # (rows belong to other samples: values by sample are wrong); "batch" (values of a sample depend
    # on the other samples of its batch).
    status: Status
    # One sentence, and the layers concerned.
    text: str
    layers: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether the look was skipped because a forward pass changes the network."""
        return self.status == "skipped" and self.text.startswith(CHANGED)


_NO_VALUES = "there are no values by sample of it"


@dataclass
class RowSums(Visitor):
    """Adds up the output of every layer by row, and its squares: {(layer, call): (N, 2)}."""

    sums: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    tensor_rows: Rows = field(default_factory=Rows)

    def after(self, call: SiteCall, output: Any) -> None:
        """Add up one call."""
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim:
            along = self.tensor_rows.axis_of(output, output.ndim - 1)
            moved = output.detach().movedim(along, 0)
            rows = moved.reshape(len(moved), moved[:1].numel()).double()
            pair = torch.stack([rows.sum(1), (rows * rows).sum(1)], 1)
            self.sums[call.site.name, call.number] = pair


def second_look(
    model: nn.Module,
    given: Batch,
    first: Mapping[tuple[str, int, str], Tensor],
    run: Callable[[Batch], None],
    look: Callable[[], dict[tuple[str, int, str], Tensor]],
) -> RowCheck:
    """Run the first batch again in another order and in two parts, and compare.

    `first` has values by row in that pass, (N, ...), of each layer, call and quantity; `run` runs
    the model on a part of the batch, and `look` returns the values of that pass.
    """
    count = len(given.ids)
    if not count or not first:
        return RowCheck("not proved", "the arguments have no common axis of samples")
    if count < 2:
        return RowCheck("not proved", "one sample cannot show which rows belong to it")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    cut = max(1, count // 3) if count != 5 else 2
    parts = []
    for part in given.permuted(order.tolist()).parts([cut, count - cut]):
        try:
            with torch.no_grad():
                run(part)
        except Exception as error:
            words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            return RowCheck(
                "skipped",
                f"the network does not take a part of its first batch ({words}), so that it is not "
                "proved that rows are samples",
            )
        parts.append(look())
    return _compared(model, first, parts, order)


def _compared(
    model: nn.Module,
    first: Mapping[tuple[str, int, str], Tensor],
    parts: list[dict[tuple[str, int, str], Tensor]],
    order: Tensor,
) -> RowCheck:
    """Compare the values by row of two parts with those of the whole batch."""
    mixed: list[str] = []
    moved: list[str] = []
    silent: list[str] = []
    for key, whole in first.items():
        if any(key not in part for part in parts):
            continue
        rows = torch.cat([part[key] for part in parts])
        if len(whole) != len(order) or len(rows) != len(order):
            mixed.append(key[0])
            continue
        expected = whole[order.to(whole.device)].double().reshape(len(order), -1)
        found = rows.double().reshape(len(order), -1)
        finite = expected.isfinite().all(1)  # a sample with NaN or infinity shows nothing
        expected, found = expected[finite], found[finite]
        if not len(expected):
            silent.append(key[0])
            continue
        spread = expected.amax(0) - expected.amin(0)
        limit = _OF_SPREAD * spread + _OF_SIZE * expected.abs().amax(0)
        if not bool((spread > 2 * limit).any()):
            silent.append(key[0])
        elif not bool(((found - expected).abs() <= limit).all()):
            (mixed if _rows_of_others(found, expected, limit) else moved).append(key[0])
    return _verdict(model, *(tuple(dict.fromkeys(names)) for names in (mixed, moved, silent)))


def _rows_of_others(found: Tensor, expected: Tensor, limit: Tensor) -> bool:
    """Return whether most rows that differ from their own are those of other samples."""
    own = ((found - expected).abs() <= limit).all(1)
    differ = found[~own]
    gap = torch.cdist(differ / (limit + 1e-300), expected / (limit + 1e-300), p=torch.inf)
    return bool((gap.amin(1) <= 1).double().mean() > 0.5)


def _verdict(
    model: nn.Module, mixed: tuple[str, ...], moved: tuple[str, ...], silent: tuple[str, ...]
) -> RowCheck:
    batch = f"values of layer {listed(moved, 3, repr)} {_blame(model)}" if moved else ""
    if mixed:
        return _mixed(mixed, batch)
    if moved:
        return RowCheck("batch", batch, moved)
    if silent:
        return RowCheck("not proved", "the samples of the first batch do not differ", silent)
    return RowCheck("proved", "every row belongs to its sample")


def _mixed(layers: tuple[str, ...], batch: str = "") -> RowCheck:
    """Return a check of layers without values by sample; `batch` names those that depend on it."""
    text = (
        f"rows of layer {listed(layers, 3, repr)} belong to other samples, or are no samples: "
        f"the network sorts, mixes or moves the axis of the samples; {_NO_VALUES}"
    )
    return RowCheck("mixed", f"{text}; {batch}" if batch else text, layers)


def with_rowless(found: RowCheck | None, layers: Iterable[str]) -> RowCheck | None:
    """Add layers that saw another number of rows than there are samples."""
    known = found.layers if found is not None and found.status == "mixed" else ()
    both = tuple(dict.fromkeys([*known, *layers]))
    if found is None or both == known:
        return found if both == known else _mixed(both)
    batch = found.text if found.status == "batch" else found.text.partition(f"{_NO_VALUES}; ")[2]
    return _mixed(both, batch)


def _blame(model: nn.Module) -> str:
    """Name the modules that make values depend on the batch."""
    culprits = [
        name
        for name, module in model.named_modules()
        if isinstance(module, _NormBase)
        and module.running_mean is None
        and "Instance" not in type(module).__name__
    ]
    text = "depend on the other samples of the batch"
    if not culprits:
        return f"{text}: other batch sizes give other values"
    return (
        f"{text}, because {listed(culprits, 3, repr)} normalises by the batch "
        "(track_running_stats=False): other batch sizes give other values"
    )


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return marks of what a forward pass may change: attributes, tensors, the random state."""
    marks: dict[str, Any] = {"the random state": torch.get_rng_state().numpy().tobytes()}
    for device in {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}:
        state = torch.get_device_module(device).get_rng_state()
        marks[f"the random state of {device}"] = state.cpu().numpy().tobytes()
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key in _OF_TORCH:
                continue
            size = len(value) if isinstance(value, list | dict | set | tuple) else 0
            marks[f"attribute {key!r} of module {name!r}"] = id(value), size
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and not tensor.is_inference():
                marks[f"tensor {key!r} of module {name!r}"] = id(tensor), tensor._version
    return marks


def changed(before: dict[str, Any], after: dict[str, Any], *, random: bool = True) -> str:
    """Return the first thing that differs between two states, in words; empty if nothing does."""
    # ``random=False`` looks at the network alone, not at the state of random numbers, which other
    # threads may change.
    names = [*before, *(name for name in after if name not in before)]
    names = [name for name in names if random or not name.startswith("the random state")]
    return next((name for name in names if before.get(name) != after.get(name)), "")
