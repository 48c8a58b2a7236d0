"""What the words of a page mean, and the commands that lead on from it."""

import re
import shlex
from typing import Any

import pandas as pd

from acon_analysis.columns import LINEARITY_CHANNEL_COLUMNS, LINEARITY_LAYER_COLUMNS, SPLIT_COLUMNS
from acon_analysis.runs.run import Run
from acon_analysis.statistics.causes import LINEAR
from acon_analysis.statistics.gaussian import RELU_L
from acon_analysis.statistics.sentences import WHAT_L_IS
from acon_analysis.statistics.yardsticks import own_yardstick
from acon_figures.names import last_part, visible

_SIGNS = {
    "L": "L", "s_c": "s_c", "L_gate": "L of the gate", "G": "G", "kappa": "κ", "rho": "ρ",
    "L_own": "L_own", "beta_gain": "gain of β", "ratio": "samples’ effect", "null_p05": "null",
    "p_value": "p", "linear": "linear", "dead": "dead", "one_signed": "one sign",
    "equal_slopes": "p1≈p2", "gate_constant": "constant gate",
}  # fmt: skip
_FLAGS = ("dead", "one_signed", "equal_slopes", "gate_constant")
_EVERY = (*SPLIT_COLUMNS, *LINEARITY_LAYER_COLUMNS, *LINEARITY_CHANNEL_COLUMNS)

#: What the headings of tables mean: the tables' own definitions, some of them in plainer words.
HINTS = {column.name: column.meaning for column in _EVERY} | {
    "L": WHAT_L_IS,
    "s_c": "a channel's part of its layer's 1 - L; those of all channels add up to it",
    "L_own": "the share that straight lines explain if every sample has lines of its own, of the "
    "variance of all data; never below L, and high wherever a sample has few values",
    "beta_gain": "what a β that depends on the sample adds to L_own - L, compared with the same "
    "inputs at a constant β",
    "beta_mean": "mean of β over samples and channels; below it the standard deviation",
    "linear": f"channels with L ≥ {LINEAR}, straight lines on these data; below it how many of "
    "them are dead",
    "one_signed": "all inputs of the channel are positive, or all are negative",
    "equal_slopes": "the two lines of an ACON channel have nearly the same slope: it is linear "
    "even if it switches sharply between them",
    "gate_constant": f"the gate hardly varies: G < {1e-4:g}",
    "null_p05": "5 to 95 % of networks like this one whose β networks have random weights",
    "change": "what the 95 % interval of the difference says, each layer by itself",
}

#: Words that a page explains where its text holds the pattern.
_WORDS = (
    ("channel", "channel", "in an output (samples, channels, ...) one index of the second axis, in "
     "(samples, features) one feature; each has a straight line of its own"),
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
    """Return L of a ReLU and of the most frequent other activation, for Gaussian inputs."""
    own = own_yardstick(layers)
    more = "" if own is None else f" ({visible(own[0])}: {own[1]:.3f})"
    return f"ReLU on Gaussian inputs: {RELU_L:.3f}{more}"


def next_steps(run: Run, layers: pd.DataFrame) -> dict[str, Any]:
    """Return what to do after reading: ``steps`` of (what for, command), and a ``note``."""
    model, data = (last_part(visible(name)) for name in (run.model, run.data_name or ""))
    model = shlex.quote(model) if ":" in model or "." not in run.model else "MODEL"
    data = shlex.quote(data) if ":" in data or data in ("digits", "cifar10") else "DATA"
    own = shlex.quote(visible(run.path.absolute().name))
    steps = []
    if bool((layers["linear"] > 0).any()):
        steps.append((
            "Make the linear channels straight lines, and measure what that costs",
            f"acon linearize {model} --run {own} --data OTHER_DATA --out lines",
        ))  # fmt: skip
    if run.has_moments:
        steps.append((
            "Replace activations by simpler functions, fitted to their inputs",
            f"acon replace {model} --fit {data} --data OTHER_DATA --with two-piece --out pieces",
        ))  # fmt: skip
    if len(run.per_sample_layers) or run.layers["kind"].isin(["product", "gate"]).any():
        steps.append((
            "Ask whether the network uses its β and gates: hold or exchange them",
            f"acon gates {model} --data {data}",
        ))  # fmt: skip
    steps.append(("Measure whole blocks and the network", f"acon blocks {model} --data {data}"))
    steps.append((
        "Compare with another run, such as another epoch, seed or activation",
        f"acon report {own} OTHER_RUN --out compared.html",
    ))  # fmt: skip
    names = [name for name in ("MODEL", "DATA") if name in (model, data)]
    as_captured = f"{' and '.join(names)}: as for `acon capture`. " if names else ""
    note = (
        f"{as_captured}OTHER_DATA: samples that were not captured here. In Python: acon.replace, "
        "acon.gate_use, acon.block_linearity, acon.compare."
    )
    return {"steps": steps, "note": note}
