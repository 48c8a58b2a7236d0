"""Names from outside are drawn as they are: no mathematics, and none lost from a legend."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

import acon_figures
import figureframes
from acon_figures import theme
from acon_figures.names import entry, folded, plain, sample_name, visible

#: Mathematics that matplotlib cannot read, after an underscore.
HOSTILE = "_$\\frac$"
NAMES = ("layer", "network", "variant", "activation", "label", "baseline", "method", "block")


def hostile(frame: Any) -> Any:
    """Put `HOSTILE` before every name in a frame."""
    if isinstance(frame, pd.Series):
        return HOSTILE + frame.astype(str)
    if isinstance(frame, Mapping):
        changed = {key: hostile(value) for key, value in frame.items()}
        labels = {"labels": {key: HOSTILE + text for key, text in frame.get("labels", {}).items()}}
        return changed | (labels if "labels" in frame else {})
    if not isinstance(frame, pd.DataFrame):
        return frame
    kept = {"activation"} if "cause" in frame else set()  # else no formula is known
    changed = {name: HOSTILE + frame[name] for name in NAMES if name in frame and name not in kept}
    return frame.assign(**changed)


def words(figure: Figure) -> list[str]:
    """Return the texts of a figure as a reader sees them."""
    buffer = io.StringIO()
    with theme():
        figure.savefig(buffer, format="svg")
    found = ET.fromstring(buffer.getvalue()).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).replace("\u200b", "") for text in found]


SHOWN = {
    "beta_distributions": ["sample 100: _$\\frac$0"],
    "beta_against_null": ["_$\\frac$layer3.5"],
    "beta_heatmap": ["_$\\frac$0", "_$\\frac$2"],
    "beta_over_epochs": ["_$\\frac$official", "_$\\frac$no decay"],
    "explanation": ["_$\\frac$layer4.2.acon", "_$\\frac$0"],
    "linearity_by_depth": ["_$\\frac$acon", "_$\\frac$layer4.2"],
    "network_strip": ["$\\frac$layer1.0"],
    "sample_extremes": ["_$\\frac$"],
    "slopes": ["_$\\frac$layer3.5"],
    "training_curves": ["_$\\frac$ReLU"],
}


@pytest.mark.parametrize(
    "name", [spec.name for spec in acon_figures.FIGURES.values() if spec.needs]
)
def test_names_that_look_like_mathematics_are_drawn_as_they_are(name: str) -> None:
    spec = acon_figures.find(name)
    frames = {name: hostile(made) for name, made in figureframes.frames(spec).items()}
    figure = spec.draw(frames, width="single")
    seen = words(figure)
    for expected in SHOWN.get(name, []):
        assert any(expected in text for text in seen), (expected, seen)


def test_trials_with_such_names() -> None:
    start = pd.DataFrame(
        {"activation": HOSTILE, "layer": [1, 2], "seed": 0, "gradient": [1.0, 0.5]}
    )
    seen = words(acon_figures.gradients_by_layer({"$\\frac$": start}))
    assert HOSTILE in seen
    assert "$\\frac$" in seen


def test_a_name_is_text() -> None:
    for name in ("cat", "$x$", "\\$x\\$", "one $", "a_b", "\\frac{1}{2}", "日本"):
        figure = Figure()
        figure.text(0.1, 0.5, plain(name))
        if name.isascii():
            assert words(figure) == [name]
    assert plain("a\nb") == "a\\nb"
    assert visible("\u202eabc") == "\\u202eabc"
    assert visible("\u061c\u200e\u200f") == "\\u061c\\u200e\\u200f"
    assert visible(7) == "7"


def test_a_long_label_of_a_sample_leaves_the_panel_its_room() -> None:
    assert sample_name(3, {3: "x" * 18}) == f"sample 3: {'x' * 18}"
    assert sample_name(3, {3: "x" * 19}) == f"sample 3: {'x' * 17}…"
    assert sample_name(4, {3: "x"}) == sample_name(4, None) == "sample 4"


def test_a_legend_shows_what_begins_with_an_underscore() -> None:
    figure = Figure()
    axes = figure.subplots()
    for name in ("_private", "public"):
        axes.plot([0, 1], label=entry(name))
    axes.legend()
    seen = words(figure)
    assert {"_private", "public"} <= set(seen)
    assert entry("public") == "public"


def test_long_names_are_folded_before_they_are_escaped() -> None:
    lines = folded("$" * 10, 4).split("\n")
    assert [re.sub(r"\\\$", "$", line) for line in lines] == ["$$$$", "$$$$", "$$"]
