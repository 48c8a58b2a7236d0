"""Every column that this project writes or hands out: name, type, unit, meaning.

They stand together, so that the store, the tables and the figures cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: Version of the layout of a run on disk; raised when an old reader would misread a new run.
RUN_FORMAT = "acon-run/2"

#: Versions that this one reads; 1 knows no gated products.
READABLE_FORMATS = ("acon-run/1", RUN_FORMAT)


@dataclass(frozen=True)
class Column:
    """One column of a frame: name, pandas dtype, unit ("1": a pure number, "": a name), meaning."""

    name: str
    dtype: str
    unit: str
    meaning: str


def _number(name: str, meaning: str, unit: str = "1") -> Column:
    return Column(name, "float64", unit, meaning)


def _count(name: str, meaning: str, unit: str = "1") -> Column:
    return Column(name, "int64", unit, meaning)


def _text(name: str, meaning: str) -> Column:
    return Column(name, "str", "", meaning)


def _flag(name: str, meaning: str) -> Column:
    return Column(name, "bool", "", meaning)


_LAYER = _text("layer", "exact name in named_modules()")
_LAYER_CALL = (_LAYER, _count("call", "which use of the layer within one forward pass, from 0", ""))
_CHANNEL = _count("channel", "channel, from 0", "")
_CHANNELS = _count("channels", "channels of the layer")
_SAMPLE = _count("sample", "sample_id", "")
_SAMPLE_ID = _count("sample_id", "position of the image in the data set, from 0", "")

#: A row an image of a data set or run.
SAMPLE_COLUMNS = (
    _SAMPLE_ID,
    _text("path", "file relative to the data folder, or the image's name in a data set"),
    _text("label", "class name; missing for a flat folder"),
    _count("bytes", "size of the file, or of the raw array", "byte"),
    _text("sha256", "SHA-256 of the file, or of the raw array; empty if not known"),
)

_PARAMETERS = _text("parameters", "of the activation, such as negative_slope=0.1; empty without")

#: A row a layer and call of a run.
LAYER_COLUMNS = (
    *_LAYER_CALL,
    _text("kind", "meta_acon, acon, acon_frelu, activation, product or gate"),
    _CHANNELS,
    _text("granularity", "what one beta belongs to: channel, layer, pixel or static"),
    _text("reader", "how beta was read"),
    _text("class_name", "class of the module"),
    _text("column", "column of betas/*.parquet; empty where beta is static"),
    _number("proof_error", "largest |output - formula| over the output's scale"),
    _number("proof_power", "share of channels for which the proof has power"),
    _text("gate_of", "the product whose gate this layer makes; empty for others"),
    _PARAMETERS,
)

#: Columns of `LAYER_COLUMNS` that earlier versions did not write, with what stands in their place.
LAYER_DEFAULTS = {"gate_of": "", "parameters": ""}

#: A row a layer and channel of a run.
CHANNEL_COLUMNS = (
    _LAYER,
    _CHANNEL,
    _number("p1", "slope of the first line"),
    _number("p2", "slope of the second line"),
    _number("beta", "static switching factor; NaN where beta depends on the sample"),
    _number("bn_weight", "scale of the last BatchNorm before beta; NaN without one"),
    _number("bn_bias", "shift of the last BatchNorm before beta; NaN without one"),
)

#: A row a module, operator and verdict of one forward pass.
NONLINEARITY_COLUMNS = (
    _text("name", "module path of the innermost module that was running"),
    _text("operator", "name in torch.ops.aten, others with their library in front"),
    _count("calls", "how often it was called there"),
    _count("elements", "elements of the outputs of these calls"),
    _text("class", "linear or nonlinear in what depends on the input, or unknown"),
    _flag("measured", "whether the calls are part of a layer that is measured"),
    _text("layer", "that layer; empty where there is none"),
    _text("reason", "what the operator is, or why it counts as linear or unknown"),
)

#: A row an operator of a census that is nonlinear in the input, or unknown.
CENSUS_COLUMNS = (
    _text("operator", "its name"),
    _text("class", "nonlinear or unknown"),
    _text("reason", "what it is, or why it is unknown"),
    _count("calls", "how often it was called in one forward pass"),
    _number("share", "of all elements that such operators return"),
    _flag("measured", "whether these calls are part of layers that are measured"),
    _text("modules", "the first modules in which it ran, and how many more"),
)

#: A row a sample, layer, call and channel.
BETA_COLUMNS = (_SAMPLE, *_LAYER_CALL, _CHANNEL, Column("beta", "float32", "1", "switching factor"))

#: Bins of the β histograms, of equal width from 0 to 1.
HISTOGRAM_BINS = 256

#: A row a layer, call and channel.
HISTOGRAM_COLUMNS = (
    *_LAYER_CALL,
    _count("channel", "channel, from 0; -1 where a row is of the whole layer", ""),
    Column("count", "object", "1", "samples in each of 256 bins from 0 to 1 (1 is in the last)"),
    _count("below", "samples with beta < 0"),
    _count("above", "samples with beta > 1"),
    _count("invalid", "samples with beta not a number"),
)

#: A row an image that could not be read.
ERROR_COLUMNS = (
    _SAMPLE_ID,
    _text("path", "the image that could not be read"),
    _text("reason", "why"),
)

#: A row an epoch of training.
CURVE_COLUMNS = (
    _count("epoch", "epochs finished", "epoch"),
    _count("iteration", "optimiser steps finished", "step"),
    _number("lr", "learning rate of the last step"),
    _number("train_loss", "mean cross-entropy while training, augmented images", "nat"),
    _number("train_error", "share of wrong answers while training"),
    _number("test_loss", "mean cross-entropy on the held-out split", "nat"),
    _number("test_error", "share of wrong answers on the held-out split"),
)

# Per channel and per layer: the samples, L and its parts.
_SEEN = (
    _count("n_samples", "samples seen; 0 where they were not counted"),
    _count("left_out", "samples left out: NaN or infinity in the layer"),
)
_INDEX = (
    _number(
        "L",
        "share of the output's variance that one affine fit explains (of a product: on both "
        "factors)",
    ),
    _number("L_error", "standard error of L, jackknife over blocks of samples"),
    _number("L_low", "lower end of the interval of L"),
    _number("L_high", "upper end of the interval of L"),
    _number("nonlinearity", "1 - L with its own digits: sse / cyy"),
    _number("sse", "sum of squared residuals of the one affine fit", "y²"),
    _number("cyy", "sum of squared deviations of the output", "y²"),
)

# L compared with other fits of the same values.
_COMPARED = (
    _number("L_own", "L with lines of its own for every sample: 1 - Σ sse_s / cyy"),
    _number("gap", "L_own - L, never negative"),
    _number("L_reference", "L of the same inputs at the constant reference β"),
    _number("L_own_reference", "L_own of the same inputs at the reference β"),
    _number("gap_reference", "L_own_reference - L_reference"),
    _number("beta_gain", "gap - gap_reference: what an input-dependent β adds"),
    _number("beta_gain_error", "its standard error"),
    _number("L_gauss", "L predicted for Gaussian inputs from κ, ρ and ν"),
    _number("L_gate", "L of a product's gate alone; NaN without one that varies"),
)

#: A row a layer, call and channel of `statistics.linearity`.
LINEARITY_CHANNEL_COLUMNS = (
    *_LAYER_CALL,
    _CHANNEL,
    _count("n", "values seen: samples times positions"),
    *_SEEN,
    *_INDEX,
    _number("s_c", "sse / Σ cyy: the channel's part of the layer's 1 - L"),
    _number("s_c_error", "standard error of s_c"),
    _number("slope", "slope of the affine fit", "y/x"),
    _number("intercept", "intercept of the affine fit", "y"),
    _number("G", "4·Var(gate), in [0, 1]"),
    _number("G_error", "standard error of G"),
    _number("kappa", "effective gain |β·(p1 - p2)|·std(x), β at its mean over samples"),
    _number("rho", "contrast (p1 - p2)/(p1 + p2)"),
    _number("nu", "offset mean(x)/std(x)"),
    *_COMPARED,
    _number("beta_mean", "mean of β over samples; the parameter where it is static"),
    _number("beta_std", "standard deviation of β over samples; 0 where it is static"),
    _number("beta_reference", "constant β of the counterfactual"),
    _number("slope_min", "least derivative over all real x", "y/x"),
    _number("slope_max", "greatest derivative over all real x", "y/x"),
    _number("slope_low", "least derivative over the range of the data", "y/x"),
    _number("slope_high", "greatest derivative over the range of the data", "y/x"),
    _number("mean_x", "mean of the inputs", "x"),
    _number("std_x", "standard deviation of the inputs", "x"),
    _number("min_x", "smallest input", "x"),
    _number("max_x", "largest input", "x"),
    _number("positive", "share of inputs > 0"),
    _flag("dead", "the output does not vary beyond rounding: L = 1 by convention"),
    _flag("constant_input", "the input does not vary"),
    _flag("one_signed", "no input < 0, or none > 0"),
    _flag("equal_slopes", "p1≈p2: linear even with a sharp gate (|ρ| <= 0.1667)"),
    _flag("gate_constant", "G < 1e-4"),
    _text("cause", "why it is linear or not: a key of causes.CAUSES"),
    _text("why", "the same in words"),
)

#: A row a layer and call.
LINEARITY_LAYER_COLUMNS = (
    *_LAYER_CALL,
    _CHANNELS,
    _count("n", "values seen in all channels"),
    *_SEEN,
    *_INDEX,
    _number("s_max", "largest share of its nonlinearity of one channel"),
    _number("G", "mean over channels of 4·Var(gate)"),
    _number("G_error", "standard error of G"),
    _number("kappa", "median over channels of the gain"),
    _number("rho", "median over channels of |ρ|"),
    _number("nu", "median over channels of |ν|"),
    *_COMPARED,
    _number("beta_mean", "mean over channels of the mean of β"),
    _number("slope_min", "least derivative of any channel over all real x", "y/x"),
    _number("slope_max", "greatest derivative of any channel over all real x", "y/x"),
    _number("slope_low", "least derivative of any channel over the data", "y/x"),
    _number("slope_high", "greatest derivative of any channel over the data", "y/x"),
    _number("positive", "share of inputs > 0"),
    _count("linear", "channels with L >= 0.99"),
    *(
        _count(flag, "channels so flagged")
        for flag in ("dead", "constant_input", "one_signed", "equal_slopes", "gate_constant")
    ),
    _text("why", "the causes of its channels in words"),
)

#: A row a block of `acon.block_linearity`.
BLOCK_COLUMNS = (
    _text(
        "block",
        "module path, with 'call 1' and so on where it runs several times; or 'whole network'",
    ),
    _number("nlc", "nonlinearity coefficient: 1 for affine maps, above or below 1 for others"),
    _number("nlc_error", "its standard error"),
    _number("r2", "held-out R² of the best affine map; a lower bound where mixed"),
    _number("r2_low", "lower end of its 95 % interval"),
    _number("r2_high", "upper end of its 95 % interval"),
    _number(
        "r2_without_residual",
        "R² of output minus input, by the same map; NaN where their sizes differ",
    ),
    _text(
        "vectors",
        "what R² is of: 'positions' (each is mapped alone), 'samples' (whole ones), or 'mixes "
        "positions', where r2 is a lower bound and says nothing against linearity",
    ),
    _number("elementwise_L", "mean of L over all activations inside, gates too, products not"),
    _count("n", "vectors that R² is of; fewer than 5 for each dimension give none"),
    _count("dimension", "dimensions of the input of R²"),
    _number("nlc_change", "change of nlc when all activations inside are lines"),
    _number("nlc_change_error", "its standard error, of pairs of the same triples"),
    _text("activation", "the activation inside whose line alone changes nlc most"),
    Column("inside", "object", "1", "L of the activations inside, in order of execution"),
    _text("why", "why a number is missing; of a block that is left out, why"),
    _text("network", "MODEL string or class of the network"),
    _text("data", "name or class of the data; empty for a list of batches"),
    _count("samples", "how many were run"),
    _text("class_name", "class of the block's module"),
)

#: What a table of linearity shows by default, by what its rows are.
SHORT_LINEARITY = {
    "layer": ("layer", "call", "channels", "L", "L_low", "L_high", "s_max", "dead", "why"),
    "channel": ("layer", "call", "channel", "L", "s_c", "dead", "cause"),
    "sample": ("sample", "layer", "call", "L", "dead"),
}

#: A row a sample, layer and call.
LINEARITY_SAMPLE_COLUMNS = (
    _SAMPLE,
    *_LAYER_CALL,
    _CHANNELS,
    _count("n", "values summed"),
    _number("L", "L of a sample: 1 - Σ_c sse / Σ_c cyy, one affine fit per channel of this sample"),
    _number("nonlinearity", "1 - L with its own digits"),
    _number("sse", "sum over channels of the residuals", "y²"),
    _number("cyy", "sum over channels of the output's squared deviations", "y²"),
    _number("G", "mean over channels of 4·Var(gate) within the sample"),
    _number("kappa", "mean over channels of the gain within the sample"),
    _number("L_reference", "L of the same sample at the constant reference β"),
    _flag("dead", "the outputs do not vary within the sample: L = 1 by convention"),
    _flag("left_out", "left out: NaN or infinity in the layer, or all padding"),
)

#: A row a layer, call and quantity of two runs.
DIFFERENCE_COLUMNS = (
    *_LAYER_CALL,
    _text("quantity", "L, L_own, beta_gain or G"),
    _number("first", "value in the first run"),
    _number("second", "value in the second run"),
    _number("difference", "second - first"),
    _number("error", "standard error of the difference"),
    _number("low", "lower end of its interval"),
    _number("high", "upper end of its interval"),
    _flag("paired", "whether the blocks of both runs hold the same samples"),
)

#: A row a layer and call with β per sample: how its variance splits.
SPLIT_COLUMNS = (
    *_LAYER_CALL,
    _count("samples", "samples"),
    _count("channels", "channels"),
    _number("mean", "mean of β"),
    _number("sample_share", "share of the variance of β that whole samples explain"),
    _number("channel_share", "share that channels explain"),
    _number("rest_share", "share that neither explains alone"),
    _number("sample_std", "standard deviation of the samples' means of β"),
    _number("within_std", "root mean square over channels of the std over samples"),
    _number("expected_sample_std", "sample_std if channels were independent"),
    _number("ratio", "variance of the samples' means over that of independent channels"),
    _number("null_p05", "5th percentile of the ratio in networks with redrawn weights"),
    _number("null_median", "its median there"),
    _number("null_p95", "its 95th percentile there"),
    _number("p_value", "chance that a redrawn network is as high"),
    _number("ks", "mean Kolmogorov-Smirnov distance of channels from BatchNorm's null"),
    _number("ks_null", "its median in networks with redrawn weights"),
    _text("null", "what the null keeps: batchnorm, untrained (nothing), or empty (no null)"),
    _number("eta2", "share of the samples' effect that the label explains"),
    _number("eta2_expected", "the share to expect of labels that mean nothing"),
    _number("eta2_p", "p-value of a permutation test"),
    _text("answer", "more, no more, less, constant or unknown"),
    _text("text", "the answer in words"),
)

#: A row a channel: β compared with the BatchNorm-only null model.
NULL_COLUMNS = (
    _CHANNEL,
    _count("n", "samples"),
    _number("mean", "mean of β over samples"),
    _number("std", "standard deviation of β over samples"),
    _number("bn_weight", "γ, the weight of the last BatchNorm before β"),
    _number("bn_bias", "b, its bias"),
    _number("null_mean", "mean of the logit-normal with b and γ"),
    _number("null_std", "its standard deviation"),
    _number("std_ratio", "std / null_std"),
    _number("ks", "Kolmogorov-Smirnov distance from the logit-normal"),
    _number("ks_error", "its sampling error: √(F(1 - F)/n) where the distance is found"),
    _number("ks_expected", "the distance to expect of n samples of the null itself"),
    _number("ks_excess", "ks - ks_expected"),
    _number("p_value", "chance of such a distance under the null"),
)

#: What identifies a row of ``moments/``; the stored numbers are `moments.fields.FIELDS`.
MOMENT_KEY_COLUMNS = (
    *_LAYER_CALL,
    _CHANNEL,
    _count("block", "block of samples: sample_id mod the run's number of blocks", ""),
)

#: A row a sample, layer and call of ``totals/``.
TOTAL_COLUMNS = (
    _SAMPLE,
    *_LAYER_CALL,
    _count("channels", "channels summed"),
    _count("n", "values summed: channels times positions"),
    _number("cyy", "sum over channels of the sample's own cyy", "y²"),
    _number("sse", "sum over channels of the residual of the sample's own affine fit", "y²"),
    _number("cgg", "sum over channels of the sample's own cgg"),
    _number("gain", "sum over channels of std(u) within the sample: |β·d|·std(x)"),
    _number("cyy_reference", "cyy at the reference β", "y²"),
    _number("sse_reference", "sse at the reference β", "y²"),
)


# What figures draw. Runs are known there by the name of their network.
_NETWORK = _text("network", "MODEL of the run")
_DATA = _text("data", "what the run was captured on, in a few words")
_ACTIVATION = _text("activation", "class of the layer's module, such as ReLU")
_YARDSTICK = _number("yardstick", "L of the layer's activation on Gaussian inputs; NaN if unknown")


def _of(table: Sequence[Column], *chosen: str) -> list[Column]:
    """Return some columns of a table, in the order given."""
    by_name = {column.name: column for column in table}
    return [by_name[name] for name in chosen]


#: A row a network, layer, call and channel: `plotdata.channels.channel_facts`.
FACT_COLUMNS = (
    _NETWORK,
    _DATA,
    *_LAYER_CALL,
    _CHANNEL,
    _ACTIVATION,
    _PARAMETERS,
    *_of(CHANNEL_COLUMNS, "p1", "p2"),
    _number("beta_low", "5th percentile of β over samples; NaN without β"),
    _number("beta_middle", "median of β over samples; NaN without β"),
    _number("beta_high", "95th percentile of β over samples; NaN without β"),
    *_of(LINEARITY_CHANNEL_COLUMNS, "beta_mean", "slope", "intercept", "L", "s_c", "G", "kappa",
         "mean_x", "std_x", "min_x", "max_x", "positive"),
    _number("std_y", "standard deviation of the outputs", "y"),
    *_of(LINEARITY_CHANNEL_COLUMNS, "slope_min", "slope_max", "slope_low", "slope_high", "dead",
         "cause", "why"),
    _YARDSTICK,
)  # fmt: skip

#: A row a network, layer, call and measure: `plotdata.depth.linearity_by_depth`.
DEPTH_COLUMNS = (
    _NETWORK,
    _DATA,
    _ACTIVATION,
    _count("place", "number of the layer in order of execution, from 0", ""),
    *_LAYER_CALL,
    _text("measure", "L, L_own or G"),
    _number("value", "the measure; NaN where the layer has no gate"),
    _number("low", "lower end of its interval; NaN with fewer than two blocks"),
    _number("high", "upper end of its interval; NaN with fewer than two blocks"),
    _flag("dead", "whether the layer's outputs do not vary"),
    _YARDSTICK,
    _number("values", "values of a channel in one sample, on average; NaN if samples lack rows"),
    _text("class_name", "class of the layer's module"),
    _text("kind", "kind of the layer"),
)

#: A row a layer and call: `plotdata.sample_spread.sample_spread`.
SAMPLE_SPREAD_COLUMNS = (
    _NETWORK,
    _DATA,
    _text("class_name", "class of the layer's module"),
    _count("place", "number of the layer in order of execution, from 0", ""),
    *_LAYER_CALL,
    _count("samples", "samples whose outputs vary, of those that are looked at"),
    _count("every", "n if every n-th sample is looked at, 1 for all", ""),
    _number("values", "values of a channel in one sample, on average"),
    _number("L", "L of the layer: one line a channel for all samples"),
    _number("low", "5th percentile over samples of L of a sample"),
    _number("lower", "25th percentile"),
    _number("median", "median"),
    _number("upper", "75th percentile"),
    _number("high", "95th percentile"),
    _count("least_sample", "the least linear sample", ""),
    _number("least_L", "its L"),
    _count("most_sample", "the most linear sample", ""),
    _number("most_L", "its L"),
)

#: A row a bin of a channel's inputs.
INPUT_COLUMNS = (
    _NETWORK,
    *_LAYER_CALL,
    _CHANNEL,
    _number("left", "left edge of the bin", "x"),
    _number("right", "right edge of the bin", "x"),
    _count("count", "inputs in the bin"),
    _count("images", "images whose inputs were counted"),
)

#: A row a sample at one end of a channel's β: `plotdata.sample_extremes.Extremes.samples`.
EXTREME_SAMPLE_COLUMNS = (
    _text("side", "straight (least |β|) or bent (greatest)"),
    _SAMPLE,
    _number("beta", "β of the channel for this sample"),
)

#: A row a point of a channel's function at a sample's β: `Extremes.curves`.
EXTREME_CURVE_COLUMNS = (_SAMPLE, _number("x", "input", "x"), _number("y", "output", "y"))

#: A row a contradiction between two measures: `plotdata.measure_ranks.MeasureRanks.examples`.
RANK_EXAMPLE_COLUMNS = (
    _CHANNEL,
    _text("against", "the measure that contradicts 1 - L"),
    _number("rank_nonlinearity", "rank by 1 - L, 0 (most linear) to 1"),
    _number("rank_against", "rank by the other measure"),
    _text("headline", "the contradiction in a few words"),
    _text("reason", "why the two measures differ"),
)

#: A row a bar of a histogram of β: `statistics.beta_densities.BetaDensities.bars`.
DENSITY_BAR_COLUMNS = (
    _number("left", "left edge, in units of β"),
    _number("right", "right edge"),
    _count("count", "channels in the bar"),
    _number("density", "share of the channels per unit of β"),
)

#: A row a layer, channel or sample: `statistics.beta_summary.summarize`.
BETA_STATISTIC_COLUMNS = (
    _number("mean", "mean of the values of beta"),
    _number("std", "their standard deviation (denominator n)"),
    _number("std_samples", "that of the samples' means; by layer only"),
    _number("std_channels", "that of the channels' means; by layer only"),
    _number("min", "smallest value"),
    _number("q05", "5 % quantile"),
    _number("median", "median"),
    _number("q95", "95 % quantile"),
    _number("max", "largest value"),
)

#: A row a layer, intervention and recalibrated: `acon_analysis.gate_use`.
GATE_COLUMNS = (
    _text("layer", "exact name in named_modules(); all: every layer at once"),
    _text("intervention", "what was done with the gates of the layer"),
    _flag("recalibrated", "whether BatchNorms outside the gates were estimated again"),
    _number("loss_change", "mean over samples of the change of the loss", "nat"),
    _number("low", "lower end of its interval", "nat"),
    _number("high", "upper end", "nat"),
    _number("p", "of no mean change; without labels of no more than the margin"),
    _number("p_holm", "adjusted for the number of layers"),
    _number("accuracy_change", "change of the share of right answers; NaN if none"),
    _number("agreement", "share of samples whose largest logit stays"),
    _number("output_change", "mean of the norm of the logits' change over theirs"),
    _count("samples", "samples with a finite loss"),
    _text("verdict", "used, not used (within the margin) or undecided"),
    _text("class_name", "class of the layer's module; empty for all"),
)

#: A row a form and recalibrated: `acon_hooks.replacement.replace.replace_data`.
REPLACEMENT_COLUMNS = (
    _text("form", "what replaces the activations; mixed: several"),
    _flag("recalibrated", "whether BatchNorms were estimated again"),
    _count("channels", "how many are replaced"),
    *_of(GATE_COLUMNS, "loss_change", "low", "high"),
    _number("p", "of no mean change"),
    _number("p_holm", "adjusted for the number of rows"),
    _number("accuracy", "share of right answers; NaN without labels"),
    *_of(GATE_COLUMNS, "accuracy_change"),
    _number("accuracy_low", "lower end of the interval of its change"),
    _number("accuracy_high", "upper end"),
    *_of(GATE_COLUMNS, "agreement", "output_change", "samples"),
)

#: A row a quantity that stands out in a run: `plotdata.overview.headline_frame`.
HEADLINE_COLUMNS = (
    _text("quantity", "name of the quantity"),
    _number("value", "its value"),
    _number("total", "of how many; NaN where it is no count"),
    _text("layer", "name of the layer it belongs to; empty for the whole run"),
)


def names(columns: Sequence[Column]) -> list[str]:
    """Return the names of some columns, in order."""
    return [column.name for column in columns]


def dtypes(columns: Sequence[Column]) -> dict[str, str]:
    """Return the pandas dtype of each column by name, in order."""
    return {column.name: column.dtype for column in columns}
