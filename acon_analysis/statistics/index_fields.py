"""Columns of the tables of linearity: (name, dtype, unit, meaning)."""

Columns = tuple[tuple[str, str, str, str], ...]

_LAYER: Columns = (
    ("layer", "str", "", "exact name in named_modules()"),
    ("call", "int64", "", "which use of the layer within one forward pass, from 0"),
)

_INDEX: Columns = (
    ("L", "float64", "1", "share of the output's variance that one affine fit explains"),
    ("L_error", "float64", "1", "standard error of L, jackknife over blocks of samples"),
    ("L_low", "float64", "1", "lower end of the interval of L"),
    ("L_high", "float64", "1", "upper end of the interval of L"),
    ("nonlinearity", "float64", "1", "1 - L with its own digits: sse / cyy"),
    ("sse", "float64", "y²", "sum of squared residuals of the one affine fit"),
    ("cyy", "float64", "y²", "sum of squared deviations of the output"),
)

_COMPARED: Columns = (
    ("L_own", "float64", "1", "the same with one affine fit per sample: 1 - Σ sse_s / cyy"),
    ("gap", "float64", "1", "L_own - L, never negative"),
    ("L_reference", "float64", "1", "L of the same inputs at the constant reference β"),
    ("L_own_reference", "float64", "1", "L_own of the same inputs at the reference β"),
    ("gap_reference", "float64", "1", "L_own_reference - L_reference"),
    ("beta_gain", "float64", "1", "gap - gap_reference: what an input-dependent β adds"),
    ("beta_gain_error", "float64", "1", "its standard error"),
    ("L_gauss", "float64", "1", "L predicted for Gaussian inputs from κ, ρ and ν"),
)

CHANNEL_COLUMNS: Columns = (
    *_LAYER,
    ("channel", "int64", "", "channel, from 0"),
    ("n", "int64", "1", "values seen: samples times positions"),
    ("n_samples", "int64", "1", "samples seen; 0 where they were not counted"),
    *_INDEX,
    ("s_c", "float64", "1", "the channel's share of the layer's nonlinearity: sse / Σ cyy"),
    ("s_c_error", "float64", "1", "standard error of s_c"),
    ("slope", "float64", "y/x", "slope of the affine fit"),
    ("intercept", "float64", "y", "intercept of the affine fit"),
    ("G", "float64", "1", "4·Var(gate), in [0, 1]"),
    ("G_error", "float64", "1", "standard error of G"),
    ("kappa", "float64", "1", "effective gain |β·(p1 - p2)|·std(x), β at its mean over samples"),
    ("rho", "float64", "1", "contrast (p1 - p2)/(p1 + p2)"),
    ("nu", "float64", "1", "offset mean(x)/std(x)"),
    *_COMPARED,
    ("beta_mean", "float64", "1", "mean of β over samples; the parameter where it is static"),
    ("beta_std", "float64", "1", "standard deviation of β over samples; 0 where it is static"),
    ("beta_reference", "float64", "1", "constant β of the counterfactual"),
    ("slope_min", "float64", "y/x", "least derivative over all real x"),
    ("slope_max", "float64", "y/x", "greatest derivative over all real x"),
    ("slope_low", "float64", "y/x", "least derivative over the range of the data"),
    ("slope_high", "float64", "y/x", "greatest derivative over the range of the data"),
    ("mean_x", "float64", "x", "mean of the inputs"),
    ("std_x", "float64", "x", "standard deviation of the inputs"),
    ("min_x", "float64", "x", "smallest input"),
    ("max_x", "float64", "x", "largest input"),
    ("positive", "float64", "1", "share of inputs > 0"),
    ("dead", "bool", "", "the output does not vary beyond rounding: L = 1 by convention"),
    ("constant_input", "bool", "", "the input does not vary"),
    ("one_signed", "bool", "", "no input < 0, or none > 0"),
    ("equal_slopes", "bool", "", "p1≈p2: linear even with a sharp gate (|ρ| <= 0.1667)"),
    ("gate_constant", "bool", "", "G < 1e-4"),
    ("cause", "str", "", "why it is linear or not: a key of causes.CAUSES"),
    ("why", "str", "", "the same in words"),
)

LAYER_COLUMNS: Columns = (
    *_LAYER,
    ("channels", "int64", "1", "channels of the layer"),
    ("n", "int64", "1", "values seen in all channels"),
    ("n_samples", "int64", "1", "samples seen; 0 where they were not counted"),
    *_INDEX,
    ("G", "float64", "1", "mean over channels of 4·Var(gate)"),
    ("G_error", "float64", "1", "standard error of G"),
    ("kappa", "float64", "1", "median over channels of the gain"),
    ("rho", "float64", "1", "median over channels of |ρ|"),
    ("nu", "float64", "1", "median over channels of |ν|"),
    *_COMPARED,
    ("beta_mean", "float64", "1", "mean over channels of the mean of β"),
    ("slope_min", "float64", "y/x", "least derivative of any channel over all real x"),
    ("slope_max", "float64", "y/x", "greatest derivative of any channel over all real x"),
    ("slope_low", "float64", "y/x", "least derivative of any channel over the data"),
    ("slope_high", "float64", "y/x", "greatest derivative of any channel over the data"),
    ("positive", "float64", "1", "share of inputs > 0"),
    ("linear", "int64", "1", "channels with L >= 0.99"),
    ("dead", "int64", "1", "channels so flagged"),
    ("constant_input", "int64", "1", "channels so flagged"),
    ("one_signed", "int64", "1", "channels so flagged"),
    ("equal_slopes", "int64", "1", "channels so flagged"),
    ("gate_constant", "int64", "1", "channels so flagged"),
    ("why", "str", "", "the causes of its channels in words"),
)

SAMPLE_COLUMNS: Columns = (
    ("sample", "int64", "", "sample_id"),
    *_LAYER,
    ("channels", "int64", "1", "channels of the layer"),
    ("n", "int64", "1", "values summed"),
    ("L", "float64", "1", "1 - Σ_c sse / Σ_c cyy, one affine fit per channel of this sample"),
    ("nonlinearity", "float64", "1", "1 - L with its own digits"),
    ("sse", "float64", "y²", "sum over channels of the residuals"),
    ("cyy", "float64", "y²", "sum over channels of the output's squared deviations"),
    ("G", "float64", "1", "mean over channels of 4·Var(gate) within the sample"),
    ("kappa", "float64", "1", "mean over channels of the gain within the sample"),
    ("L_reference", "float64", "1", "L of the same sample at the constant reference β"),
    ("dead", "bool", "", "the outputs do not vary within the sample: L = 1 by convention"),
)

DIFFERENCE_COLUMNS: Columns = (
    *_LAYER,
    ("quantity", "str", "", "L, L_own, beta_gain or G"),
    ("first", "float64", "1", "value in the first run"),
    ("second", "float64", "1", "value in the second run"),
    ("difference", "float64", "1", "second - first"),
    ("error", "float64", "1", "standard error of the difference"),
    ("low", "float64", "1", "lower end of its interval"),
    ("high", "float64", "1", "upper end of its interval"),
    ("paired", "bool", "", "whether the blocks of both runs hold the same samples"),
)
