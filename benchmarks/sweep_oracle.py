"""L of every layer by hooks, a function mode and numpy in float64, made for the sweep alone."""

from collections import Counter, defaultdict
from collections.abc import Sequence
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
        weights = np.linalg.pinv(given, rcond=1e-13, hermitian=True) @ joint[:, :, None]
        explained = (weights[:, :, 0] * joint).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            whole, single = float(explained.sum() / total.sum()), explained / total
        digits = self.n * (float(np.finfo(np.float32).eps) * np.abs(self.shift[:, -1, 0])) ** 2
        return whole, single, total, digits


class Oracle(TorchFunctionMode):
    """Sums inputs and outputs of some layers, modules and functions, of a network.

    Parameters
    ----------
    model : Module
        The network.
    axes : dict
        (layer, call) -> channel axis.
    """

    def __init__(self, model: nn.Module, axes: dict[Key, int]) -> None:
        super().__init__()
        self.model, self.axes = model, axes
        self.sums: dict[Key, Sums] = defaultdict(Sums)
        self.calls: Counter[str] = Counter()
        self.running: list[tuple[str, Counter[str], Any]] = []
        self.layers = {name for name, _ in axes}
        self.busy = False

    def run(self, batch: Tensor) -> None:
        """Run the network on one batch."""
        self.calls.clear()
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
                self.model(batch.clone())
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
                self._add(name, module, kept, output)

        return hook

    def _kept(self, value: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return value.detach().clone()

    def _add(self, name: str, module: nn.Module | None, x: Tensor, y: Tensor) -> None:
        key = name, self.calls[name]
        self.calls[name] += 1
        if key not in self.axes:
            return
        with torch._C.DisableTorchFunction():
            if isinstance(module, nn.GLU):
                self.sums[key].add([*x.chunk(2, module.dim), y], self.axes[key])
            else:
                self.sums[key].add([x, y], self.axes[key])

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
        same = [x for x, v in zip(kept, given, strict=True) if v.shape == output.shape]
        own = [x for x, v in zip(kept, given, strict=True) if not isinstance(v, nn.Parameter)]
        self._add(layer, None, (same or own)[0], output)
        return output
