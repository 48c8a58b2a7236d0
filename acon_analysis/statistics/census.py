"""What a census of a network's operators says: one sentence, and a row an operator."""

import re
from collections.abc import Sequence

import pandas as pd

from acon_analysis.columns import CENSUS_COLUMNS, dtypes, names
from acon_analysis.screen import counted, listed

#: Operators that a sentence names.
MOST_NAMED = 6


def plain_name(operator: str) -> str:
    """Return an operator's name without what only the dispatcher needs: "_softmax" is "softmax"."""
    if "attention" in operator:
        return "attention"
    found = re.sub(r"^(_foreach_|_+|native_)+|_with_indices$|_forward$", "", operator)
    return found.rstrip("_") or operator


def census_text(frame: pd.DataFrame, kinds: Sequence[str] = ("activation",)) -> str:
    """Return how much of a network's nonlinearity is measured, in one sentence.

    Where ``kinds``, those of the layers that were asked for, lack activations, the sentence says
    which calls that leaves out.

    >>> frame = pd.DataFrame({"operator": ["relu", "_softmax"], "calls": [3, 2],
    ...     "elements": [60, 40], "class": "nonlinear", "measured": [True, False], "reason": ""})
    >>> census_text(frame)
    'measured 3 of 5 nonlinear calls (60 % of their elements); not measured: 2 softmax'
    """
    frame = layers_once(frame)
    nonlinear = frame[frame["class"] == "nonlinear"]
    unknown = frame[(frame["class"] == "unknown") & (frame["calls"] > 0)]
    measured = nonlinear[nonlinear["measured"]]
    total, elements = nonlinear["calls"].sum(), nonlinear["elements"].sum()
    parts = [
        f"measured {measured['calls'].sum()} of {counted(int(total), 'nonlinear call')} "
        f"({100 * measured['elements'].sum() / max(elements, 1):.0f} % of their elements)"
    ]
    if not total:
        parts = ["no call is nonlinear in the input"]
    others = nonlinear[~nonlinear["measured"]]
    left_out = others[(others["reason"] == "activation") & ("activation" not in kinds)]
    if len(others := others.drop(left_out.index)):
        parts.append(f"not measured: {_counted(others)}")
    if len(left_out):
        more = ",".join([*kinds, "activation"])
        parts.append(f"left out, of kind activation: {_counted(left_out)} (add --kinds {more})")
    if len(unknown):
        parts.append(f"unknown: {_counted(unknown)}")
    parts += frame.loc[frame["reason"].str.startswith("census incomplete"), "reason"].tolist()
    return "; ".join(parts)


def census_table(frame: pd.DataFrame, most: int = 3) -> pd.DataFrame:
    """Return a row an operator that is nonlinear or unknown, those not measured first.

    Of its modules at most `most` are named. A measured layer that is written in several operators
    is one row, as `layers_once` has it.
    """
    bent = layers_once(frame)
    bent = bent[bent["class"] != "linear"]
    bent = bent.assign(operator=bent["operator"].map(plain_name))
    total = max(int(bent["elements"].sum()), 1)
    rows = []
    for (operator, measured, kind, reason), group in bent.groupby(
        ["operator", "measured", "class", "reason"], sort=False
    ):
        calls, elements = group["calls"].sum(), group["elements"].sum()
        modules = [name or "the network itself" for name in dict.fromkeys(group["name"])]
        shown = listed(modules, most)
        rows.append((operator, kind, reason, calls, elements / total, measured, shown))
    table = pd.DataFrame(rows, columns=names(CENSUS_COLUMNS)).astype(dtypes(CENSUS_COLUMNS))
    order = ["measured", "share", "calls"]
    return table.sort_values(order, ascending=[True, False, False], kind="stable").reset_index(
        drop=True
    )


def layers_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a census that counts a measured layer written in several operators once a call.

    GELU by tanh is a power, a tanh and a product: three nonlinear operators, one activation. Its
    calls and elements are those of the operator with fewest calls there.
    """
    if "layer" not in frame:
        return frame
    own = frame[frame["measured"] & (frame["class"] == "nonlinear")]
    pieces = own[own.duplicated("layer", keep=False)]
    once = {}
    for _, group in pieces.groupby("layer", sort=False):
        fewest = group[group["calls"] == group["calls"].min()]
        operators = dict.fromkeys(map(plain_name, group["operator"]))
        once[group.index[0]] = {
            **group.iloc[0], "operator": " + ".join(operators),
            "calls": fewest["calls"].iloc[0], "elements": fewest["elements"].max(),
            "reason": "one layer of several operators",
        }  # fmt: skip
    joined = pd.DataFrame(once.values(), index=list(once), columns=frame.columns)
    return pd.concat([frame.drop(pieces.index), joined.astype(frame.dtypes)]).sort_index()


def _counted(frame: pd.DataFrame) -> str:
    """Return the calls of each operator, the most first."""
    calls = frame.groupby(frame["operator"].map(plain_name), sort=False)["calls"].sum()
    calls = calls.sort_values(ascending=False, kind="stable")
    shown = [f"{count} {name}" for name, count in calls[:MOST_NAMED].items()]
    rest = calls[MOST_NAMED:]
    return ", ".join(shown + ([f"{rest.sum()} of {len(rest)} more operators"] if len(rest) else []))
