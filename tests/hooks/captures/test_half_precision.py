"""Networks in half precision: sums of what the layer really computed, and β by dtype."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from acon_analysis.layers import MetaAconC
from acon_hooks import HookError, record
from network_oracle import assert_measured, captured


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_linearity_is_that_of_the_rounded_values(dtype: torch.dtype, tmp_path: Path) -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 1), nn.ReLU())
    model = model.eval().to(dtype)
    x = torch.randn(24, 3, 9, 9, dtype=dtype)
    run = captured(model, [x], tmp_path / "run")
    assert_measured(run, model, [x], {"1": 1, "3": 1})


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
