"""What was found in a run, for people: a question, the answer in plain English, the numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from acon_analysis.screen import a_or_an, counted, listed, settled, three_digits
from acon_analysis.statistics.causes import LINEAR
from acon_analysis.statistics.census import census_text
from acon_analysis.statistics.formulas import formula_of
from acon_analysis.statistics.sentences import (
    WHAT_L_IS,
    Names,
    alive,
    gates_text,
    is_gate,
    is_product,
    layer_names,
    main_layers,
    row_names,
    sentence,
)
from acon_analysis.statistics.verdicts import overall_of
from acon_analysis.statistics.yardsticks import Yardstick, own_yardsticks, yardsticks

#: Layers whose test of β a finding spells out, and further activations that it compares with.
MOST_TESTS, MOST_YARDSTICKS = 3, 3

#: What stands for the line where a layer is a product.
PLANE = " In place of the line a product a·g(b) has a plane over a and the gate's input b."


class Finding(NamedTuple):
    """One thing that a run shows, in whole sentences; `numbers` may be empty."""

    question: str
    answer: str
    numbers: str = ""

    def __str__(self) -> str:
        said = f"{self.question} {self.answer}"
        return f"{said}\n{self.numbers}" if self.numbers else said


def findings(
    layers: pd.DataFrame | None,
    splits: pd.DataFrame | None = None,
    census: pd.DataFrame | None = None,
    names: Names | None = None,
    kinds: Sequence[str] = ("activation",),
) -> list[Finding]:
    """Return what was found: linearity, what β depends on, what is not measured.

    ``layers`` comes from `layer_overview` or from `Run.linearity` with all columns, ``splits`` from
    `Run.variance_split`, ``census`` is `Run.nonlinearities`; what is not given is not mentioned.
    ``names`` are those of `layer_names`, by default of the given tables; ``kinds`` the kinds of
    layers that the run was to capture.
    """
    found = []
    if layers is not None:
        own = layer_names(layers) if names is None else names
        found += [how_linear(layers, own), straight_channels(layers), gates_alone(layers, own)]
    if splits is not None:
        found.append(learned_beta(splits, names))
    if census is not None:
        text = sentence(census_text(census, kinds))
        found.append(Finding("How much of the network's nonlinearity is measured?", text))
    return [one for one in found if one is not None]


def how_linear(layers: pd.DataFrame, names: Names) -> Finding | None:
    """Say how linear the layers are, and their activations otherwise; None without moments."""
    question = "How close to straight lines are the activations?"
    measured = layers.dropna(subset=["L"])
    if measured.empty:
        lost = layers["why"].str.startswith("not measurable").any()
        answer = "No layer is measurable: no sample has finite values in it."
        return Finding(question, answer) if lost else None
    known = alive(layers)
    if known.empty:
        answer = "Every layer is dead: the output of no channel varies on these data."
        return Finding(question, answer)
    main = main_layers(known)
    ends = [main.iloc[int(index)].to_dict() for index in (main["L"].argmin(), main["L"].argmax())]
    apart = bool(not ends[0]["L_high"] >= ends[1]["L_low"])  # without intervals, too
    first, second = (_with_class(row, names) for row in ends)
    values = [float(row["L"]) for row in ends]
    shares = [_percent(value) for value in values]
    line = "A straight line per channel explains"
    if len(main) == 1:
        answer = f"{line} {shares[0]} of the variance of the output of {first}."
        numbers = f"L = {three_digits(values[0])}."
    else:
        most, least = (", which bends most,", ", which bends least") if apart else ("", "")
        answer = (
            f"{line} {shares[0]} of the output's variance in {first}{most} and {shares[1]} in "
            f"{second}{least}."
        )
        if not apart:
            answer += " Their intervals overlap: these data do not show which layer bends most."
        numbers = (
            f"L = {three_digits(values[0])} in {first}, {three_digits(values[1])} in {second}."
        )
    compared, others = _compared(known)
    answer += compared
    if gone := len(measured) - len(known):
        verb = "is" if gone == 1 else "are"
        answer += f" {gone} of {counted(len(measured), 'layer')} {verb} dead."
    others += _gates_and_products(known.drop(main.index), names)
    plane = PLANE if known["L_gate"].notna().any() else ""
    return Finding(question, answer, f"{numbers} {WHAT_L_IS}.{others}{plane}")


def _gates_and_products(layers: pd.DataFrame, names: Names) -> str:
    """Return the span of L of gates and of products, and what a gate of low L does."""
    product = is_product(layers)
    text = ""
    for own, word in ((layers[~product], "Gates"), (layers[product], "Products")):
        if len(own):
            ends = [three_digits(float(own["L"].min())), three_digits(float(own["L"].max()))]
            text += f" {word}: L = {' to '.join(dict.fromkeys(ends))}."
    return text + _of_low_gates(layers[is_gate(layers)], names)


def _of_low_gates(gates: pd.DataFrame, names: Names) -> str:
    """Say how little the gate of least L varies, if it bends more than a sigmoid by itself."""
    high = gates["L_high"].fillna(gates["L"])
    bent = gates[high < own_yardsticks(gates)["yardstick"]]
    if bent.empty or "cyy" not in bent:
        return ""
    row = bent.iloc[int(bent["L"].argmin())]
    spread = math.sqrt(row["cyy"] / row["n"])
    name = f"{names[row['layer'], row['call']]} (L = {three_digits(row['L'])})"
    return (
        f" A gate of low L may do little: the outputs of {name} lie between 0 and 1, with a "
        f"standard deviation of {spread:.2g}."
    )


def straight_channels(layers: pd.DataFrame) -> Finding | None:
    """Say how many channels are straight lines; None where no layer is measured or alive."""
    measured = layers.dropna(subset=["L"])
    if alive(layers).empty:
        return None
    linear, total, dead = (int(measured[name].sum()) for name in ("linear", "channels", "dead"))
    if not linear:
        answer = f"No, each of the {total:,} channels bends." if total > 1 else "No, it bends."
    else:
        every = f"all {total:,} channels" if total > 1 else "its one channel"
        many = f"{linear:,} of {counted(total, 'channel')}" if linear < total else every
        answer = f"Yes, {_by_role(measured) or many}"
        if dead:
            whose = "its" if dead == 1 else "their"
            answer += f", {dead:,} of them only because {whose} output does not vary"
        answer += "."
    numbers = f"A channel counts as a straight line from L = {LINEAR} on."
    return Finding("Are any channels straight lines on these data?", answer, numbers)


def _by_role(layers: pd.DataFrame) -> str:
    """Count straight channels of activations, gates and products apart; "" where all are of one."""
    table = layers.reindex(columns=["kind", "gate_of", "linear", "channels"], fill_value="")
    role = np.select(
        [table["kind"] == "product", table["gate_of"] != ""], ["products", "gates"], "activations"
    )
    sums = table.groupby(role)[["linear", "channels"]].sum().astype(int)
    rows = zip(sums.index, sums["linear"], sums["channels"], strict=True)
    parts = [
        f"{f'{count:,}' if count else 'none'} of {total:,} channels of {name}"
        for name, count, total in rows
    ]
    parts.sort(key=lambda part: part.startswith("none"))
    return ", ".join(parts) if len(parts) > 1 else ""


def gates_alone(layers: pd.DataFrame, names: Names) -> Finding | None:
    """Say which products are far more or less linear than their gates; None without any."""
    text = gates_text(layers, names)
    question = "Are products as close to linear as their gates?"
    return Finding(question, f"No: {text}.") if text else None


def learned_beta(splits: pd.DataFrame, names: Names | None = None) -> Finding | None:
    """Say whether β depends on the sample by learning; None without such layers."""
    own = layer_names(splits) if names is None else names
    said = overall_of(splits, own)
    if said is None:
        return None
    rows = splits[splits["answer"] == "more"].sort_values("p_value").head(MOST_TESTS)
    tests = [
        f"{name}: {row['ratio']:.3g} times, redrawn {row['null_p05']:.3g} to "
        f"{row['null_p95']:.3g} (p = {row['p_value']:.2g})."
        for name, row in zip(row_names(rows, own), rows.to_dict("records"), strict=True)
    ]
    what = (
        "Compared is how much the samples' means of β vary, as a multiple of what independent "
        "channels give; the test is at the 5 % level in each layer. Patterns that leave "
        "these means as they are, such as classes in single channels, are not tested; nor is "
        "whether β is used (acon gates)."
    )
    numbers = " ".join([what, *tests]) if splits["null_p05"].notna().any() else ""
    return Finding(
        "Did the network learn to set β by sample?", f"{said.answer}: {said.text}.", numbers
    )


def _compared(layers: pd.DataFrame) -> tuple[str, str]:
    """Compare the most frequent activation with its own L on Gaussian inputs, then the others.

    Of gates and products there is one in each block: they come second. Layers count as straighter
    whose whole interval is.
    """
    main = set(main_layers(layers).index)
    found = sorted(yardsticks(layers), key=lambda one: main.isdisjoint(one.rows.index))
    if not found:
        return "", ""
    first, *others = found
    strange = _of_no_formula(found) if others else []
    if math.isnan(first.L):
        answer = f" No value of Gaussian inputs to compare with: {_lacking(first)}."
    else:
        mixed = not others or (bool(strange) and first.name == "ReLU")
        value = f"{_percent(first.L)}: {_beyond(first, '' if mixed else ' such')}"
        answer = (
            f" {a_or_an(first.name).capitalize()} {first.name} on Gaussian inputs is at {value}."
        )
    known = [one for one in others if not math.isnan(one.L)]
    said = [
        f"{a_or_an(one.name)} {one.name} is at {_percent(one.L)} ({_beyond(one)})" for one in known
    ]
    shown = listed(said, MOST_YARDSTICKS, joint="; ")
    more = f" On Gaussian inputs {shown}." if said else ""
    if unknown := [_lacking(one) for one in others if math.isnan(one.L)]:
        more += f" Not compared: {'; '.join(unknown)}."
    if strange:
        more += f" Compared with a ReLU for lack of a value of their own: {', '.join(strange)}."
    return answer, more


def _of_no_formula(found: list[Yardstick]) -> list[str]:
    """Return the classes of layers that are compared with a ReLU and are none."""
    tables = [one.rows for one in found if one.name == "ReLU"]
    columns = ["class_name", "parameters"]
    rows = pd.concat(tables or [pd.DataFrame()]).reindex(columns=columns).astype(object).fillna("")
    pairs = dict.fromkeys(rows.astype(str).itertuples(index=False, name=None))
    return list(dict.fromkeys(name for name, p in pairs if name and not formula_of(name, p)))


def _lacking(one: Yardstick) -> str:
    """Say why an activation is compared with nothing, not with a ReLU either."""
    slopes = "may have a slope for each channel"
    why = slopes if one.name == "PReLU" else "the run does not hold its parameters"
    return f"{one.name} ({why})"


def _beyond(one: Yardstick, such: str = "") -> str:
    """Say how many of some layers are straighter than their yardstick."""
    rows = one.rows
    above, total = int((rows["L_low"].fillna(rows["L"]) > one.L).sum()), len(rows)
    if total == 1:
        own = "the one such layer" if such else "this layer"
        return f"{own} is {'straighter' if above else 'not clearly straighter'}"
    if not above:
        return f"no{such} layer is clearly straighter"
    if above == total:
        return f"{'both' if total == 2 else f'all {total}'}{such} layers are straighter"
    return f"{above} of {total}{such} layers {'is' if above == 1 else 'are'} straighter"


def _with_class(row: Mapping[Any, Any], names: Names) -> str:
    """Return the name of a layer, with an activation's class where the name does not hold it."""
    name, own = names[row["layer"], row["call"]], str(row.get("class_name", ""))
    if row.get("kind") != "activation" or own.casefold() in name.casefold():
        return name
    return f"{name[:-1]}, {own})" if name.endswith(")") else f"{name} ({own})"


def _percent(value: float) -> str:
    """Return L as a percentage, so that what is not 1 does not look like it."""
    value = settled(value)
    if value > 0.995:
        return "100 %" if value == 1 else f"{int(1000 * value) / 10} %"
    return f"{100 * value:.0f} %"
