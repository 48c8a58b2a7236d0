"""The census of five well-known networks, for the guide.

``python benchmarks/census_examples.py`` writes the table into ``docs/guide/measured.md`` in the
place of the one before. Weights are random: what is called does not depend on them.
"""

import warnings
from pathlib import Path

import timm
import torch
import torchvision
import transformers
from common import table
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.statistics.census import census_table, layers_once

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "measured.md"
BEGIN, END = "<!-- census of five networks -->\n", "<!-- end -->\n"


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the networks, each with an input of one sample."""
    image, large = torch.randn(1, 3, 224, 224), torch.randn(1, 3, 299, 299)
    bert = transformers.BertModel(transformers.BertConfig())
    models = torchvision.models
    return {
        "ResNet-18 (torchvision)": (models.resnet18(), image),
        "Inception v3 (torchvision)": (models.inception_v3(init_weights=False), large),
        "ViT-B/16 (torchvision)": (models.vit_b_16(), image),
        "EfficientNet-B0 (timm)": (timm.create_model("efficientnet_b0"), image),
        "BERT, base (transformers)": (bert, torch.randint(0, 30000, (1, 128))),
    }


def row(name: str, model: nn.Module, example: Tensor) -> list[str]:
    """Return what the census of a network says, in five cells."""
    frame = layers_once(acon.nonlinearities(model.eval(), example))
    nonlinear = frame[frame["class"] == "nonlinear"]
    measured = nonlinear[nonlinear["measured"]]
    share = measured["elements"].sum() / nonlinear["elements"].sum()
    cells = []
    for group in (measured, nonlinear[~nonlinear["measured"]]):
        calls = census_table(group).groupby("operator", sort=False)["calls"].sum()
        cells.append(", ".join(f"{count} {operator}" for operator, count in calls.items()) or "-")
    total = frame["calls"].sum()
    return [name, f"{total} ({nonlinear['calls'].sum()})", cells[0], cells[1], f"{share:.0%}"]


def main() -> None:
    """Write the table."""
    header = ("network", "operators (nonlinear)", "measured", "not measured", "share measured")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [row(name, *made) for name, made in networks().items()]
    head, rest = PAGE.read_text("utf-8").split(BEGIN)
    page = f"{head}{BEGIN}{table(header, rows)}\n{END}{rest.split(END)[1]}"
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
