"""What the words of a page mean, and the commands that lead on from it."""

import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis.columns import LINEARITY_CHANNEL_COLUMNS, LINEARITY_LAYER_COLUMNS, SPLIT_COLUMNS
from acon_analysis.runs.compare import SMALLEST
from acon_analysis.runs.run import Run
from acon_analysis.statistics.causes import LINEAR
from acon_analysis.statistics.sentences import WHAT_L_IS
from acon_analysis.statistics.yardsticks import yardsticks
from acon_figures.names import visible

_SIGNS = {
    "L": "L", "s_c": "s_c", "L_gate": "L of the gate", "G": "G", "kappa": "κ", "rho": "ρ",
    "L_own": "L_own", "beta_gain": "gain of β", "ratio": "samples’ effect", "null_p05": "null",
    "p_value": "p", "linear": "linear", "dead": "dead", "one_signed": "one sign",
    "equal_slopes": "p1≈p2", "gate_constant": "constant gate",
}  # fmt: skip
_FLAGS = ("dead", "one_signed", "equal_slopes", "gate_constant")
_EVERY = (*SPLIT_COLUMNS, *LINEARITY_LAYER_COLUMNS, *LINEARITY_CHANNEL_COLUMNS)

#: What the headings of tables mean: the tables' own definitions, some of them in plainer words.
HINTS = {column.name: column.meaning.replace("NaN", "–") for column in _EVERY} | {
    "L": WHAT_L_IS,
    "s_c": "a channel's part of its layer's 1 - L; those of all channels add up to it",
    "L_own": "the share that straight lines explain if every sample has lines of its own, of the "
    "variance of all data; never below L, and high wherever a sample has few values",
    "beta_gain": "what a β that depends on the sample adds to L_own - L, compared with the same "
    "inputs at a constant β",
    "G": "how much the gate varies: 4·Var(gate), from 0, constant, to 1, half open and half shut",
    "kappa": "how sharply a channel bends within one standard deviation of its inputs: "
    "|β·(p1 - p2)|·std(x), β at its mean; from about 3 on it is two straight lines",
    "rho": "how much the channel's two lines differ: (p1 - p2)/(p1 + p2), 0 for one line, ±1 where "
    "one is flat, beyond where one rises and the other falls",
    "ratio": "how much the samples' means of β vary, as a multiple of what independent channels "
    "give",
    "beta_mean": "mean of β over samples and channels; below it the standard deviation",
    "linear": f"channels with L ≥ {LINEAR}, straight lines on these data; below it how many of "
    "them are dead",
    "one_signed": "all inputs of the channel are positive, or all are negative",
    "equal_slopes": "the two lines of an ACON channel have nearly the same slope: it is linear "
    "even if it switches sharply between them",
    "gate_constant": f"the gate hardly varies: G < {1e-4:g}",
    "null_p05": "5 to 95 % of networks like this one whose β networks have random weights",
    "change": "what the 95 % interval of the difference says, each layer by itself; changes "
    f"below {SMALLEST:g} do not count",
}

#: Words that a page explains where its text holds the pattern.
_WORDS = (
    ("channel", "channel", "one index of the axis of features, each with a straight line of its "
     "own: the second axis of images, (samples, channels, height, width), the last of sequences, "
     "(samples, tokens, features)"),
    ("product", "product, gate", "a layer a·g(b), such as SwiGLU or squeeze-and-excitation, with "
     "the gate g(b). In place of a line it is compared with a plane, the best c0 + c1·a + c2·b"),
    (r"[:.]?\w+#\d", "silu#0, mul#0", "a function that a module calls, counted from 0 within one "
     "call of the module; mul is a product"),
    ("interval", "interval", "95 %: how far other samples of the same data would move a number "
     "(jackknife over blocks of samples); what another training would change is not in it"),
    ("Gaussian", "Gaussian inputs", "normally distributed, of mean 0 and, where nothing else is "
     "said, standard deviation 1: a yardstick, not these data"),
    (r"\(?call \d", "call 0, call 1", "a layer that runs several times in one forward pass is "
     "listed once for each"),
    ("elements|operator", "operator, calls, elements", "a function of torch's core, how often it "
     "runs in one forward pass, and how many numbers its outputs hold"),
    ("saturated", "saturated", "reaching only inputs where the function is nearly flat"),
    ("p1≈-p2", "p1≈-p2", "the two lines of an ACON channel nearly mirror each other, like |x|: "
     "little of a straight line is left"),
)  # fmt: skip


def signs(layers: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the meaning of the numbers that a page shows."""
    found = []
    for name, sign in _SIGNS.items():
        values = layers["s_c_max" if name == "s_c" else name]
        shown = (values > 0) if name in _FLAGS else values.notna()
        if bool(shown.any()):
            found.append((sign, HINTS[name]))
    return found


def words(said: str) -> list[tuple[str, str]]:
    """Return the meaning of the words that a page's texts hold."""
    return [(word, meaning) for pattern, word, meaning in _WORDS if re.search(pattern, said)]


def yardstick(layers: pd.DataFrame) -> str:
    """Return what the dotted line of the chart by depth is."""
    known = [one for one in yardsticks(layers) if not math.isnan(one.L)]
    if len(known) != 1:
        return "each layer's function on Gaussian inputs" if known else ""
    return f"{known[0].name} on Gaussian inputs: {known[0].L:.3f}"


def next_steps(run: Run, layers: pd.DataFrame) -> dict[str, Any]:
    """Return what to do after reading: ``steps`` of (what for, command), and a ``note``."""
    data = run.data_name or ""
    model = _given(run.model, "MODEL", known=":" in run.model or "." not in run.model)
    data = _given(data, "DATA", known=":" in data or data in ("digits", "cifar10"))
    own = _given(str(run.path), "RUN")
    steps = []
    if bool((layers["linear"] > 0).any()):
        steps.append((
            "Make the 5 % most linear of all channels straight lines, and measure what that costs",
            f"acon linearize {model} --run {own} --data OTHER_DATA --budget 5% --out lines",
        ))  # fmt: skip
    if run.has_moments:
        steps.append((
            "Replace activations by simpler functions, fitted to their inputs",
            f"acon replace {model} --fit {data} --data OTHER_DATA --with two-piece --out pieces",
        ))  # fmt: skip
    if held := _what_can_be_held(run):
        steps.append((
            f"Ask whether the network uses its {held}: hold or exchange them",
            f"acon gates {model} --data {data}",
        ))  # fmt: skip
    steps.append(("Measure whole blocks and the network", f"acon blocks {model} --data {data}"))
    steps.append((
        "Compare with another run, such as another epoch, seed or activation",
        f"acon report {own} OTHER_RUN --out compared.html",
    ))  # fmt: skip
    names = [name for name in ("MODEL", "DATA") if name in (model, data)]
    as_captured = f"{' and '.join(names)}: as for `acon capture`. " if names else ""
    folder = f"RUN: the folder {run.path.name!r}. " if own == "RUN" else ""
    note = (
        f"{as_captured}{visible(folder)}OTHER_DATA: samples that were not captured here, named "
        "as DATA of a capture; OTHER_RUN: the folder of another run. In Python: acon.linearize, "
        "acon.replace, acon.gate_use, acon.block_linearity, acon.compare."
    )
    return {"steps": steps, "note": note}


def _given(name: str, word: str, known: bool = True) -> str:
    """Return a name as a command takes it; a word for a private path or what no command knows."""
    return shlex.quote(visible(name)) if known and not Path(name).is_absolute() else word


def _what_can_be_held(run: Run) -> str:
    """Return what `acon gates` may hold in a run's network; "" where it can hold nothing."""
    layers = run.layers
    owners = layers["gate_of"].str.partition(":")[0]
    # Squeeze-and-excitation: a sigmoid within the module that multiplies with it.
    inside = np.array(
        [
            bool(gate) and name.startswith(f"{owner}.")
            for name, gate, owner in zip(layers["layer"], layers["gate_of"], owners, strict=True)
        ],
        dtype=bool,
    )
    sigmoid = layers["class_name"].isin(["Sigmoid", "Hardsigmoid"])
    gates = (layers["kind"] == "gate") | (layers["class_name"] == "GLU") | (sigmoid & inside)
    held = {"β": len(run.per_sample_layers) > 0, "gates": bool(gates.any())}
    return " and ".join(name for name, known in held.items() if known)
