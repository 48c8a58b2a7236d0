"""Every column that this project writes or hands out: name, type, unit, meaning.

One place, so that the store, the tables and the figures cannot disagree.
"""

from dataclasses import dataclass

#: Version of the layout of a run on disk; raised when an old reader would misread a new run.
RUN_FORMAT = "acon-run/1"


@dataclass(frozen=True)
class Column:
    """One column of a frame.

    Parameters
    ----------
    name : str
        Its name in every frame and file.
    dtype : str
        Its pandas dtype.
    unit : str
        Its unit; ``"1"`` for a pure number, ``""`` for names.
    meaning : str
        One sentence.
    """

    name: str
    dtype: str
    unit: str
    meaning: str


SAMPLE_COLUMNS = (
    Column("sample_id", "int64", "", "position of the image in the data set, from 0"),
    Column(
        "path", "str", "", "file relative to the data folder, or the image's name in a data set"
    ),
    Column("label", "str", "", "class name; missing for a flat folder"),
    Column("bytes", "int64", "byte", "size of the file, or of the raw array"),
    Column("sha256", "str", "", "SHA-256 of the file, or of the raw array; empty if not known"),
)

LAYER_COLUMNS = (
    Column("layer", "str", "", "exact name in named_modules()"),
    Column("call", "int64", "", "which use of the layer within one forward pass, from 0"),
    Column("kind", "str", "", "meta_acon, acon, acon_frelu, activation or gate"),
    Column("channels", "int64", "1", "channels of the layer"),
    Column("granularity", "str", "", "what one beta belongs to: channel, layer, pixel or static"),
    Column("reader", "str", "", "how beta was read"),
    Column("class_name", "str", "", "class of the module"),
    Column("column", "str", "", "column of betas/*.parquet; empty where beta is static"),
    Column("proof_error", "float64", "1", "largest |output - formula| over the output's scale"),
    Column("proof_power", "float64", "1", "share of channels for which the proof has power"),
)

CHANNEL_COLUMNS = (
    Column("layer", "str", "", "exact name in named_modules()"),
    Column("channel", "int64", "", "channel, from 0"),
    Column("p1", "float64", "1", "slope of the first line"),
    Column("p2", "float64", "1", "slope of the second line"),
    Column("beta", "float64", "1", "static switching factor; NaN where beta depends on the sample"),
    Column("bn_weight", "float64", "1", "scale of the last BatchNorm before beta; NaN without one"),
    Column("bn_bias", "float64", "1", "shift of the last BatchNorm before beta; NaN without one"),
)

BETA_COLUMNS = (
    Column("sample", "int64", "", "sample_id"),
    Column("layer", "str", "", "exact name in named_modules()"),
    Column("call", "int64", "", "which use of the layer within one forward pass, from 0"),
    Column("channel", "int64", "", "channel, from 0"),
    Column("beta", "float32", "1", "switching factor"),
)

#: Bins of the β histograms, of equal width from 0 to 1.
HISTOGRAM_BINS = 256

HISTOGRAM_COLUMNS = (
    Column("layer", "str", "", "exact name in named_modules()"),
    Column("call", "int64", "", "which use of the layer within one forward pass, from 0"),
    Column("channel", "int64", "", "channel, from 0; -1 where a row is of the whole layer"),
    Column("count", "object", "1", "samples in each of 256 bins from 0 to 1 (1 is in the last)"),
    Column("below", "int64", "1", "samples with beta < 0"),
    Column("above", "int64", "1", "samples with beta > 1"),
    Column("invalid", "int64", "1", "samples with beta not a number"),
)

ERROR_COLUMNS = (
    Column("sample_id", "int64", "", "position of the image in the data set, from 0"),
    Column("path", "str", "", "the image that could not be read"),
    Column("reason", "str", "", "why"),
)

CURVE_COLUMNS = (
    Column("epoch", "int64", "epoch", "epochs finished"),
    Column("iteration", "int64", "step", "optimiser steps finished"),
    Column("lr", "float64", "1", "learning rate of the last step"),
    Column("train_loss", "float64", "nat", "mean cross-entropy while training, augmented images"),
    Column("train_error", "float64", "1", "share of wrong answers while training"),
    Column("test_loss", "float64", "nat", "mean cross-entropy on the held-out split"),
    Column("test_error", "float64", "1", "share of wrong answers on the held-out split"),
)


def names(columns: tuple[Column, ...]) -> list[str]:
    """Return the names of some columns, in order."""
    return [column.name for column in columns]
