"""The numbers once more, by programs of their own: hooks, NumPy's float64, difference quotients."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from published.case import Case, run
from sweep_oracle import Oracle, Spec
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import acon_analysis as acon


def unpadded(batches: list[Any]) -> Iterator[Any]:
    """Yield batches; padded ones sample by sample, without the padding."""
    for batch in batches:
        if not isinstance(batch, dict):
            yield batch
            continue
        for row in range(len(batch["attention_mask"])):
            length = int(batch["attention_mask"][row].sum())
            yield {key: value[row : row + 1, :length] for key, value in batch.items()}


def linearity(case: Case) -> list[dict[str, Any]]:
    """Return L of every layer and of its channels, and which of these are dead."""
    specs = {
        (layer.name, 0): Spec(layer.axis, layer.kind == "product", layer.gate)
        for layer in bare(case)
    }
    oracle = Oracle(case.model, specs)
    for batch in unpadded(case.batches):
        oracle.run(batch, case.call)
    rows = []
    for (name, call), sums in oracle.sums.items():
        whole, single, total, digits = sums.linearity()
        dead = total <= 64 * digits
        rows.append({"layer": name, "call": call, "L": whole, "channels": single, "dead": dead})
    return rows


class _Operators(TorchDispatchMode):
    """Counts the operators of a forward pass."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


def operators(case: Case) -> int:
    """Return how many operators one forward pass calls."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _Operators() as counted:
            case.call(case.batches[0])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return sum(counted.count.values())


Change = Callable[[str, Tensor, Tensor], Tensor]


class _Relus(TorchFunctionMode):
    """Gives every call of relu by the network itself, by number, to a function."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change, self.calls = change, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "relu":
            return func(*args, **(kwargs or {}))
        self.calls += 1
        with torch._C.DisableTorchFunction():
            return self.change(f":relu#{self.calls - 1}", args[0], torch.relu(args[0]))


@contextmanager
def changed(model: nn.Module, names: list[str], change: Change) -> Iterator[None]:
    """Let a function of (name, input, output) say what layers return."""

    def hook(name: str) -> Any:
        return lambda _module, args, output: change(name, args[0], output)

    modules = dict(model.named_modules())
    handles = [modules[n].register_forward_hook(hook(n)) for n in names if n in modules]
    functions = [n for n in names if n not in modules]
    try:
        if functions:
            with _Relus(lambda n, x, y: change(n, x, y) if n in functions else y) as mode:
                handles.append(
                    model.register_forward_pre_hook(lambda *_: setattr(mode, "calls", 0))
                )
                yield
        else:
            yield
    finally:
        for handle in handles:
            handle.remove()


def lines(model: nn.Module, case: Case, axes: dict[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return slope and intercept of every channel of some layers, by least squares."""
    sums: dict[str, np.ndarray] = {}

    def add(name: str, x: Tensor, y: Tensor) -> Tensor:
        a, b = (v.detach().movedim(axes[name], 0).flatten(1).double().numpy() for v in (x, y))
        own = np.stack(
            [np.full(len(a), a.shape[1]), a.sum(1), b.sum(1), (a * a).sum(1), (a * b).sum(1)]
        )
        sums[name] = sums.get(name, 0) + own
        return y

    with torch.no_grad(), changed(model, list(axes), add):
        for batch in unpadded(case.fit):
            run(model, batch, case.options.get("forward"))
    found = {}
    for name, (n, x, y, xx, xy) in sums.items():
        spread = n * xx - x * x
        slope = np.where(
            spread > 1e-12 * n * xx, (n * xy - x * y) / np.where(spread > 0, spread, 1), 0
        )
        found[name] = torch.from_numpy(slope), torch.from_numpy((y - slope * x) / n)
    return found


def replaced(case: Case, form: str, axes: dict[str, int]) -> tuple[float, list[Tensor]]:
    """Return the quality, and the outputs, of a network whose activations are lines or ReLUs."""
    model = copy.deepcopy(case.model)
    fitted = lines(model, case, axes) if form == "line" else {}

    def change(name: str, x: Tensor, y: Tensor) -> Tensor:
        if form == "relu":
            return torch.relu(x)
        slope, intercept = (
            v.reshape(-1, *[1] * (x.ndim - 1 - axes[name] % x.ndim)) for v in fitted[name]
        )
        return (slope * x.double() + intercept).to(y.dtype)

    with torch.no_grad(), changed(model, list(axes), change):
        outputs = [first(run(model, batch, case.options.get("forward"))) for batch in case.batches]
        quality = next(iter(case.quality(model).values()))
    return quality, outputs


def first(output: Any) -> Tensor:
    """Return the first tensor of an output."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def coefficient(case: Case, count: int = 32) -> tuple[float, float]:
    """Return the nonlinearity coefficient of a block, and its standard error (over triples).

    In float64, with central differences of one millionth.
    """
    model = copy.deepcopy(case.model).double().eval()
    name = case.checked_block
    block = model if name == "whole network" else model.get_submodule(name)
    inputs, plain = [], case.block_batches is None
    for batch in case.block_batches or case.batches:
        kept: list[Tensor] = []
        handle = block.register_forward_pre_hook(
            lambda _module, args, kept=kept: kept.append(args[0])
        )
        with torch.no_grad():
            run(model, _doubled(batch), case.options.get("forward") if plain else None)
        handle.remove()
        inputs.append(kept[0])
    x = torch.cat(inputs)
    rng = np.random.default_rng(5)
    bent, ends = [], []
    with torch.no_grad():
        for _ in range(count):
            at, one, other = (x[i : i + 1] for i in rng.choice(len(x), 3, replace=False))
            step = 1e-6 * (one - other)
            bent.append(
                float((first(block(at + step)) - first(block(at - step))).norm() / 2e-6) ** 2
            )
            ends.append(float((first(block(one)) - first(block(other))).norm()) ** 2)
    top, below = np.array(bent), np.array(ends)
    value = np.sqrt(top.sum() / below.sum())
    left = [np.sqrt((top.sum() - a) / (below.sum() - b)) for a, b in zip(top, below, strict=True)]
    return float(value), float(np.sqrt((count - 1) * np.var(left)))


def _doubled(batch: Any) -> Any:
    if isinstance(batch, dict):
        return batch
    if isinstance(batch, tuple):
        return (batch[0].double(), *batch[1:])
    return batch.double()


def without_gates(case: Case) -> float:
    """Return the quality with the gate of every GLU held at its channel's mean, by own hooks."""
    model = copy.deepcopy(case.model)
    glus = {name: module for name, module in model.named_modules() if isinstance(module, nn.GLU)}
    sums: dict[str, list[Tensor]] = {name: [] for name in glus}

    def gate(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, glus[name].dim)
        return a, torch.sigmoid(b)

    def collect(name: str, x: Tensor, y: Tensor) -> Tensor:
        sums[name].append(gate(name, x)[1].double().mean((0, 2)))
        return y

    def hold(name: str, x: Tensor, _y: Tensor) -> Tensor:
        return gate(name, x)[0] * torch.stack(sums[name]).mean(0)[:, None].float()

    with torch.no_grad():
        with changed(model, list(glus), collect):
            for batch in case.batches:
                run(model, batch)
        with changed(model, list(glus), hold):
            return next(iter(case.quality(model).values()))


def bare(case: Case) -> list[Any]:
    """Return the layers as they are found, with their channel axes."""
    example = case.batches[0]
    return acon.find_layers(
        case.model, ("activation", "product"), example, forward=lambda _, batch: case.call(batch)
    )
