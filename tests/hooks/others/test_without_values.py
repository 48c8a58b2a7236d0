"""Layers that see tensors without values, in the first batch or later."""

# mypy: disable-error-code="no-any-return"

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.layers import AconC
from acon_hooks import ProofError
from acon_hooks.moments.options import MomentOptions
from network_oracle import captured, settled
from networks import Network


def cut() -> Network:
    """Maps that may be 0 wide, through a function, a product and an ACON layer."""
    return Network(
        lambda n, x: n.act(F.glu(F.gelu(n.conv(x)[:, :, 5:]), 1) - 0.1).sum(2),
        conv=nn.Conv1d(3, 8, 1),
        act=AconC(4),
    )


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
@pytest.mark.parametrize("empty_first", [False, True])
def test_maps_without_positions(empty_first: bool, kernel: Any, tmp_path: Path) -> None:
    model, full, empty = settled(cut()), torch.randn(4, 3, 9), torch.randn(2, 3, 5)
    kinds = ("activation", "product") if empty_first else ("acon", "activation", "product")
    batches = [empty, full] if empty_first else [full, empty]
    options: dict[str, Any] = {"kinds": kinds, "moments": MomentOptions(kernel=kernel)}
    alone = captured(model, [full], tmp_path / "alone", **options)
    both = captured(model, batches, tmp_path / "both", **options)
    for by in ("layer", "channel"):
        wanted, found = (run.linearity(by=by).set_index("layer")["L"] for run in (alone, both))
        pd.testing.assert_series_equal(found.sort_index(), wanted.sort_index())
    samples = both.linearity(by="sample", columns="all").set_index("sample")
    assert samples["left_out"].groupby("sample").all().tolist() == (
        [True] * 2 + [False] * 4 if empty_first else [False] * 4 + [True] * 2
    )
    with pytest.raises(ProofError, match=r"layer 'act'.*without values"):
        captured(model, [empty, full], tmp_path / "refused", kinds=("acon",))


def test_an_output_without_tensors_makes_the_census_incomplete() -> None:
    class Later(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return (F.gelu(x) for _ in range(2))

    assert acon.nonlinearities(Later().eval(), torch.randn(4, 3))["reason"].tolist() == [
        "census incomplete: what the network returned, of type generator, holds no tensor; what "
        "is computed of it later is not seen"
    ]
