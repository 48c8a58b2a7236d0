"""The randomisation check: maps of shuffled layers are others, and maps that stay are found out."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from acon_analysis.data.sources import digits
from acon_analysis.errors import UsageError
from acon_hooks.explainers.sanity import randomization_check, rank_correlation, shuffle


def test_randomising_the_layer_changes_the_map(digits_metaacon: nn.Module) -> None:
    before = {name: value.clone() for name, value in digits_metaacon.state_dict().items()}
    images = torch.stack([digits("test")[sample] for sample in (0, 125, 250, 375)])
    call = {"channel": 5, "draws": 5, "method": "saliency"}
    frame = randomization_check(digits_metaacon, images, "layer3.0.acon", seed=1, **call)  # type: ignore[arg-type]
    again = randomization_check(digits_metaacon, images, "layer3.0.acon", seed=1, **call)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(frame, again)
    assert len(frame) == 4 * 5
    assert abs(frame["correlation"].mean()) < 0.3
    assert frame["beta_before"].nunique() == 4
    assert not np.allclose(frame["beta_before"], frame["beta_after"])
    for name, value in digits_metaacon.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_check_can_fail() -> None:
    """A map that does not depend on the weights is found out: it stays the same."""

    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p1 = nn.Parameter(torch.tensor([1.5, 0.7]).view(1, 2, 1, 1))
            self.p2 = nn.Parameter(torch.tensor([0.2, -0.4]).view(1, 2, 1, 1))
            self.gate = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            beta = torch.sigmoid(self.gate((x**2).mean((2, 3), keepdim=True)))
            d = (self.p1 - self.p2) * x
            return d * torch.sigmoid(beta * d) + self.p2 * x

    net = nn.Sequential(Stubborn()).eval()
    frame = randomization_check(
        net, torch.randn(2, 2, 5, 5), "0", 0, seed=0, draws=2, method="saliency"
    )
    assert frame["correlation"].min() > 0.999


def test_shuffle_and_ranks() -> None:
    net = nn.BatchNorm2d(3)
    with pytest.raises(UsageError, match="nothing in this BatchNorm2d can be shuffled"):
        shuffle(net, torch.Generator().manual_seed(0))
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([1, 8, 9, 70])) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5)))
