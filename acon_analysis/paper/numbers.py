"""The numbers that the ACON paper and its official repository print, as rows.

Grades: A, seen in a primary artefact and cross-checked; B, one primary artefact or two secondary
ones. Nothing weaker is listed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

PAPER = "Ma, Zhang, Liu, Sun, CVPR 2021, doi:10.1109/CVPR46437.2021.00794"

#: Activations of the networks in the paper's training curves: name in a network's name, and title.
NETWORK_ACTIVATIONS = {
    "relu": "ReLU",
    "swish": "ACON-A (Swish)",
    "acon": "ACON-C",
    "metaacon": "Meta-ACON",
}


@dataclass(frozen=True)
class PaperColumn:
    """One column of a printed table: its name in the frame, and the heading above it.

    ``latex`` is the heading in LaTeX, empty where the text serves; ``show`` turns a value into what
    is printed.
    """

    name: str
    heading: str
    latex: str = ""
    show: Callable[[Any], str] = str


@dataclass(frozen=True)
class Best:
    """Which numbers are printed bold: the best of a row, of a column, or of a group's column."""

    columns: tuple[str, ...]
    by: Literal["row", "column", "group"]
    sense: Literal["min", "max"]
    group: str = ""


@dataclass(frozen=True)
class PaperTable:
    """One printed table.

    ``title`` is what the paper calls it, such as "Table 3"; ``caption`` what it shows, in this
    project's words; ``source`` where the numbers were seen, and ``grade`` how sure they are. Rows
    have one value a column, None where nothing is printed; ``breaks`` are those above which the
    printed table has a line.
    """

    name: str
    title: str
    caption: str
    source: str
    grade: Literal["A", "B"]
    columns: tuple[PaperColumn, ...]
    rows: tuple[tuple[Any, ...], ...]
    best: Best | None = None
    notes: tuple[str, ...] = ()
    breaks: tuple[int, ...] = ()


def millions(value: float) -> str:
    """Print 41.0 as 41M, 1.4 as 1.4M and 3900.0 as 3.9G."""
    if value >= 1000.0:
        return f"{value / 1000.0:.1f}G"
    return f"{value:.0f}M" if value >= 100.0 or value == round(value) else f"{value:.1f}M"


def parameters(value: float) -> str:
    """Print 1.4 as 1.4M and 60.0 as 60.0M."""
    return f"{value:.1f}M"


def tenths(value: float) -> str:
    """Print one decimal."""
    return f"{value:.1f}"


def _plus(value: float) -> str:
    return f"+{value:.1f}"


def _counted(value: float) -> str:
    """Print a counted number of millions with three digits: 1.38M, 40.5M, 3.86G."""
    if value >= 1000.0:
        return f"{value / 1000.0:.3g}G"
    return f"{value:.3g}M" if value >= 100.0 else f"{value:.{1 if value >= 10.0 else 2}f}M"


_FLOPS = PaperColumn("flops_m", "FLOPs", show=millions)
_PARAMS = PaperColumn("params_m", "Params", show=parameters)
_ERROR = PaperColumn("error", "Top-1 err.", show=tenths)


def _errors(*names: tuple[str, str]) -> tuple[PaperColumn, ...]:
    return tuple(PaperColumn(name, heading, show=tenths) for name, heading in names)


TABLE3 = PaperTable(
    "table3",
    "Table 3",
    "ImageNet top-1 error (%) of ReLU and the ACON family, trained and tested at 224 x 224.",
    f"{PAPER}, Table 3, with the official README",
    "A",
    (
        PaperColumn("model", "Model"),
        _FLOPS,
        _PARAMS,
        *_errors(
            ("relu", "ReLU"),
            ("acon_a", "ACON-A (Swish)"),
            ("acon_b", "ACON-B"),
            ("acon_c", "ACON-C"),
        ),
        PaperColumn("gain", "Gain", show=_plus),
    ),
    (
        ("ShuffleNetV2 0.5x", 41.0, 1.4, 39.4, 38.3, 38.0, 37.0, 2.4),
        ("ShuffleNetV2 1.5x", 299.0, 3.5, 27.4, 26.8, 26.8, 26.5, 0.9),
        ("ResNet 18", 1800.0, 11.7, 30.3, 30.3, 29.4, 29.1, 1.2),
        ("ResNet 50", 3900.0, 25.5, 24.0, 23.5, 23.3, 23.2, 0.8),
        ("ResNet 101", 7600.0, 44.4, 22.8, 22.7, 22.3, 21.8, 1.0),
        ("ResNet 152", 11300.0, 60.0, 22.3, 22.2, 21.7, 21.2, 1.1),
    ),
    Best(("relu", "acon_a", "acon_b", "acon_c"), "row", "min"),
    ("Gain: of ACON-C over ReLU, in points.",),
    (2,),
)

TABLE4 = PaperTable(
    "table4",
    "Table 4",
    "ImageNet top-1 error (%) of ShuffleNetV2 0.5x with different activations.",
    f"{PAPER}, Table 4",
    "A",
    (PaperColumn("activation", "Activation"), _ERROR),
    (
        ("ReLU", 39.4),
        ("Swish", 38.3),
        ("Mish", 39.5),
        ("ELU", 39.5),
        ("SoftPlus", 39.6),
        ("ACON-C", 37.0),
        ("meta-ACON", 34.8),
    ),
    Best(("error",), "column", "min"),
    (),
    (5,),
)

_AP = ("map", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
TABLE9 = PaperTable(
    "table9",
    "Table 9",
    "COCO object detection (average precision, %) of RetinaNet with a ResNet-50 backbone.",
    f"{PAPER}, Table 9",
    "A",
    (
        PaperColumn("activation", "Activation"),
        PaperColumn("map", "mAP", show=tenths),
        PaperColumn("ap50", "AP50", "AP$_{50}$", tenths),
        PaperColumn("ap75", "AP75", "AP$_{75}$", tenths),
        PaperColumn("ap_s", "AP_S", "AP$_S$", tenths),
        PaperColumn("ap_m", "AP_M", "AP$_M$", tenths),
        PaperColumn("ap_l", "AP_L", "AP$_L$", tenths),
    ),
    (
        ("ReLU", 35.2, 53.7, 37.5, 18.8, 39.7, 48.8),
        ("Swish", 35.8, 54.1, 38.7, 18.6, 40.0, 49.4),
        ("meta-ACON", 36.5, 55.9, 38.9, 19.9, 40.7, 50.6),
    ),
    Best(_AP, "column", "max"),
)

TABLE10 = PaperTable(
    "table10",
    "Table 10",
    "CityScapes semantic segmentation (mean intersection over union, %) of PSPNet with a "
    "ResNet-50 backbone.",
    f"{PAPER}, Table 10",
    "A",
    (
        PaperColumn("activation", "Activation"),
        _FLOPS,
        _PARAMS,
        PaperColumn("mean_iu", "mean IU", show=tenths),
    ),
    (
        ("ReLU", 3900.0, 25.5, 77.2),
        ("Swish", 3900.0, 25.5, 77.5),
        ("meta-ACON", 3900.0, 25.7, 78.3),
    ),
    Best(("mean_iu",), "column", "max"),
)

META_ACON = PaperTable(
    "meta_acon",
    "meta-ACON",
    "ImageNet top-1 error (%) of meta-ACON, and its gain over ReLU in points.",
    "official repository, README (the table's number in the paper is not known)",
    "A",
    (
        PaperColumn("model", "Model"),
        _FLOPS,
        _PARAMS,
        _ERROR,
        PaperColumn("gain", "Gain over ReLU", show=_plus),
    ),
    (
        ("ShuffleNetV2 0.5x", 41.0, 1.7, 34.8, 4.6),
        ("ShuffleNetV2 1.5x", 299.0, 3.9, 24.7, 2.7),
        ("ResNet 50", 3900.0, 25.7, 22.0, 2.0),
        ("ResNet 101", 7600.0, 44.8, 21.0, 1.8),
        ("ResNet 152", 11300.0, 60.5, 20.5, 1.8),
    ),
    notes=(
        "MobileNet-0.25 gains 6.7 points by the abstract.",
        "The bar chart prints 1.7 for ResNet 101.",
    ),
    breaks=(2,),
)

TFNET = PaperTable(
    "tfnet",
    "TFNet",
    "ImageNet top-1 error (%) of TFNet and of networks of the same cost.",
    "official repository, README (the table's number in the paper is not known)",
    "A",
    (PaperColumn("size", "Size"), PaperColumn("model", "Model"), _FLOPS, _PARAMS, _ERROR),
    (
        ("0.5", "MobileNetV2 0.17", 42.0, 1.4, 52.6),
        ("0.5", "ShuffleNetV2 0.5x", 41.0, 1.4, 39.4),
        ("0.5", "TFNet 0.5", 43.0, 1.3, 36.6),
        ("1.0", "MobileNetV2 0.6", 141.0, 2.2, 33.3),
        ("1.0", "ShuffleNetV2 1.0x", 146.0, 2.3, 30.6),
        ("1.0", "TFNet 1.0", 135.0, 1.9, 29.7),
        ("1.5", "MobileNetV2 1.0", 300.0, 3.4, 28.0),
        ("1.5", "ShuffleNetV2 1.5x", 299.0, 3.5, 27.4),
        ("1.5", "TFNet 1.5", 279.0, 2.7, 26.0),
        ("2.0", "MobileNetV2 1.4", 585.0, 5.5, 25.3),
        ("2.0", "ShuffleNetV2 2.0x", 591.0, 7.4, 25.0),
        ("2.0", "TFNet 2.0", 474.0, 3.8, 24.3),
    ),
    Best(("error",), "group", "min", "size"),
    (),
    (3, 6, 9),
)

IMPROVEMENTS = PaperTable(
    "improvements",
    "Improvements",
    "Gain in ImageNet top-1 accuracy over the ReLU network, in points.",
    f"{PAPER}, bar chart; heights read from the picture to 0.01",
    "A",
    (
        PaperColumn("network", "Network"),
        *_errors(("swish", "Swish"), ("senet", "SENet"), ("meta_acon", "meta-ACON")),
    ),
    (
        ("ShuffleNetV2", 0.8, 1.0, 2.7),
        ("ResNet50", 0.5, 1.2, 2.0),
        ("ResNet101", 0.1, 0.9, 1.7),
        ("ResNet152", 0.1, 0.8, 1.8),
    ),
    Best(("swish", "senet", "meta_acon"), "row", "max"),
    (
        "ResNet101, meta-ACON: the README prints 1.8 (22.8 - 21.0).",
        "ShuffleNetV2, Swish: Table 3 gives 0.6 (1.5x: 27.4 - 26.8).",
    ),
)

COUNTS = PaperTable(
    "counts",
    "Counts",
    "Parameters and multiply-adds: printed, and counted on this project's networks (1000 classes, "
    "224 x 224; convolutions and matrix products).",
    f"printed: {PAPER}, Table 3, and the official README; counted: this project",
    "A",
    (
        PaperColumn("network", "Network"),
        PaperColumn("params_m", "Params, printed", show=parameters),
        PaperColumn("params_counted_m", "Params, counted", show=_counted),
        PaperColumn("flops_m", "FLOPs, printed", show=millions),
        PaperColumn("macs_counted_m", "MACs, counted", show=_counted),
    ),
    (
        ("resnet50_acon", 25.5, 25.594920, 3900.0, 3857.973248),
        ("resnet101_acon", 44.4, 44.626216, 7600.0, 7570.194432),
        ("resnet152_acon", 60.0, 60.304424, 11300.0, 11282.415616),
        ("resnet50_metaacon", 25.7, 25.773368, 3900.0, 3858.143232),
        ("resnet101_metaacon", 44.8, 44.953448, 7600.0, 7570.503680),
        ("resnet152_metaacon", 60.5, 60.763032, 11300.0, 11282.847744),
        ("shufflenet_v2_x0_5_acon", 1.4, 1.379600, 41.0, 40.476448),
        ("shufflenet_v2_x1_0_acon", None, 2.304740, None, 145.814296),
        ("shufflenet_v2_x1_5_acon", 3.5, 3.543440, 299.0, 298.970656),
        ("shufflenet_v2_x2_0_acon", None, 7.455588, None, 590.783000),
        ("shufflenet_v2_x0_5_metaacon", 1.7, 1.686620, 41.0, 40.776224),
        ("shufflenet_v2_x1_0_metaacon", None, 2.596384, None, 146.092760),
        ("shufflenet_v2_x1_5_metaacon", 3.9, 3.953842, 299.0, 299.362976),
        ("shufflenet_v2_x2_0_metaacon", None, 8.437946, None, 591.739448),
        ("tfnet_x0_5", 1.3, 1.344504, 43.0, 42.450560),
        ("tfnet_x1_0", 1.9, 1.923336, 135.0, 134.805760),
        ("tfnet_x1_5", 2.7, 2.778904, 279.0, 278.541184),
        ("tfnet_x2_0", 3.8, 3.911208, 474.0, 473.656832),
    ),
    notes=("Table 3 prints one size for all its activations.",),
    breaks=(6, 14),
)

CONTRADICTIONS = (
    (
        "gain of meta-ACON over ReLU, ResNet 101",
        "1.7", "the paper's bar chart",
        "1.8", "official README; 22.8 - 21.0 in the tables",
    ),
    (
        "gain of Swish over ReLU, ShuffleNetV2 1.5x",
        "0.8", "the paper's bar chart",
        "0.6", "Table 3: 27.4 - 26.8",
    ),
    (
        "what the network that makes β sees of a channel",
        "the sum over height and width", "the paper's formula, as reviews quote it",
        "the mean over height and width", "official code",
    ),
    (
        "inner width and layers of the network that makes β",
        "C/r, two matrices", "the paper's formula, as reviews quote it",
        "max(r, C // r), two 1x1 convolutions with biases, a BatchNorm after each", "official code",
    ),
    (
        "argument of the sigmoid in panels (b), (c) of function and derivatives",
        "0.7 β x for every curve", "the paper's picture",
        "(p1 - p2) β x", "the paper's formula",
    ),
    (
        "vertical axis of the β distributions",
        "Distribution (%)", "the paper's picture",
        "a density: the bars have area 0.98", "the picture's own numbers",
    ),
    (
        "parameters of ResNet 101 with ACON-C",
        "44.4M", "Table 3",
        "44.626M", "counted on the official architecture",
    ),
    (
        "parameters of ResNet 152 with ACON-C",
        "60.0M", "Table 3",
        "60.304M", "counted on the official architecture",
    ),
)  # fmt: skip

ALL = (TABLE3, TABLE4, TABLE9, TABLE10, META_ACON, TFNET, IMPROVEMENTS, COUNTS)
