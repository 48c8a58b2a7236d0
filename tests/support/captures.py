"""A tiny network and its images, for tests of captures and the processes that they start."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from acon_analysis.layers import MetaAconC
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


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of everything that two equal runs share."""
    files = [*folder.glob("*/*.parquet"), *folder.glob("*.parquet"), *folder.glob("done/*.json")]
    found = {str(file.relative_to(folder)): file_sha256(file) for file in sorted(files)}
    manifest = json.loads((folder / "manifest.json").read_text())
    return found | {f"manifest {key}": str(manifest[key]) for key in ("parts", "tables", "run_id")}
