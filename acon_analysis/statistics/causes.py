"""Why a channel is linear, in words: flags and causes from the stored numbers.

The causes are counterfactual: "because p1≈p2" means that the channel would be linear for zero-mean
Gaussian inputs even with an infinitely sharp gate; "because its gain is small" means that it would
be linear for zero-mean Gaussian inputs with the gain it has. Only what neither explains is put
down to inputs on one side of 0; of other activations only where the function is a line there: a
sigmoid of negative inputs is no line, unless they vary little.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from acon_analysis.screen import counted
from acon_analysis.statistics.formulas import SATURATED, formula_of, known_activation
from acon_analysis.statistics.gaussian import FloatArray, gaussian_fit

#: From this L on a channel is called linear.
LINEAR = 0.99
#: A channel is linear because of the side of its inputs if at least this share lies there.
ONE_SIDED = 0.95
#: A gate whose G = 4·Var(gate) is below this is constant (its standard deviation below 0.005).
GATE_CONSTANT = 1e-4
#: From this |ρ| on p1 and p2 nearly cancel: L <= 0.24 for a sharp gate and zero-mean inputs.
CANCELLING = 3.0

#: An output that varies by fewer roundings of float32 than this leaves L less than six digits.
NEARLY_DEAD = 100.0

BoolArray = npt.NDArray[np.bool_]

#: Cause of a channel -> the words for it in the summary of a layer.
CAUSES: dict[str, str] = {
    "empty": "saw no data",
    "not_finite": "with NaN or infinity",
    "dead": "dead (the output does not vary)",
    "constant_input": "without input that varies",
    "equal_slopes": "linear because p1≈p2",
    "small_gain": "linear because the gain is small",
    "positive": f"linear because {100 * ONE_SIDED:.0f} % or more of their inputs are positive",
    "negative": f"linear because {100 * ONE_SIDED:.0f} % or more of their inputs are negative",
    "combined": "linear for several reasons together",
    "linear": "linear over the range of their inputs",
    "varying_beta": "nonlinear because β differs between samples",
    "cancelling": "nonlinear because p1≈-p2",
    "switching": "nonlinear because the gate switches",
    "saturated": "saturated (nearly flat where their inputs lie)",
    "nonlinear": "nonlinear",
    "linear_product": "linear over their factors",
    "product": "nonlinear because both factors vary",
}

#: A product's L and that of its gate alone that differ by more are pointed out.
FAR = 0.2


def equal_slopes(rho: npt.ArrayLike) -> BoolArray:
    """Return where p1≈p2: |ρ| <= 0.1667 = |(p1 - p2)/(p1 + p2)|; False for NaN.

    Even a sharp gate would leave L >= 0.99 for zero-mean Gaussian inputs.
    """
    values = np.abs(np.asarray(rho, dtype=np.float64))
    limit = np.sqrt((1 / LINEAR - 1) / (1 - 2 / np.pi))
    return np.asarray(values <= limit)


@lru_cache
def straight_sides(class_name: str, parameters: str = "") -> tuple[bool, bool]:
    """Return whether an activation is a line left of 0, and right of it; False where unknown.

    Without its parameters it has the usual ones.
    """
    one = formula_of(class_name, parameters) or known_activation(class_name)
    if one is None or one.arguments != ("x",):
        return False, False
    x = np.linspace(0.0, 5.0, 101)[1:]
    left, right = (np.ptp(one.derivative(side, **one.parameters)) == 0 for side in (-x, x))
    return bool(left), bool(right)


def causes(
    columns: Mapping[str, FloatArray],
    *,
    dead: BoolArray,
    constant: BoolArray,
    product: BoolArray,
    straight: npt.NDArray[np.bool_],
    flat: BoolArray,
) -> list[str]:
    """Name the cause of each channel's linearity or nonlinearity, a key of `CAUSES`.

    ``columns`` are L, L_reference (at a constant β), n, left_out (samples), positive, kappa and
    rho, (R,) each, NaN where a layer has no such thing; ``product`` flags channels of gated
    products; ``straight`` (R, 2) functions that are lines left and right of 0 (`straight_sides`);
    ``flat`` flags channels that are saturated.
    """
    L, n, rho, positive = (columns[name] for name in ("L", "n", "rho", "positive"))
    small = gaussian_fit(columns["kappa"], rho).L >= LINEAR
    acon = ~np.isnan(rho)
    left, right = acon | straight[:, 0], acon | straight[:, 1]
    tests: list[tuple[str, npt.NDArray[np.bool_]]] = [
        ("empty", (n == 0) & (columns["left_out"] == 0)),
        ("not_finite", np.isnan(L)),
        ("constant_input", constant),
        ("dead", dead),
        ("product", (L < LINEAR) & product),
        ("linear_product", product),
        ("varying_beta", (L < LINEAR) & (columns["L_reference"] >= LINEAR)),
        ("cancelling", (L < LINEAR) & (np.abs(rho) >= CANCELLING)),
        ("switching", (L < LINEAR) & acon),
        ("saturated", (L < LINEAR) & flat),
        ("nonlinear", L < LINEAR),
        ("equal_slopes", equal_slopes(rho)),
        ("small_gain", small),
        ("positive", right & (positive >= ONE_SIDED)),
        ("negative", left & (positive <= 1 - ONE_SIDED)),
        ("combined", acon),
    ]
    chosen = np.select([mask for _, mask in tests], [name for name, _ in tests], "linear")
    return [str(name) for name in chosen]


#: Cause of a channel -> the words for it alone, to be filled with its numbers.
_SENTENCES = CAUSES | {
    "not_finite": "not measurable: its inputs or outputs hold NaN or infinity",
    "dead": "dead: its output does not vary",
    "constant_input": "its input does not vary",
    "small_gain": "linear because its gain is small (κ = {kappa:.2g})",
    "positive": "linear because its inputs are positive in {up}",
    "negative": "linear because its inputs are negative in {down}",
    "combined": "linear: close slopes, small gain and uneven signs of its inputs together",
    "linear": "linear over the range of its inputs ({min_x:.3g} to {max_x:.3g})",
    "varying_beta": "nonlinear only because its β differs between samples",
    "cancelling": "nonlinear because p1≈-p2 leaves little of the straight line",
    "switching": "nonlinear: its gate switches (G = {G:.2g})",
    "saturated": "saturated: no slope over its inputs ({min_x:.3g} to {max_x:.3g}) is "
    f"{100 * SATURATED:.0f} % of the steepest",
    "nonlinear": "nonlinear over its inputs ({min_x:.3g} to {max_x:.3g})",
    "linear_product": "linear over its two factors{gate}",
    "product": "nonlinear because both of its factors vary{gate}",
}


def sentence(cause: str, row: Mapping[Any, float]) -> str:
    """Return one channel's cause, a key of `CAUSES`, in words.

    ``row`` holds its columns of `columns.LINEARITY_CHANNEL_COLUMNS`; ``roundings`` are named below
    `NEARLY_DEAD`. Such as ``"linear because its inputs are positive in 99.7 %"``.
    """
    shares = {"up": _percent(row["positive"]), "down": _percent(1 - row["positive"])}
    words = _SENTENCES[cause].format(**row, **shares, gate=gate_words(row["L_gate"]))
    return words + _nearly_dead(row["roundings"])


def gate_words(L_gate: float) -> str:
    """Return L of a product's gate alone in words; empty where there is none."""
    return "" if np.isnan(L_gate) else f" (L of its gate alone: {L_gate:.2f})"


def _nearly_dead(roundings: float) -> str:
    """Return in words that an output varies next to nothing; empty where it varies by more."""
    if not roundings < NEARLY_DEAD:
        return ""
    return f"; nearly dead: L is blurred, the output varies by {roundings:.0f} roundings"


def _percent(share: float) -> str:
    """Format a share so that 99.97 % does not become 100.0 %."""
    percent = 100 * share
    digits = 1
    while percent < 100 and float(f"{percent:.{digits}f}") >= 100 and digits < 6:
        digits += 1
    return f"{percent:.{digits}f} %"


def layer_sentence(
    found: Sequence[str],
    L: float,
    *,
    dead: bool = False,
    left_out: int = 0,
    samples: int = 0,
    L_gate: float = np.nan,
    rowless: bool = False,
    roundings: float = np.nan,
) -> str:
    """Summarise the causes of a layer's channels, keys of `CAUSES`, in one sentence.

    ``dead``: the outputs of none of its channels vary; ``left_out`` and ``samples``: samples that
    were left out, and that were not; ``L_gate`` is named where it is more than `FAR` from L;
    ``rowless``: rows of its input are no samples, so rows are left out, and samples not counted;
    ``roundings``: as for `sentence`, of the channel that varies most. Such as ``"64 channels: 40
    linear because p1≈p2, 24 dead (...)"``; the layer itself is called neither linear nor
    nonlinear: `LINEAR` is for channels.
    """
    names, counts = np.unique(np.asarray(found, dtype=object).astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    many = ["all" if len(names) == 1 and len(found) > 1 else str(count) for count in counts]
    listed = ", ".join(f"{many[i]} {CAUSES[str(names[i])]}" for i in order)
    degree = "not measurable: " if np.isnan(L) else "dead: " if dead else ""
    what = f"{left_out} of {counted(left_out + samples, 'sample')}"
    what = counted(left_out, "row") if rowless else what
    lost = f"; {what} left out (NaN or infinity)" if left_out else ""
    apart = "; its rows are no samples: no values by sample" if rowless else ""
    gate = gate_words(L_gate) if abs(L_gate - L) > FAR else ""
    text = f"{degree}{counted(len(found), 'channel')}: {listed}{gate}{lost}{apart}"
    return text + _nearly_dead(roundings)
