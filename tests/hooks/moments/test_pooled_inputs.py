"""Means of the inputs over the pixels, which make β, as a capture keeps them."""

import numpy as np
import pytest
import torch
from torch import nn

from gathering import BOTH, accumulator, gather
from support_variants import LayerWise, Official, Static, shaken

C = 8


@BOTH
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_they_are_the_means_over_all_pixels(kernel: str, shift: float) -> None:
    torch.manual_seed(0)
    model = shaken(
        nn.Sequential(nn.ReLU(), Official(C), LayerWise(C), Static(C), nn.Conv2d(C, C, 1))
    )
    model.append(shaken(Official(C)))
    x = torch.randn(11, C, 7, 5) + shift
    seen: list[torch.Tensor] = []
    for index in (1, 5):
        model[index].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        model(x)
    _, parts = gather(model, x, (4,), accumulator(kernel))
    pooled = parts["pooled"]
    assert list(pooled) == ["sample_id", "1_0", "5_0"]  # only where every channel has its own β
    for name, given in zip(("1_0", "5_0"), seen, strict=False):
        expected = given.double().mean((2, 3)).numpy()
        values = np.stack(pooled[name].to_list())
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, rtol=3e-7, atol=3e-7 * np.abs(expected).max())


@BOTH
def test_they_are_kept_of_single_pixels_and_of_what_is_not_finite(kernel: str) -> None:
    model = shaken(nn.Sequential(Official(C)))
    x = torch.randn(6, C, 1, 1)
    _, parts = gather(model, x, (3,), accumulator(kernel))
    np.testing.assert_array_equal(np.stack(parts["pooled"]["0_0"].to_list()), x[:, :, 0, 0])
    found, _ = gather(model, torch.randn(6, C, 3, 3), (3,), accumulator(kernel))
    x = torch.randn(6, C, 3, 3)
    x[4, 1, 2, 2] = torch.inf
    again = accumulator(kernel)
    again.constants, again.learning = found.constants, False
    _, parts = gather(model, x, (3,), again)
    values = np.stack(parts["pooled"]["0_0"].to_list())
    assert values[4, 1] == np.inf
    assert np.isfinite(np.delete(values[:4], 1, axis=1)).all()


@BOTH
def test_there_are_none_where_no_channel_has_a_beta_per_sample(kernel: str) -> None:
    model = shaken(nn.Sequential(Static(C), nn.SiLU()))
    _, parts = gather(model, torch.randn(6, C, 3, 3), (3,), accumulator(kernel))
    assert "pooled" not in parts
    assert len(parts["moments"])
