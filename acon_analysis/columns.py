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


_LAYER = Column("layer", "str", "", "exact name in named_modules()")
_LAYER_CALL = (
    _LAYER,
    Column("call", "int64", "", "which use of the layer within one forward pass, from 0"),
)
_CHANNEL = Column("channel", "int64", "", "channel, from 0")
_CHANNELS = Column("channels", "int64", "1", "channels of the layer")
_SAMPLE = Column("sample", "int64", "", "sample_id")

#: A row an image of a data set or run.
SAMPLE_COLUMNS = (
    Column("sample_id", "int64", "", "position of the image in the data set, from 0"),
    Column(
        "path", "str", "", "file relative to the data folder, or the image's name in a data set"
    ),
    Column("label", "str", "", "class name; missing for a flat folder"),
    Column("bytes", "int64", "byte", "size of the file, or of the raw array"),
    Column("sha256", "str", "", "SHA-256 of the file, or of the raw array; empty if not known"),
)

#: A row a layer and call of a run.
LAYER_COLUMNS = (
    *_LAYER_CALL,
    Column("kind", "str", "", "meta_acon, acon, acon_frelu, activation, product or gate"),
    _CHANNELS,
    Column("granularity", "str", "", "what one beta belongs to: channel, layer, pixel or static"),
    Column("reader", "str", "", "how beta was read"),
    Column("class_name", "str", "", "class of the module"),
    Column("column", "str", "", "column of betas/*.parquet; empty where beta is static"),
    Column("proof_error", "float64", "1", "largest |output - formula| over the output's scale"),
    Column("proof_power", "float64", "1", "share of channels for which the proof has power"),
    Column("gate_of", "str", "", "the product whose gate this layer makes; empty for others"),
)

#: A row a layer and channel of a run.
CHANNEL_COLUMNS = (
    _LAYER,
    _CHANNEL,
    Column("p1", "float64", "1", "slope of the first line"),
    Column("p2", "float64", "1", "slope of the second line"),
    Column("beta", "float64", "1", "static switching factor; NaN where beta depends on the sample"),
    Column("bn_weight", "float64", "1", "scale of the last BatchNorm before beta; NaN without one"),
    Column("bn_bias", "float64", "1", "shift of the last BatchNorm before beta; NaN without one"),
)

#: A row a module, operator and verdict of one forward pass.
NONLINEARITY_COLUMNS = (
    Column("name", "str", "", "module path of the innermost module that was running"),
    Column("operator", "str", "", "name in torch.ops.aten, others with their library in front"),
    Column("calls", "int64", "1", "how often it was called there"),
    Column("elements", "int64", "1", "elements of the outputs of these calls"),
    Column("class", "str", "", "linear or nonlinear in what depends on the input, or unknown"),
    Column("measured", "bool", "", "whether the calls are part of a layer that is measured"),
    Column("layer", "str", "", "that layer; empty where there is none"),
    Column("reason", "str", "", "what the operator is, or why it counts as linear or unknown"),
)

#: A row an operator of a census that is nonlinear in the input, or unknown.
CENSUS_COLUMNS = (
    Column("operator", "str", "", "its name"),
    Column("class", "str", "", "nonlinear or unknown"),
    Column("reason", "str", "", "what it is, or why it is unknown"),
    Column("calls", "int64", "1", "how often it was called in one forward pass"),
    Column("share", "float64", "1", "of all elements that such operators return"),
    Column("measured", "bool", "", "whether these calls are part of layers that are measured"),
    Column("modules", "str", "", "the first modules in which it ran, and how many more"),
)

#: A row a sample, layer, call and channel.
BETA_COLUMNS = (
    _SAMPLE,
    *_LAYER_CALL,
    _CHANNEL,
    Column("beta", "float32", "1", "switching factor"),
)

#: Bins of the β histograms, of equal width from 0 to 1.
HISTOGRAM_BINS = 256

#: A row a layer, call and channel.
HISTOGRAM_COLUMNS = (
    *_LAYER_CALL,
    Column("channel", "int64", "", "channel, from 0; -1 where a row is of the whole layer"),
    Column("count", "object", "1", "samples in each of 256 bins from 0 to 1 (1 is in the last)"),
    Column("below", "int64", "1", "samples with beta < 0"),
    Column("above", "int64", "1", "samples with beta > 1"),
    Column("invalid", "int64", "1", "samples with beta not a number"),
)

#: A row an image that could not be read.
ERROR_COLUMNS = (
    Column("sample_id", "int64", "", "position of the image in the data set, from 0"),
    Column("path", "str", "", "the image that could not be read"),
    Column("reason", "str", "", "why"),
)

#: A row an epoch of training.
CURVE_COLUMNS = (
    Column("epoch", "int64", "epoch", "epochs finished"),
    Column("iteration", "int64", "step", "optimiser steps finished"),
    Column("lr", "float64", "1", "learning rate of the last step"),
    Column("train_loss", "float64", "nat", "mean cross-entropy while training, augmented images"),
    Column("train_error", "float64", "1", "share of wrong answers while training"),
    Column("test_loss", "float64", "nat", "mean cross-entropy on the held-out split"),
    Column("test_error", "float64", "1", "share of wrong answers on the held-out split"),
)

# L and its parts, per channel and per layer.
_INDEX = (
    Column(
        "L",
        "float64",
        "1",
        "share of the output's variance that one affine fit explains (of a "
        "product: on both factors)",
    ),
    Column("L_error", "float64", "1", "standard error of L, jackknife over blocks of samples"),
    Column("L_low", "float64", "1", "lower end of the interval of L"),
    Column("L_high", "float64", "1", "upper end of the interval of L"),
    Column("nonlinearity", "float64", "1", "1 - L with its own digits: sse / cyy"),
    Column("sse", "float64", "y²", "sum of squared residuals of the one affine fit"),
    Column("cyy", "float64", "y²", "sum of squared deviations of the output"),
)

# L compared with other fits of the same values.
_COMPARED = (
    Column("L_own", "float64", "1", "the same with one affine fit per sample: 1 - Σ sse_s / cyy"),
    Column("gap", "float64", "1", "L_own - L, never negative"),
    Column("L_reference", "float64", "1", "L of the same inputs at the constant reference β"),
    Column("L_own_reference", "float64", "1", "L_own of the same inputs at the reference β"),
    Column("gap_reference", "float64", "1", "L_own_reference - L_reference"),
    Column("beta_gain", "float64", "1", "gap - gap_reference: what an input-dependent β adds"),
    Column("beta_gain_error", "float64", "1", "its standard error"),
    Column("L_gauss", "float64", "1", "L predicted for Gaussian inputs from κ, ρ and ν"),
    Column("L_gate", "float64", "1", "L of a product's gate alone; NaN without one that varies"),
)

#: A row a layer, call and channel of `statistics.linearity`.
LINEARITY_CHANNEL_COLUMNS = (
    *_LAYER_CALL,
    _CHANNEL,
    Column("n", "int64", "1", "values seen: samples times positions"),
    Column("n_samples", "int64", "1", "samples seen; 0 where they were not counted"),
    Column("left_out", "int64", "1", "samples left out: NaN or infinity in the layer"),
    *_INDEX,
    Column("s_c", "float64", "1", "sse / Σ cyy: the channel's part of the layer's 1 - L"),
    Column("s_c_error", "float64", "1", "standard error of s_c"),
    Column("slope", "float64", "y/x", "slope of the affine fit"),
    Column("intercept", "float64", "y", "intercept of the affine fit"),
    Column("G", "float64", "1", "4·Var(gate), in [0, 1]"),
    Column("G_error", "float64", "1", "standard error of G"),
    Column(
        "kappa", "float64", "1", "effective gain |β·(p1 - p2)|·std(x), β at its mean over samples"
    ),
    Column("rho", "float64", "1", "contrast (p1 - p2)/(p1 + p2)"),
    Column("nu", "float64", "1", "offset mean(x)/std(x)"),
    *_COMPARED,
    Column("beta_mean", "float64", "1", "mean of β over samples; the parameter where it is static"),
    Column(
        "beta_std", "float64", "1", "standard deviation of β over samples; 0 where it is static"
    ),
    Column("beta_reference", "float64", "1", "constant β of the counterfactual"),
    Column("slope_min", "float64", "y/x", "least derivative over all real x"),
    Column("slope_max", "float64", "y/x", "greatest derivative over all real x"),
    Column("slope_low", "float64", "y/x", "least derivative over the range of the data"),
    Column("slope_high", "float64", "y/x", "greatest derivative over the range of the data"),
    Column("mean_x", "float64", "x", "mean of the inputs"),
    Column("std_x", "float64", "x", "standard deviation of the inputs"),
    Column("min_x", "float64", "x", "smallest input"),
    Column("max_x", "float64", "x", "largest input"),
    Column("positive", "float64", "1", "share of inputs > 0"),
    Column("dead", "bool", "", "the output does not vary beyond rounding: L = 1 by convention"),
    Column("constant_input", "bool", "", "the input does not vary"),
    Column("one_signed", "bool", "", "no input < 0, or none > 0"),
    Column("equal_slopes", "bool", "", "p1≈p2: linear even with a sharp gate (|ρ| <= 0.1667)"),
    Column("gate_constant", "bool", "", "G < 1e-4"),
    Column("cause", "str", "", "why it is linear or not: a key of causes.CAUSES"),
    Column("why", "str", "", "the same in words"),
)

#: A row a layer and call.
LINEARITY_LAYER_COLUMNS = (
    *_LAYER_CALL,
    _CHANNELS,
    Column("n", "int64", "1", "values seen in all channels"),
    Column("n_samples", "int64", "1", "samples seen; 0 where they were not counted"),
    Column("left_out", "int64", "1", "samples left out: NaN or infinity in the layer"),
    *_INDEX,
    Column("s_max", "float64", "1", "largest share of its nonlinearity of one channel"),
    Column("G", "float64", "1", "mean over channels of 4·Var(gate)"),
    Column("G_error", "float64", "1", "standard error of G"),
    Column("kappa", "float64", "1", "median over channels of the gain"),
    Column("rho", "float64", "1", "median over channels of |ρ|"),
    Column("nu", "float64", "1", "median over channels of |ν|"),
    *_COMPARED,
    Column("beta_mean", "float64", "1", "mean over channels of the mean of β"),
    Column("slope_min", "float64", "y/x", "least derivative of any channel over all real x"),
    Column("slope_max", "float64", "y/x", "greatest derivative of any channel over all real x"),
    Column("slope_low", "float64", "y/x", "least derivative of any channel over the data"),
    Column("slope_high", "float64", "y/x", "greatest derivative of any channel over the data"),
    Column("positive", "float64", "1", "share of inputs > 0"),
    Column("linear", "int64", "1", "channels with L >= 0.99"),
    Column("dead", "int64", "1", "channels so flagged"),
    Column("constant_input", "int64", "1", "channels so flagged"),
    Column("one_signed", "int64", "1", "channels so flagged"),
    Column("equal_slopes", "int64", "1", "channels so flagged"),
    Column("gate_constant", "int64", "1", "channels so flagged"),
    Column("why", "str", "", "the causes of its channels in words"),
)

#: A row a block of `acon.block_linearity`.
BLOCK_COLUMNS = (
    Column(
        "block",
        "str",
        "",
        "module path, with 'call 1' and so on where it runs several times; or 'whole network'",
    ),
    Column("nlc", "float64", "1", "nonlinearity coefficient: 1 for affine maps"),
    Column("nlc_error", "float64", "1", "its standard error"),
    Column("r2", "float64", "1", "held-out R² of the best affine map; a lower bound where mixed"),
    Column("r2_low", "float64", "1", "lower end of its 95 % interval"),
    Column("r2_high", "float64", "1", "upper end of its 95 % interval"),
    Column(
        "r2_without_residual",
        "float64",
        "1",
        "R² of output minus input, by the same map; NaN where their sizes differ",
    ),
    Column(
        "vectors",
        "str",
        "",
        "what R² is of: 'positions' (each is mapped alone), 'samples' (whole ones), or 'mixes "
        "positions', where r2 is a lower bound and says nothing against linearity",
    ),
    Column("elementwise_L", "float64", "1", "mean of L over the activation layers inside"),
    Column("n", "int64", "1", "vectors that R² is of; fewer than 5 for each dimension give none"),
    Column("dimension", "int64", "1", "dimensions of the input of R²"),
    Column("nlc_change", "float64", "1", "change of nlc when all activations inside are lines"),
    Column("nlc_change_error", "float64", "1", "its standard error, of pairs of the same triples"),
    Column("activation", "str", "", "the activation inside whose line alone changes nlc most"),
    Column("inside", "object", "1", "L of the activations inside, in order of execution"),
    Column("why", "str", "", "why a number is missing; of a block that is left out, why"),
    Column("network", "str", "", "MODEL string or class of the network"),
    Column("data", "str", "", "name or class of the data"),
    Column("samples", "int64", "1", "how many were run"),
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
    Column("n", "int64", "1", "values summed"),
    Column("L", "float64", "1", "1 - Σ_c sse / Σ_c cyy, one affine fit per channel of this sample"),
    Column("nonlinearity", "float64", "1", "1 - L with its own digits"),
    Column("sse", "float64", "y²", "sum over channels of the residuals"),
    Column("cyy", "float64", "y²", "sum over channels of the output's squared deviations"),
    Column("G", "float64", "1", "mean over channels of 4·Var(gate) within the sample"),
    Column("kappa", "float64", "1", "mean over channels of the gain within the sample"),
    Column("L_reference", "float64", "1", "L of the same sample at the constant reference β"),
    Column("dead", "bool", "", "the outputs do not vary within the sample: L = 1 by convention"),
    Column("left_out", "bool", "", "left out: NaN or infinity in the layer, or all padding"),
)

#: A row a layer, call and quantity of two runs.
DIFFERENCE_COLUMNS = (
    *_LAYER_CALL,
    Column("quantity", "str", "", "L, L_own, beta_gain or G"),
    Column("first", "float64", "1", "value in the first run"),
    Column("second", "float64", "1", "value in the second run"),
    Column("difference", "float64", "1", "second - first"),
    Column("error", "float64", "1", "standard error of the difference"),
    Column("low", "float64", "1", "lower end of its interval"),
    Column("high", "float64", "1", "upper end of its interval"),
    Column("paired", "bool", "", "whether the blocks of both runs hold the same samples"),
)

#: A row a layer and call with β per sample: how its variance splits.
SPLIT_COLUMNS = (
    *_LAYER_CALL,
    Column("samples", "int64", "1", "samples"),
    Column("channels", "int64", "1", "channels"),
    Column("mean", "float64", "1", "mean of β"),
    Column("sample_share", "float64", "1", "share of the variance of β that whole samples explain"),
    Column("channel_share", "float64", "1", "share that channels explain"),
    Column("rest_share", "float64", "1", "share that neither explains alone"),
    Column("sample_std", "float64", "1", "standard deviation of the samples' means of β"),
    Column("within_std", "float64", "1", "root mean square over channels of the std over samples"),
    Column("expected_sample_std", "float64", "1", "sample_std if channels were independent"),
    Column(
        "ratio", "float64", "1", "variance of the samples' means over that of independent channels"
    ),
    Column(
        "null_p05", "float64", "1", "5th percentile of the ratio in networks with redrawn weights"
    ),
    Column("null_median", "float64", "1", "its median there"),
    Column("null_p95", "float64", "1", "its 95th percentile there"),
    Column("p_value", "float64", "1", "chance that a redrawn network is as high"),
    Column(
        "ks", "float64", "1", "mean Kolmogorov-Smirnov distance of channels from BatchNorm's null"
    ),
    Column("ks_null", "float64", "1", "its median in networks with redrawn weights"),
    Column(
        "null", "str", "", "what the null keeps: batchnorm, untrained (nothing), or empty (no null)"
    ),
    Column("eta2", "float64", "1", "share of the samples' effect that the label explains"),
    Column("eta2_expected", "float64", "1", "the share to expect of labels that mean nothing"),
    Column("eta2_p", "float64", "1", "p-value of a permutation test"),
    Column("answer", "str", "", "more, no more, less, constant or unknown"),
    Column("text", "str", "", "the answer in words"),
)

#: A row a channel: β compared with the BatchNorm-only null model.
NULL_COLUMNS = (
    _CHANNEL,
    Column("n", "int64", "1", "samples"),
    Column("mean", "float64", "1", "mean of β over samples"),
    Column("std", "float64", "1", "standard deviation of β over samples"),
    Column("bn_weight", "float64", "1", "γ, the weight of the last BatchNorm before β"),
    Column("bn_bias", "float64", "1", "b, its bias"),
    Column("null_mean", "float64", "1", "mean of the logit-normal with b and γ"),
    Column("null_std", "float64", "1", "its standard deviation"),
    Column("std_ratio", "float64", "1", "std / null_std"),
    Column("ks", "float64", "1", "Kolmogorov-Smirnov distance from the logit-normal"),
    Column(
        "ks_error", "float64", "1", "its sampling error: √(F(1 - F)/n) where the distance is found"
    ),
    Column("ks_expected", "float64", "1", "the distance to expect of n samples of the null itself"),
    Column("ks_excess", "float64", "1", "ks - ks_expected"),
    Column("p_value", "float64", "1", "chance of such a distance under the null"),
)

#: What identifies a row of ``moments/``; the stored numbers are `moments.fields.FIELDS`.
MOMENT_KEY_COLUMNS = (
    *_LAYER_CALL,
    _CHANNEL,
    Column("block", "int64", "", "block of samples: sample_id mod the run's number of blocks"),
)

#: A row a sample, layer and call of ``totals/``.
TOTAL_COLUMNS = (
    _SAMPLE,
    *_LAYER_CALL,
    Column("channels", "int64", "1", "channels summed"),
    Column("n", "int64", "1", "values summed: channels times positions"),
    Column("cyy", "float64", "y²", "sum over channels of the sample's own cyy"),
    Column(
        "sse", "float64", "y²", "sum over channels of the residual of the sample's own affine fit"
    ),
    Column("cgg", "float64", "1", "sum over channels of the sample's own cgg"),
    Column("gain", "float64", "1", "sum over channels of std(u) within the sample: |β·d|·std(x)"),
    Column("cyy_reference", "float64", "y²", "cyy at the reference β"),
    Column("sse_reference", "float64", "y²", "sse at the reference β"),
)


# What figures draw. Runs are known there by the name of their network.
_NETWORK = Column("network", "str", "", "MODEL of the run")
_DATA = Column("data", "str", "", "what the run was captured on, in a few words")
_ACTIVATION = Column("activation", "str", "", "class of the layer's module, such as ReLU")


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
    *_of(CHANNEL_COLUMNS, "p1", "p2"),
    Column("beta_low", "float64", "1", "5th percentile of β over samples; NaN without β"),
    Column("beta_middle", "float64", "1", "median of β over samples; NaN without β"),
    Column("beta_high", "float64", "1", "95th percentile of β over samples; NaN without β"),
    *_of(LINEARITY_CHANNEL_COLUMNS, "beta_mean", "slope", "intercept", "L", "s_c", "G", "kappa",
         "mean_x", "std_x", "min_x", "max_x", "positive"),
    Column("std_y", "float64", "y", "standard deviation of the outputs"),
    *_of(LINEARITY_CHANNEL_COLUMNS, "slope_min", "slope_max", "slope_low", "slope_high", "dead",
         "cause", "why"),
)  # fmt: skip

#: A row a network, layer, call and measure: `plotdata.depth.linearity_by_depth`.
DEPTH_COLUMNS = (
    _NETWORK,
    _DATA,
    _ACTIVATION,
    Column("place", "int64", "", "number of the layer in order of execution, from 0"),
    *_LAYER_CALL,
    Column("measure", "str", "", "L, L_own or G"),
    Column("value", "float64", "1", "the measure; NaN where the layer has no gate"),
    Column("low", "float64", "1", "lower end of its interval; NaN with fewer than two blocks"),
    Column("high", "float64", "1", "upper end of its interval; NaN with fewer than two blocks"),
    Column("dead", "bool", "", "whether the layer's outputs do not vary"),
)

#: A row a bin of a channel's inputs.
INPUT_COLUMNS = (
    _NETWORK,
    *_LAYER_CALL,
    _CHANNEL,
    Column("left", "float64", "x", "left edge of the bin"),
    Column("right", "float64", "x", "right edge of the bin"),
    Column("count", "int64", "1", "inputs in the bin"),
    Column("images", "int64", "1", "images whose inputs were counted"),
)

#: A row a sample at one end of a channel's β: `plotdata.sample_extremes.Extremes.samples`.
EXTREME_SAMPLE_COLUMNS = (
    Column("side", "str", "", "straight (least |β|) or bent (greatest)"),
    _SAMPLE,
    Column("beta", "float64", "1", "β of the channel for this sample"),
)

#: A row a point of a channel's function at a sample's β: `Extremes.curves`.
EXTREME_CURVE_COLUMNS = (
    _SAMPLE,
    Column("x", "float64", "x", "input"),
    Column("y", "float64", "y", "output"),
)

#: A row a contradiction between two measures: `plotdata.measure_ranks.MeasureRanks.examples`.
RANK_EXAMPLE_COLUMNS = (
    _CHANNEL,
    Column("against", "str", "", "the measure that contradicts 1 - L"),
    Column("rank_nonlinearity", "float64", "1", "rank by 1 - L, 0 (most linear) to 1"),
    Column("rank_against", "float64", "1", "rank by the other measure"),
    Column("headline", "str", "", "the contradiction in a few words"),
    Column("reason", "str", "", "why the two measures differ"),
)

#: A row a bar of a histogram of β: `statistics.beta_densities.BetaDensities.bars`.
DENSITY_BAR_COLUMNS = (
    Column("left", "float64", "1", "left edge, in units of β"),
    Column("right", "float64", "1", "right edge"),
    Column("count", "int64", "1", "channels in the bar"),
    Column("density", "float64", "1", "share of the channels per unit of β"),
)

#: A row a quantity that stands out in a run: `plotdata.overview.headline_frame`.
BETA_STATISTIC_COLUMNS = (
    Column("mean", "float64", "1", "mean of the values of beta"),
    Column("std", "float64", "1", "their standard deviation (denominator n)"),
    Column("std_samples", "float64", "1", "that of the samples' means; by layer only"),
    Column("std_channels", "float64", "1", "that of the channels' means; by layer only"),
    Column("min", "float64", "1", "smallest value"),
    Column("q05", "float64", "1", "5 % quantile"),
    Column("median", "float64", "1", "median"),
    Column("q95", "float64", "1", "95 % quantile"),
    Column("max", "float64", "1", "largest value"),
)

#: A row a layer, intervention and recalibrated: `acon_analysis.gate_use`.
GATE_COLUMNS = (
    Column("layer", "str", "", "exact name in named_modules(); all: every layer at once"),
    Column("intervention", "str", "", "what was done with the gates of the layer"),
    Column("recalibrated", "bool", "", "whether BatchNorms outside the gates were estimated again"),
    Column("loss_change", "float64", "nat", "mean over samples of the change of the loss"),
    Column("low", "float64", "nat", "lower end of its interval"),
    Column("high", "float64", "nat", "upper end"),
    Column("p", "float64", "1", "of no mean change; without labels of no more than the margin"),
    Column("p_holm", "float64", "1", "adjusted for the number of layers"),
    Column("accuracy_change", "float64", "1", "change of the share of right answers; NaN if none"),
    Column("agreement", "float64", "1", "share of samples whose largest logit stays"),
    Column("output_change", "float64", "1", "mean of the norm of the logits' change over theirs"),
    Column("samples", "int64", "1", "samples with a finite loss"),
    Column("verdict", "str", "", "used, not used (within the margin) or undecided"),
)

#: A row a form and recalibrated: `acon_hooks.replacement.replace.replace_data`.
REPLACEMENT_COLUMNS = (
    Column("form", "str", "", "what takes the place of the activations; mixed: several"),
    Column("recalibrated", "bool", "", "whether BatchNorms were estimated again"),
    Column("channels", "int64", "1", "how many are replaced"),
    *_of(GATE_COLUMNS, "loss_change", "low", "high"),
    Column("p", "float64", "1", "of no mean change"),
    Column("p_holm", "float64", "1", "adjusted for the number of rows"),
    Column("accuracy", "float64", "1", "share of right answers; NaN without labels"),
    *_of(GATE_COLUMNS, "accuracy_change"),
    Column("accuracy_low", "float64", "1", "lower end of the interval of its change"),
    Column("accuracy_high", "float64", "1", "upper end"),
    *_of(GATE_COLUMNS, "agreement", "output_change", "samples"),
)

HEADLINE_COLUMNS = (
    Column("quantity", "str", "", "name of the quantity"),
    Column("value", "float64", "1", "its value"),
    Column("total", "float64", "1", "of how many; NaN where it is no count"),
    Column("layer", "str", "", "the layer it belongs to; empty for the whole run"),
)


def names(columns: Sequence[Column]) -> list[str]:
    """Return the names of some columns, in order."""
    return [column.name for column in columns]


def dtypes(columns: Sequence[Column]) -> dict[str, str]:
    """Return the pandas dtype of each column by name, in order."""
    return {column.name: column.dtype for column in columns}
