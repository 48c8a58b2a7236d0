"""L of every layer by hooks, a function mode and numpy in float64, made for the sweep alone."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Array = npt.NDArray[np.float64]
Key = tuple[str, int]

_SAME = {"expit": "sigmoid", "log_sigmoid": "logsigmoid", "clip": "clamp", "absolute": "abs",
         "_threshold": "threshold", "__abs__": "abs"}  # fmt: skip


class Sums:
    """Sums of products of p variables by channel, about the means of the first batch."""

    def __init__(self) -> None:
        self.n, self.shift = 0, np.zeros(())
        self.first, self.second = np.zeros(()), np.zeros(())

    def add(self, variables: Sequence[Tensor], axis: int) -> None:
        """Add one batch; the last variable is the output."""
        rows = [v.detach().movedim(axis, 0).flatten(1).double().numpy() for v in variables]
        values = np.stack(rows, 1)  # (C, p, M)
        if self.n == 0:
            self.shift = values.mean(2, keepdims=True)
        values = values - self.shift
        self.n += values.shape[2]
        self.first = self.first + values.sum(2)
        self.second = self.second + values @ values.transpose(0, 2, 1)

    def centred(self) -> Array:
        """Return sums of products of deviations from the means, (C, p, p)."""
        made: Array = self.second - self.first[:, :, None] * self.first[:, None, :] / self.n
        return made

    def linearity(self) -> tuple[float, Array, Array, Array]:
        """Return L of the layer and by channel, squares of the output and of its last digits."""
        sums = self.centred()
        given, joint, total = sums[:, :-1, :-1], sums[:, :-1, -1], sums[:, -1, -1]
        # In units of their own deviations, or variables of small numbers would count for nothing.
        units = np.sqrt(np.diagonal(given, axis1=1, axis2=2))
        units = np.where(units > 0, units, 1.0)
        related, joint = given / (units[:, :, None] * units[:, None, :]), joint / units
        weights = np.linalg.pinv(related, rcond=1e-13, hermitian=True) @ joint[:, :, None]
        explained = (weights[:, :, 0] * joint).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            whole, single = float(explained.sum() / total.sum()), explained / total
        digits = self.n * (float(np.finfo(np.float32).eps) * np.abs(self.shift[:, -1, 0])) ** 2
        return whole, single, total, digits


#: Functions that have one input; other calls end an activation that is written in pieces.
_ONE_INPUT = {
    "relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish",
    "softplus", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "logsigmoid", "tanh",
    "softsign", "threshold", "tanhshrink", "hardshrink", "softshrink", "clamp", "clamp_min",
    "clamp_max", "abs", "sin", "square", "exp", "maximum", "minimum", "glu",
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """What is reported of one call of a layer: its channel axis, and the gate of a product."""

    axis: int
    product: bool = False
    gate: Key | None = None


class Oracle(TorchFunctionMode):
    """Sums inputs and outputs of some layers, modules and functions, of a network.

    Parameters
    ----------
    model : Module
        The network.
    specs : dict
        (layer, call) -> what is reported of it.

    Attributes
    ----------
    left : set
        Calls that are not compared: the last steps of activations that are written in pieces, and
        products whose gate is rearranged on the way.
    """

    def __init__(self, model: nn.Module, specs: dict[Key, Spec]) -> None:
        super().__init__()
        self.model, self.specs = model, specs
        self.left: set[Key] = set()
        self.gates = {spec.gate for spec in specs.values() if spec.gate is not None}
        self.made: dict[Key, tuple[Tensor, Tensor]] = {}  # input and output of gates
        self.sums: dict[Key, Sums] = defaultdict(Sums)
        self.calls: Counter[str] = Counter()
        self.running: list[tuple[str, Counter[str], Any]] = []
        self.layers = {name for name, _ in specs}

    def run(self, batch: Any, call: Callable[[Any], object] | None = None) -> None:
        """Run the network on one batch, by a function that calls it or as it is."""
        self.calls.clear()
        self.made.clear()
        handles = []
        for name, module in self.model.named_modules():
            before, after = self._before(name), self._after(name)
            handles += [
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after, always_call=True, prepend=True),
            ]
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), self:
                if call is None:
                    self.model(batch.clone())
                else:
                    call(batch)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for handle in handles:
                handle.remove()

    def _before(self, name: str) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
            kept = self._kept(given[0]) if given and name in self.layers else None
            self.running.append((name, Counter(), kept))

        return hook

    def _after(self, name: str) -> Any:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            _, _, kept = self.running.pop()
            if kept is not None and isinstance(output, Tensor):
                with torch._C.DisableTorchFunction():
                    gate = any(key[0] == name for key in self.gates)
                    self._add(name, module, kept, output.clone() if gate else output)

        return hook

    def _kept(self, value: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return value.detach().clone()

    def _key(self, name: str) -> Key:
        """Count a call of a layer."""
        self.calls[name] += 1
        return name, self.calls[name] - 1

    def _add(self, name: str, module: nn.Module | None, x: Tensor, y: Tensor) -> None:
        """Add the call of a module or function with one input."""
        key = self._key(name)
        if key in self.gates:
            self.made[key] = x, y
        if key not in self.specs:
            return
        with torch._C.DisableTorchFunction():
            given = [*x.chunk(2, module.dim), y] if isinstance(module, nn.GLU) else [x, y]
            self.sums[key].add(given, self.specs[key].axis)

    def _add_product(self, name: str, factors: Sequence[Tensor], y: Tensor) -> None:
        """Add a product: of two factors, one of which is replaced by what its gate was given."""
        key = self._key(name)
        spec = self.specs.get(key)
        if spec is None:
            return
        with torch._C.DisableTorchFunction():
            found = list(factors)
            if spec.gate is not None:
                x, made = self.made.get(spec.gate, (y[:0], y[:0]))
                same = [i for i, f in enumerate(found) if f.shape == made.shape and f.equal(made)]
                if len(same) != 1 or x.shape != made.shape:
                    self.left.add(key)
                    return
                found[same[0]] = x
            self.sums[key].add([*(f.expand(y.shape) for f in found), y], spec.axis)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", "")).removeprefix("special_")
        name = name if name.startswith("__") else name.rstrip("_")
        if not self.running:
            return func(*args, **kwargs)
        module, counts, _ = self.running[-1]
        name = _SAME.get(name, name)
        layer = f"{module}:{name}#{counts[name]}"
        counts[name] += 1
        if layer not in self.layers:
            return func(*args, **kwargs)
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        kept = [self._kept(value) for value in given]
        output = func(*args, **kwargs)
        result = self._kept(output) if any(key[0] == layer for key in self.gates) else output
        if name in _ONE_INPUT:
            same = [x for x, v in zip(kept, given, strict=True) if v.shape == output.shape]
            own = [x for x, v in zip(kept, given, strict=True) if not isinstance(v, nn.Parameter)]
            self._add(layer, None, (same or own)[0], result)
        elif self.specs.get((layer, self.calls[layer]), _NO_PRODUCT).product and len(kept) == 2:
            self._add_product(layer, kept, output)
        else:
            self.left.add(self._key(layer))
        return output


_NO_PRODUCT = Spec(0)
