"""Every stored number about the inputs and outputs of activation layers, and how it merges.

x is a layer's input, y its output. A layer of the ACON family is an odd line plus an even bump,
f(x) = m·x + e with m = (p1 + p2)/2, d = p1 - p2 and e = (d·x/2)·tanh(β·d·x/2); its gate is
g = σ(u), u = β·d·x. The line is affine, so the residual of the best affine fit of y is that of e:
where β is small e is tiny and its moments keep the digits that those of y lose.

A gated product is y = a·h with h = g(x): x is what its gate g is computed from, a the other factor.

The counterfactual (``reference``) is the same layer on the same inputs with one β per channel
that does not depend on the sample; r is its even part. Nothing here imports anything heavy.
"""

from dataclasses import dataclass

from acon_analysis.columns import MOMENT_KEY_COLUMNS, Column


@dataclass(frozen=True)
class Field(Column):
    """One stored quantity: a column of ``moments/`` and how it merges.

    Its unit is ``"x"``, ``"y"`` (as the layer's input and output), a product of them or ``"1"``. A
    state has all fields of a ``group`` or none. ``rule`` is ``"sum"``, ``"min"``, ``"max"``,
    ``"mean"`` (``of`` is the weight) or ``"moment"`` (``of`` is the two means and the weight).
    """

    group: str
    rule: str
    of: tuple[str, ...] = ()


def _total(name: str, group: str, unit: str, meaning: str, dtype: str = "float64") -> Field:
    return Field(name, dtype, unit, meaning, group, "sum")


def _mean(name: str, group: str, unit: str, meaning: str, weight: str = "n") -> Field:
    return Field(name, "float64", unit, meaning, group, "mean", (weight,))


def _moment(
    name: str, group: str, means: tuple[str, str], unit: str, meaning: str, weight: str = "n"
) -> Field:
    return Field(name, "float64", unit, meaning, group, "moment", (*means, weight))


def _extreme(name: str, group: str, rule: str, unit: str, meaning: str) -> Field:
    return Field(name, "float64", unit, meaning, group, rule)


_X, _Y, _E, _R, _G, _B = ("mean_x", "mean_y", "mean_e", "mean_r", "mean_g", "mean_beta")
_A, _H = "mean_a", "mean_h"

#: All fields, in the order of the columns of ``moments/``.
FIELDS: tuple[Field, ...] = (
    _total("n", "base", "1", "values (samples times positions) seen", "int64"),
    _mean(_X, "base", "x", "mean of x"),
    _mean(_Y, "base", "y", "mean of y"),
    _moment("cxx", "base", (_X, _X), "x²", "sum of (x - mean_x)²"),
    _moment("cxy", "base", (_X, _Y), "x·y", "sum of (x - mean_x)·(y - mean_y)"),
    _moment("cyy", "base", (_Y, _Y), "y²", "sum of (y - mean_y)²"),
    _extreme("min_x", "base", "min", "x", "smallest x; +inf where n = 0"),
    _extreme("max_x", "base", "max", "x", "largest x; -inf where n = 0"),
    _total("n_positive", "base", "1", "values with x > 0", "int64"),
    _mean(_G, "gate", "1", "mean of the gate g = σ(β·d·x)"),
    _moment("cgg", "gate", (_G, _G), "1", "sum of (g - mean_g)²"),
    _mean(_E, "even", "y", "mean of the even part e"),
    _moment("cxe", "even", (_X, _E), "x·y", "sum of (x - mean_x)·(e - mean_e)"),
    _moment("cee", "even", (_E, _E), "y²", "sum of (e - mean_e)²"),
    _mean(_R, "reference", "y", "mean of the even part r at the constant reference β"),
    _moment("cxr", "reference", (_X, _R), "x·y", "sum of (x - mean_x)·(r - mean_r)"),
    _moment("crr", "reference", (_R, _R), "y²", "sum of (r - mean_r)²"),
    _extreme("min_u", "argument", "min", "1", "smallest gate argument u = β·d·x"),
    _extreme("max_u", "argument", "max", "1", "largest gate argument u = β·d·x"),
    _total("n_samples", "within", "1", "samples with at least one value", "int64"),
    _total("sse_within", "within", "y²", "sum over samples of the residual of its own affine fit"),
    _total(
        "sse_within_reference",
        "within_reference",
        "y²",
        "sum over samples of the residual of its own affine fit at the reference β",
    ),
    _mean(_B, "beta", "1", "mean of β over samples", "n_samples"),
    _moment("cbb", "beta", (_B, _B), "1", "sum over samples of (β - mean_beta)²", "n_samples"),
    _total(
        "n_left_out",
        "left_out",
        "1",
        "samples that no other field is of: NaN or infinity in the layer",
        "int64",
    ),
    _mean(_A, "product", "a", "mean of the factor a of a product y = a·h"),
    _moment("caa", "product", (_A, _A), "a²", "sum of (a - mean_a)²"),
    _moment("cxa", "product", (_X, _A), "x·a", "sum of (x - mean_x)·(a - mean_a)"),
    _moment("cay", "product", (_A, _Y), "a·y", "sum of (a - mean_a)·(y - mean_y)"),
    _mean(_H, "product", "h", "mean of the gate h = g(x) of a product; 0 without one"),
    _moment("cxh", "product", (_X, _H), "x·h", "sum of (x - mean_x)·(h - mean_h)"),
    _moment("chh", "product", (_H, _H), "h²", "sum of (h - mean_h)²"),
)

FIELD = {field.name: field for field in FIELDS}
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(field.group for field in FIELDS))

#: Blocks of samples for the jackknife, block = sample_id mod blocks: by default, the fewest, the
#: most. The default is a prime: lists of images often take turns by class (CIFAR-10's ten here);
#: blocks whose number shares a factor with that period hold few classes each, which made intervals
#: up to three times too wide.
BLOCKS, FEWEST_BLOCKS, MOST_BLOCKS = 101, 2, 1000

#: Blocks of runs that do not say how many they have.
UNRECORDED_BLOCKS = 100

#: A row of ``moments/`` (per layer, call, channel and block); NaN where a layer lacks a group.
MOMENT_COLUMNS: tuple[Column, ...] = (
    *MOMENT_KEY_COLUMNS,
    *(f for f in FIELDS if f.group != "product"),
)

#: Further columns of tables with gated products: what y = a·h, h = g(x), adds to x and y.
PRODUCT_COLUMNS: tuple[Column, ...] = tuple(f for f in FIELDS if f.group == "product")

#: A row of the full states, stored on request only (per layer, call, channel and sample): the
#: fields that describe one sample, β of that sample instead of its moments.
STATE_COLUMNS: tuple[Column, ...] = (
    *MOMENT_KEY_COLUMNS[:3],
    Column("sample", "int64", "", "sample_id"),
    *(f for f in FIELDS if f.group in {"base", "gate", "even", "reference", "argument"}),
    Column("beta", "float64", "1", "β of this sample; NaN for layers without one"),
)
