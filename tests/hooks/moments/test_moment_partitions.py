"""Moments do not depend on the order and the cut of the data, with either kernel."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.data.sources import digits
from acon_analysis.moments.frames import merge_rows
from acon_hooks.errors import HookError
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.options import MomentOptions
from acon_hooks.readings.found_layers import find_layers
from gathering import BOTH, TEAMS, accumulator, acon_c, four_threads, gather

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


@TEAMS
def test_layers_are_merged_by_several_threads_to_the_same_bytes(team: str) -> None:
    acons = [acon_c(5, p1=1.2, p2=-0.3, beta=0.1 * index) for index in range(1, 7)]
    model = nn.Sequential(*acons, *(nn.SiLU() for _ in range(6))).eval()
    x = torch.randn(45, 5, 9, 8, generator=torch.Generator().manual_seed(2))
    _, one = gather(model, x, (9,), accumulator("compiled"))
    with four_threads(team):
        _, four = gather(model, x, (9,), accumulator("compiled"))
    assert len(one["moments"]["layer"].unique()) == 12
    for name, table in one.items():
        pd.testing.assert_frame_equal(four[name], table, check_exact=True)


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
    with pytest.raises(HookError, match="saw 2 rows for a batch of 4"):
        found.observe(two, 0, x[:2], x[:2], None)


@BOTH
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_samples_that_are_not_finite_are_left_out_and_counted(kernel: str, value: float) -> None:
    x = torch.randn(12, 3, 5, 5, generator=torch.Generator().manual_seed(1)) + 3
    model = nn.Sequential(nn.Identity(), nn.SiLU(), nn.Flatten(), nn.Softplus()).eval()
    x[4, 1, 2, 2] = x[5] = value
    kept = np.delete(np.arange(12), [4, 5])
    for sizes in ((3, 3, 3, 3), (6, 6), (12,)):  # first batches with and without them
        _, parts = gather(model, x, sizes, accumulator(kernel, full=True))
        rows = parts["moments"]
        left_out = rows[rows["n_left_out"] > 0].groupby(["layer", "block"])["channel"].count()
        assert left_out.to_dict() == {
            (layer, block): width for layer, width in (("1", 3), ("3", 75)) for block in (4, 5)
        }
        total = merge_rows(rows)
        own = total[total["layer"] == "1"].reset_index(drop=True)
        assert own["n_left_out"].tolist() == [2, 2, 2]
        data = x[kept].double().movedim(1, 0).reshape(3, -1).numpy()
        shown = data / (1 + np.exp(-data))
        assert own["n"].tolist() == [250] * 3
        np.testing.assert_allclose(own["mean_x"], data.mean(1), rtol=1e-6)
        np.testing.assert_allclose(own["cyy"], 250 * shown.var(1), rtol=1e-5)
        np.testing.assert_allclose(own["max_x"], data.max(1), rtol=1e-7)
        for _, values in parts["totals"].groupby("layer"):
            lost = values.set_index("sample")["cyy"].isna()
            assert lost[lost].index.tolist() == [4, 5]
        assert set(parts["states"]["sample"]) == set(kept)


@BOTH
def test_what_varies_by_rounding_alone_adds_nothing_to_a_sample(kernel: str) -> None:
    """Two channels of one value each, but for float32's last digit, and one that varies."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 6, 6, generator=generator)
    last = torch.randint(0, 2, (4, 6, 6), generator=generator) * 2.0**-23
    x[:, 0], x[2, 1] = 1e3 * (1 + last), -7.0
    x[3, 1:] = 0.0
    model = nn.Sequential(nn.Identity(), nn.LeakyReLU(0.1)).eval()
    _, parts = gather(model, x, (4,), accumulator(kernel))
    y = np.where(x > 0, x, 0.1 * x.double().numpy())
    found = parts["totals"].set_index("sample")["cyy"]
    for sample, alive in ((0, [1, 2]), (1, [1, 2]), (2, [2])):
        expected = 36 * y[sample, alive].reshape(len(alive), -1).var(1).sum()
        np.testing.assert_allclose(found[sample], expected, rtol=1e-5)
    assert found[3] == parts["totals"].set_index("sample")["sse"][3] == 0
