"""Networks in half precision: sums of what the layer really computed, and β by dtype."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.layers import MetaAconC
from acon_hooks import HookError, record


def observed(model: nn.Module, name: str, x: Tensor) -> tuple[Any, Any]:
    """Input and output of one layer as it computes them, (C, N·positions), float64."""
    pair: list[Tensor] = []
    module = model.get_submodule(name)
    handle = module.register_forward_hook(lambda _m, args, out: pair.extend((args[0], out)))
    with torch.no_grad():
        model(x)
    handle.remove()
    given, made = (value.double().transpose(0, 1).flatten(1).numpy() for value in pair)
    return given, made


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_linearity_is_that_of_the_rounded_values(dtype: torch.dtype, tmp_path: Path) -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 1), nn.ReLU())
    model = model.eval().to(dtype)
    x = torch.randn(24, 3, 9, 9, dtype=dtype)
    run = acon.capture(model, [x], tmp_path / "run", progress=False, moments=True)
    table = run.linearity(by="channel", columns="all").set_index(["layer", "channel"])
    for name in ("1", "3"):
        given, made = observed(model, name, x)
        for channel, (a, b) in enumerate(zip(given, made, strict=True)):
            expected = np.corrcoef(a, b)[0, 1] ** 2
            assert table.loc[(name, channel), "L"] == pytest.approx(expected, rel=1e-6)


def test_autocast_is_refused_unless_it_is_allowed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), MetaAconC(4)).eval()
    x = torch.randn(6, 3, 9, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(HookError, match="leave autocast, or pass allow"), record(model):
            model(x)
        with record(model, allow_autocast=True) as recording:
            model(x)
    assert [report.dtype for report in recording.reports] == ["bfloat16"]
    with torch.no_grad(), record(model) as exact:
        model(x)
    gap = np.abs(recording.beta_matrix("1") - exact.beta_matrix("1"))
    assert 0 < gap.max() < 1e-2
