"""What replacing single units really does to a network's output, and what predicts it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_hooks.readings.batch import Key
from acon_hooks.replacement.affine_layer import AffineChannels, LinearizedActivation
from acon_hooks.replacement.fitting import Fit
from acon_hooks.replacement.linearizing import linearize, linearized_layers

#: What can be put in a unit's place: (slope, intercept) from the fitted ones.
REPLACEMENTS: dict[str, Callable[[float, float, float], tuple[float, float]]] = {
    "affine": lambda slope, intercept, _mean: (slope, intercept),
    "identity": lambda _slope, _intercept, _mean: (1.0, 0.0),
    "zero": lambda _slope, _intercept, _mean: (0.0, 0.0),
    "mean": lambda slope, intercept, mean: (0.0, slope * mean + intercept),
}


def unit_damage(
    model: nn.Module,
    fit: Fit,
    images: Tensor,
    *,
    layers: Sequence[str] | None = None,
    replacements: Sequence[str] = ("affine",),
    reuse: bool = True,
) -> pd.DataFrame:
    """Replace every unit alone and measure the change of the logits.

    Parameters
    ----------
    model : Module
        The network that was fitted, in evaluation mode.
    fit : Fit
        Lines of its units, from another split than `images`.
    images : Tensor
        (N, ...), one forward pass a unit and replacement.
    layers : sequence of str, optional
        Only these layers.
    replacements : sequence of str
        Keys of `REPLACEMENTS`: the line, the input itself, zero, or the mean of the output.
    reuse : bool
        Keep what the modules before a layer return instead of computing it for every unit. Needs
        the memory of all intermediate values.

    Returns
    -------
    DataFrame
        layer, call, channel, replacement; mean, median, q95 over the images of the relative
        change of the logits, the norm of the difference over the norm; flips, the share of
        images whose largest logit is another one.

    Raises
    ------
    UsageError
        For an unknown replacement.
    """
    for name in replacements:
        if name not in REPLACEMENTS:
            known = ", ".join(REPLACEMENTS)
            raise UsageError(f"there is no replacement {name!r}; choose from {known}")
    plan = fit.plan(budget=1.0) if layers is None else fit.plan(layers=layers)
    changed = linearize(model, plan)
    places = _lines(changed)
    for line in places.values():
        line.chosen.zero_()
        line.settle()
    means = fit.table.set_index(["layer", "call", "channel"])["mean_x"]
    rows: list[dict[str, Any]] = []
    with torch.inference_mode(), Replay(changed, images, reuse) as replay:
        for unit in plan.units:
            key = unit.layer, unit.call
            mean = float(means.loc[unit.layer, unit.call, unit.channel])
            for name in replacements:
                lines = REPLACEMENTS[name](unit.slope, unit.intercept, mean)
                with _only(places[key], unit.channel, *lines):
                    logits = replay.run_from(key)
                change = relative_change(replay.logits, logits)
                flips = (logits.argmax(1) != replay.logits.argmax(1)).double().mean()
                rows.append(
                    {
                        "layer": unit.layer,
                        "call": unit.call,
                        "channel": unit.channel,
                        "replacement": name,
                        "mean": float(change.mean()),
                        "median": float(np.median(change)),
                        "q95": float(np.quantile(change, 0.95)),
                        "flips": float(flips),
                    }
                )
    return pd.DataFrame(rows)


def first_order_damage(
    model: nn.Module, fit: Fit, images: Tensor, *, layers: Sequence[str] | None = None
) -> pd.DataFrame:
    """Predict every unit's damage from the residual of its line and the network's derivative.

    One forward pass and one backward pass a logit give, for all units at once, the first-order
    change of the logits Σ_pixels ∂z/∂y · (slope·x + intercept - y).

    Parameters
    ----------
    model, fit, images, layers
        As for `unit_damage`.

    Returns
    -------
    DataFrame
        layer, call, channel, first_order: the mean over images of its norm over that of z.
    """
    plan = fit.plan(budget=1.0) if layers is None else fit.plan(layers=layers)
    changed = linearize(model, plan)
    taps = {key: _Tapped(line) for key, line in _lines(changed).items()}
    for key, tapped in taps.items():
        layer = changed.get_submodule(key[0])
        if isinstance(layer, LinearizedActivation):
            layer.lines[str(key[1])] = tapped
    with torch.enable_grad():
        logits = changed(images)
        zeros = [tapped.added for tapped in taps.values()]
        totals = [torch.zeros(tapped.rest.shape[:2]).double() for tapped in taps.values()]
        for column in range(logits.shape[1]):
            keep = column + 1 < logits.shape[1]
            slopes = torch.autograd.grad(logits[:, column].sum(), zeros, retain_graph=keep)
            for total, slope, tapped in zip(totals, slopes, taps.values(), strict=True):
                change = (tapped.fold(slope) * tapped.rest).sum(2)
                total += change.double().cpu() ** 2
    norm = logits.detach().double().norm(dim=1).cpu().unsqueeze(1)
    frames = []
    for (name, call), total in zip(taps, totals, strict=True):
        values = (total.sqrt() / norm).mean(0).numpy()
        count = np.arange(len(values))
        frames.append(
            pd.DataFrame({"layer": name, "call": call, "channel": count, "first_order": values})
        )
    return pd.concat(frames, ignore_index=True).astype({"layer": "str"})


def relative_change(before: Tensor, after: Tensor) -> npt.NDArray[np.float64]:
    """Return ‖after - before‖ / ‖before‖ of each row, float64 (N,)."""
    first, second = before.double(), after.double()
    change = (second - first).norm(dim=1) / first.norm(dim=1)
    return np.asarray(change.cpu().numpy(), dtype=np.float64)


class _Tapped(AffineChannels):
    """Gives the activation's own output, and keeps what its line would add to it."""

    def __init__(self, line: AffineChannels) -> None:
        super().__init__(line.slope.numel(), line.axis, line.slope)
        self.slope, self.intercept, self.chosen = line.slope, line.intercept, line.chosen
        self.settle()

    @property
    def skips(self) -> bool:
        """False: the activation's output is needed on every channel."""
        return False

    def replace(self, straight: Tensor, bent: Tensor) -> Tensor:
        """Return the activation's output plus a zero that the derivative is taken by."""
        self.rest = self.fold((straight - bent).detach())
        self.added = torch.zeros_like(bent).requires_grad_()
        return bent + self.added

    def fold(self, values: Tensor) -> Tensor:
        """Return (N, C, positions)."""
        moved = values.movedim(self.axis, 1)
        return moved.reshape(*moved.shape[:2], -1)


def _lines(model: nn.Module) -> dict[Key, AffineChannels]:
    return {
        (name, int(call)): line
        for name, layer in linearized_layers(model).items()
        for call, line in layer.lines.items()
        if isinstance(line, AffineChannels)
    }


@contextmanager
def _only(line: AffineChannels, channel: int, slope: float, intercept: float) -> Iterator[None]:
    """Replace one channel inside the context."""
    before = line.slope[channel].clone(), line.intercept[channel].clone()
    line.slope[channel], line.intercept[channel] = slope, intercept
    line.chosen[channel] = True
    line.settle()
    try:
        yield
    finally:
        line.slope[channel], line.intercept[channel] = before
        line.chosen[channel] = False
        line.settle()


class Replay:
    """Runs a network again and again from one of its layers on.

    The outputs of leaf modules and of linearised layers are kept from one clean pass; modules that
    ran before the layer return copies of them. Functions between modules are computed anew.

    Parameters
    ----------
    model : Module
        A linearised copy, its units not yet replaced.
    images : Tensor
        (N, ...).
    reuse : bool
        False computes everything every time.
    """

    def __init__(self, model: nn.Module, images: Tensor, reuse: bool) -> None:
        self.model, self.images, self.reuse = model, images, reuse
        self.stop = 0
        self.outputs: list[Any] = []
        self.places: dict[nn.Module, list[int]] = {}
        self.turns: dict[nn.Module, int] = {}

    def __enter__(self) -> "Replay":
        layers = list(linearized_layers(self.model).values())
        inside = {inner for layer in layers for inner in layer.modules() if inner is not layer}
        for module in self.model.modules():
            leaf = module in layers or next(module.children(), None) is None
            if leaf and module not in inside and module is not self.model:
                self.places[module] = []
                module.forward = self._patched(module, module.forward)
        self.recording = True
        self.logits: Tensor = self._run()
        self.recording = False
        if not self.reuse:
            self.outputs = []
        return self

    def __exit__(self, *exc: object) -> None:
        for module in self.places:
            del module.forward

    def run_from(self, key: Key) -> Tensor:
        """Return the logits, computing only from one use of a layer on."""
        self.stop = self.places[self.model.get_submodule(key[0])][key[1]] if self.reuse else 0
        return self._run()

    def _run(self) -> Tensor:
        self.turns = dict.fromkeys(self.places, 0)
        result: Tensor = self.model(self.images)
        return result

    def _patched(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def patched(*args: Any, **kwargs: Any) -> Any:
            turn = self.turns[module]
            self.turns[module] = turn + 1
            if not self.recording:
                place = self.places[module][turn]
                if place < self.stop:
                    return self.outputs[place].clone()
            if isinstance(module, LinearizedActivation):
                module.position = turn
            output = forward(*args, **kwargs)
            if self.recording:
                self.places[module].append(len(self.outputs))
                self.outputs.append(output.clone() if self.reuse else None)
            return output

        return patched
