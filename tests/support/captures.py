"""A tiny network and its images, for tests of captures and the processes that they start."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from acon_analysis.layers import MetaAconC
from acon_analysis.runs.run import Run
from acon_analysis.store.folder import file_sha256


class Tiny(nn.Module):
    """Convolutions with BatchNorm and two Meta-ACON layers, on images of any size."""

    input_shape = (3, 6, 5)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 4, 1)
            self.norm = nn.BatchNorm2d(4)
            self.acon = MetaAconC(4)
            self.conv2 = nn.Conv2d(4, 6, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(6)
            self.acon2 = MetaAconC(6)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.data.uniform_(0.5, 2)
                    module.bias.data.normal_()
                    module.running_mean.normal_()  # type: ignore[union-attr]
                    module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.acon(self.norm(self.conv(x)))
        out: Tensor = self.acon2(self.norm2(self.conv2(x)))
        return out.mean((2, 3))


def tiny() -> Tiny:
    """Return a network whose class has the same name in every process."""
    return Tiny()


def images(count: int, seed: int = 1) -> TensorDataset:
    """Return a data set of random images (count, 3, 6, 5)."""
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 3, 6, 5, generator=generator))


class Items(Dataset[Any]):
    """A list as a data set."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of everything that two equal runs share."""
    files = [*folder.glob("*/*.parquet"), *folder.glob("*.parquet"), *folder.glob("done/*.json")]
    found = {str(file.relative_to(folder)): file_sha256(file) for file in sorted(files)}
    manifest = json.loads((folder / "manifest.json").read_text())
    return found | {f"manifest {key}": str(manifest[key]) for key in ("parts", "tables", "run_id")}


def assert_same_linearity(first: Run, second: Run, tolerance: float = 1e-6) -> None:
    """Compare L by layer, channel and sample, the number of values, and their extremes."""
    for by in ("layer", "channel", "sample"):
        one, two = first.linearity(by=by, columns="all"), second.linearity(by=by, columns="all")
        np.testing.assert_allclose(one["L"], two["L"], rtol=0, atol=tolerance)
    one, two = (run.totals.sort_values(["layer", "sample"]) for run in (first, second))
    np.testing.assert_array_equal(one["n"], two["n"])
    groups = [run.moments.groupby(["layer", "channel"]) for run in (first, second)]
    for name, value in (("min_x", "min"), ("max_x", "max"), ("n", "sum"), ("n_positive", "sum")):
        ends = [group[name].agg(value) for group in groups]
        np.testing.assert_allclose(ends[0], ends[1], atol=tolerance)
