"""Moments gathered by hand, for tests of accumulators with either kernel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from acon_analysis.layers import AconC
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.native import sums as native_module
from acon_hooks.moments.native.build import NativeError
from acon_hooks.moments.native.sums import Prepared, Target, native
from acon_hooks.moments.options import MomentOptions
from acon_hooks.readings.tap import Tap

KINDS = ("meta_acon", "acon", "activation")
Parts = dict[str, pd.DataFrame]

BOTH = pytest.mark.parametrize("kernel", ["eager", "compiled"])
TEAMS = pytest.mark.parametrize("team", ["torch", "own"])
SIZES = pytest.mark.parametrize(
    ("samples", "channels", "pixels"),
    [(2, 3, 2), (3, 5, 15), (2, 17, 16), (1, 24, 49), (2, 80, 70), (2, 40, 203), (1, 2, 900)],
)


def channels_last(x: Tensor) -> Tensor:
    """Return (N, C, P) whose channels lie side by side in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def buffer(constants: Prepared, samples: int, channels: int) -> tuple[Tensor, Target]:
    """Return where the compiled kernel writes its sums, and β in the last row of ACON layers."""
    rows = constants.rows + (constants.kind > 0)
    out = torch.full((rows, samples, channels), torch.nan, dtype=torch.float64)
    return out, Target(out.data_ptr(), samples * channels, channels)


@contextmanager
def four_threads(team: str) -> Iterator[None]:
    """Sum and merge on four threads, however few the values: torch's, or those that C++ starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_module, "_WORTH", 1)
        if team == "own":
            patch.setattr(native_module, "_TEAM", None)
        torch.set_num_threads(4)
        try:
            yield
        finally:
            torch.set_num_threads(1)


def accumulator(kernel: str, *, full: bool = False) -> Accumulator:
    """Return one with the given kernel; skip the test where it cannot be had."""
    if kernel == "compiled":
        try:
            native()
        except NativeError as error:
            pytest.skip(str(error))
    return Accumulator(MomentOptions(kernel=kernel, full=full))


def acon_c(channels: int, *, p1: float, p2: float, beta: float) -> AconC:
    layer = AconC(channels)
    with torch.no_grad():
        for parameter, value in ((layer.p1, p1), (layer.p2, p2), (layer.beta, beta)):
            parameter.fill_(value)
    return layer


def gather(
    model: nn.Module,
    images: Tensor,
    cuts: Sequence[int] = (64,),
    accumulator: Accumulator | None = None,
    kinds: Sequence[str] = KINDS,
) -> tuple[Accumulator, Parts]:
    """Moments of one unit, in batches of the given sizes (the last one repeated)."""
    found = accumulator or Accumulator()
    sizes, start = list(cuts), 0
    with Tap(model, kinds=kinds, observe=found.observe) as tap, torch.inference_mode():
        while start < len(images):
            size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
            batch = images[start : start + size]
            model(batch)
            tap.take()
            found.batch(list(range(start, start + len(batch))))
            start += len(batch)
    columns = {key: (f"{key[0]}_{key[1]}", 1) for key in sorted(found._pooling)}
    return found, {name: table.to_pandas() for name, table in found.unit(columns).items()}
