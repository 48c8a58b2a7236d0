"""Cost of measuring the linearity of blocks, in bare forward passes of the network.

A vision transformer of 12 blocks of 768 channels with random weights, on noise. `--samples N ...`
and `--side N`, of the images (224: 197 tokens; 64: 17 tokens). Bare passes run before and after.
"""

import argparse
import warnings
from typing import Any

import timm
import torch
from common import seconds, table, write_section
from torch import Tensor

from acon_hooks import block_linearity
from acon_hooks.errors import BlockWarning

#: Samples of a forward pass, in both.
BATCH = 16


def batches(samples: int, side: int) -> list[Tensor]:
    """Return noise, (N, 3, side, side), in batches."""
    generator = torch.Generator().manual_seed(0)
    return list(torch.split(torch.randn(samples, 3, side, side, generator=generator), BATCH))


def measured(network: Any, samples: int, side: int) -> list[object]:
    """Return the row of one measurement."""
    data = batches(samples, side)

    @torch.inference_mode()
    def bare() -> None:
        for batch in data:
            network(batch)

    with torch.inference_mode():
        network(data[0])
    before = seconds(bare)
    own = seconds(lambda: block_linearity(network, data))
    after = seconds(bare)
    mean = (before + after) / 2
    tokens = (side // 16) ** 2 + 1
    return [tokens, samples, f"{before:.1f}, {after:.1f}", f"{own:.1f}", f"{own / mean:.2f}"]


def main() -> None:
    """Measure, and write the section of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[1000])
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch16_224", img_size=options.side).eval()
    warnings.simplefilter("ignore", BlockWarning)
    rows = [measured(network, samples, options.side) for samples in options.samples]
    header = ["tokens", "samples", "bare passes before, after, s", "blocks, s", "in bare passes"]
    write_section(
        f"f. Linearity of 12 blocks of 768 channels, {rows[0][0]} tokens", table(header, rows)
    )


if __name__ == "__main__":
    main()
