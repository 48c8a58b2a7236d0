"""Moments do not depend on the order and the cut of the data, with either kernel."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.data.sources import digits
from acon_hooks.errors import HookError
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.options import MomentOptions
from acon_hooks.readings.recording import find_layers
from gathering import BOTH, accumulator, acon_c, gather

CUTS = ((2, 43), (17, 11, 9), (13,))


def partitions(
    model: nn.Module, images: Tensor, kernel: str
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Moments of one batch, and of the same images in batches of other sizes."""
    first, whole = gather(model, images, (len(images),), accumulator(kernel))
    tables = []
    for cuts in CUTS:
        again = accumulator(kernel)
        again.constants, again.learning = first.constants, False
        tables.append(gather(model, images, cuts, again)[1]["moments"])
    return whole["moments"], tables


def require_same(one: pd.DataFrame, others: list[pd.DataFrame], *, rtol: float) -> None:
    for table in others:
        for name in one.columns[4:]:
            a, b = one[name].to_numpy(float), table[name].to_numpy(float)
            if np.isfinite(a).any():
                size = np.abs(a[np.isfinite(a)]).mean()
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size, err_msg=name)


@pytest.fixture(scope="module")
def images() -> Tensor:
    test = digits("test")
    return torch.stack([test[index] for index in range(45)])


@BOTH
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 5e-5), (torch.float64, 1e-12)])
def test_order_and_partition_do_not_matter(
    images: Tensor, kernel: str, dtype: torch.dtype, rtol: float
) -> None:
    """In float32 convolutions, and torch's sums, round otherwise in other batches."""
    model = acon.build_model("digits_metaacon").to(dtype)
    require_same(*partitions(model, images.to(dtype), kernel), rtol=rtol)


@pytest.mark.parametrize("layer", [nn.ReLU(), acon_c(5, p1=1.2, p2=-0.3, beta=0.8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_sums_do_not_depend_on_the_batch(
    layer: nn.Module, layout: torch.memory_format
) -> None:
    """Nor do those of a sample on its neighbours: what remains is float64's merging."""
    model = nn.Sequential(nn.Identity(), layer).eval()
    x = torch.randn(45, 5, 9, 8, generator=torch.Generator().manual_seed(2))
    x = x.contiguous(memory_format=layout)
    require_same(*partitions(model, x, "compiled"), rtol=1e-13)


def test_a_block_that_many_samples_share_merges_in_order() -> None:
    """Batches longer than the number of blocks come around several times."""
    accumulator("compiled")
    model = nn.Sequential(nn.Identity(), nn.SiLU()).eval()
    x = torch.randn(45, 3, 6, 6, generator=torch.Generator().manual_seed(2)).double()
    tables: list[pd.DataFrame] = []
    first: Accumulator | None = None
    for kernel, cut in (("eager", 3), ("compiled", 45), ("eager", 45)):
        found = Accumulator(MomentOptions(kernel=kernel, blocks=4))
        if first is not None:
            found.constants, found.learning = first.constants, False
        first, parts = gather(model, x, (cut,), found)
        tables.append(parts["moments"])
    assert tables[0]["n"].sum() == 45 * 3 * 36
    require_same(tables[0], tables[1:], rtol=1e-12)


def test_layers_that_stop_running_are_noticed() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.SiLU(), nn.GELU()
            self.eval()

    x = torch.randn(4, 3, 5, 5)
    one, two = (replace(layer, axis=1) for layer in find_layers(Two(), ("activation",)))
    found = accumulator("compiled")
    found.learning = False
    for layer in (one, two):
        found.observe(layer, 0, x, layer.module(x), None)
    found.batch([0, 1, 2, 3])
    found.observe(one, 0, x, x, None)
    with pytest.raises(HookError, match="layer 'two' has not run in this batch"):
        found.batch([4, 5, 6, 7])
    with pytest.raises(HookError, match="saw 4 and 2 rows"):
        found.observe(two, 0, x[:2], x[:2], None)


@BOTH
def test_data_that_are_not_finite_are_not_dropped(kernel: str) -> None:
    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Identity(), nn.SiLU()).eval()
    found, _ = gather(model, x, (3,), accumulator(kernel))
    x[4, 1, 2, 2] = float("nan")
    again = accumulator(kernel)
    again.constants, again.learning = found.constants, False
    _, parts = gather(model, x, (3,), again)
    table = parts["moments"]
    lost = table[table["cxy"].isna()]
    assert list(zip(lost["block"], lost["channel"], strict=True)) == [(4, 1)]
    totals = parts["totals"].set_index("sample")["cyy"]
    assert totals.isna().tolist() == [False] * 4 + [True, False]
