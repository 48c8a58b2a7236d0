"""Parts of the page of a run: numbers, tables, drawings, and the chart of L by depth."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import figureframes
from acon_analysis.statistics.gaussian import RELU_L
from acon_analysis.statistics.sentences import sentence
from acon_figures.report import depth, numbers, svg


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (float("nan"), 3, "–"), (float("-inf"), 3, "−∞"), (0.0, 3, "0"), (0.5, 3, "0.500"),
        (-0.25, 2, "−0.25"), (0.00012, 3, "0.00012"), (123456.0, 3, "1.23e+05"),
    ],
)  # fmt: skip
def test_numbers_for_people(value: float, digits: int, text: str) -> None:
    assert numbers.number(value, digits) == text


def test_an_index_that_is_not_one_does_not_look_like_it() -> None:
    assert [numbers.share(value) for value in (1.0, 0.99999, 0.9991)] == [
        "1.000", "> 0.999", "0.999",
    ]  # fmt: skip
    assert sentence("β varies") == "β varies."
    assert sentence("a line") == "A line."


def test_csv_holds_no_formula_and_large_ones_stay_out() -> None:
    names = pd.Series(["=HYPERLINK(1)", "ok\x00\udcff", "-1"], dtype=object)
    frame = pd.DataFrame({"name": names, "value": [-1.5, 0, 1]})
    lines = numbers.csv_text(frame).splitlines()
    assert lines == ["name,value", "'=HYPERLINK(1),-1.5", "ok\\x00\\udcff,0", "'-1,1"]
    assert numbers.packed("x" * 100) == numbers.packed("x" * 100)
    noise = np.random.default_rng(0).bytes(numbers.MOST_PACKED).hex()
    assert numbers.packed(noise) is None


def test_a_drawing_without_inline_styles_follows_the_theme() -> None:
    figure = figureframes.draw("slopes")
    text = svg.inline_svg(figure, "own", "A < B", "one & two")
    assert text.startswith('<svg class="drawing" viewBox="0 0 ')
    assert "<style" not in text
    assert " style=" not in text
    assert "A &lt; B</title>" in text
    assert 'class="f-ink"' in text
    assert "#222222" not in text


def test_texts_on_colours_stay_readable_in_the_dark() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.imshow([[0.0, 1.0]])
    assert 'class="drawing"' in svg.inline_svg(figure, "own", "", "")
    axes.text(0, 0, "dark on light", color="#222222")
    text = svg.inline_svg(figure, "own", "", "")
    assert 'class="drawing light"' in text
    assert "#222222" in text
    assert "f-ink" not in text


def test_many_points_become_a_picture() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot(range(100), "o")
    few_points = svg.inline_svg(figure, "few", "", "")
    axes.scatter(range(5000), range(5000))
    many = svg.inline_svg(figure, "many", "", "")
    assert few_points.count("<use") >= 100
    assert "data:image/png" not in few_points
    assert many.count("<image") == 1
    assert many.count("<use") < 200
    assert 'class="drawing"' in few_points
    assert 'class="drawing points"' in many  # light in the dark, where black points are not seen
    axes.imshow([[0.0, 1.0]])
    assert 'class="drawing"' in svg.inline_svg(figure, "map", "", "")


def entry(name: str, place: int = 0, index: float = 0.8, **more: Any) -> dict[str, Any]:
    """Return what the chart knows of a layer."""
    known = {"name": name, "key": (name, 0), "id": name, "index": (index, np.nan, np.nan)}
    return (
        known
        | {"dead": False, "off": False, "role": "activation", "place": place, "yardstick": RELU_L}
        | more
    )


def entries(names: str) -> list[dict[str, Any]]:
    return [entry(name, place) for place, name in enumerate(names)]


def chart_of(*runs: list[dict[str, Any]], size: str = "wide") -> Any:
    chart = depth.depth_chart(list(runs), size)
    assert chart is not None
    return chart


def test_positions_in_the_chart_are_those_of_l() -> None:
    own = [entry("a", 0, 1.0), entry("b", 4) | {"index": (0.5, 0.4, 0.6)}, entry("c", 9, RELU_L)]
    own[2] |= {"yardstick": 1.0}
    own.append(entry("d", 10, 1.0) | {"yardstick": np.nan})
    chart = chart_of(own, [own[1] | {"id": "second-layer-0"}])
    (a, b, c, d), (other,) = (one["points"] for one in chart["series"])
    scale = chart["ticks"][-1][0] - chart["ticks"][0][0]  # from the lowest mark to 1: upwards
    low = float(chart["ticks"][0][1])
    assert chart["ticks"][-1] == (a["y"], "1.0")
    assert (b["y"] - chart["ticks"][0][0]) / scale == pytest.approx(
        (0.5 - low) / (1 - low), abs=1e-3
    )
    assert c["y"] == c["low"] == c["high"]
    assert chart["yardsticks"] == f"M42.0 {c['y']}H515.0M515.0 {a['y']}H751.5"
    assert b["low"] > b["y"] > b["high"]
    assert other == b | {"id": "second-layer-0"}
    assert c["text"] == "c: L = 0.733"
    assert chart["numbers"] == [
        (one["x"], number) for one, number in ((a, 1), (b, 5), (c, 10), (d, 11))
    ]
    assert depth.depth_chart([[own[0] | {"index": None}]], "wide") is None


def test_each_kind_of_layer_has_a_line_of_its_own() -> None:
    kinds = ["activation", "product", "activation", "product", "activation"]
    own = [one | {"role": kind} for one, kind in zip(entries("abcde"), kinds, strict=True)]
    chart = chart_of(own)
    shown = [
        (one["look"], one["sign"], "".join(point["id"] for point in one["points"]))
        for one in chart["series"]
    ]
    assert shown == [("run-a", "●", "ace"), ("run-b", "■", "bd")]
    assert chart["kinds"] == [("run-a", "●", "activation"), ("run-b", "■", "product")]
    assert chart_of([*own, entry("f", role="gate")])["kinds"][-1] == ("run-c", "▲", "gate")
    assert [(one["look"], one["sign"]) for one in chart_of(own, own[:2])["series"]] == [
        ("run-a", "●"), ("run-a", "■"), ("run-b", "●"), ("run-b", "■")
    ]  # fmt: skip
    assert chart_of(own[:1])["kinds"] == []


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ("be", "abcdef", "abcdef"), ("abcdef", "be", "abcdef"), ("abc", "axcy", "abxcy"),
        ("ab", "cd", "cdab"), ("a", "bcd", "abcd"), ("abd", "bcd", "abcd"),
    ],
)  # fmt: skip
def test_lines_of_two_runs_of_other_layers_never_run_back(
    first: str, second: str, order: str
) -> None:
    chart = chart_of(entries(first), entries(second))
    lines = [series["points"] for series in chart["series"]]
    at = {one["id"]: one["x"] for points in lines for one in points}
    for points in lines:
        assert [one["x"] for one in points] == sorted(one["x"] for one in points)
    longest, shorter = sorted((first, second), key=len, reverse=True)
    numbered = [longest] if set(first) & set(second) else [shorter, longest]
    assert chart["numbers"] == [
        (at[name], n) for names in numbered for n, name in enumerate(names, 1)
    ]
    assert sorted(at, key=lambda name: at[name]) == list(order)


@pytest.mark.parametrize(("last", "numbered"), [(100, 12), (999, 12), (5000, 9)])
def test_numbers_of_thousands_have_room_in_the_chart(last: int, numbered: int) -> None:
    places = np.linspace(0, last - 1, 60).astype(int)
    rows = [entry("a", int(place), key=(f"{place}", 0)) for place in places]
    assert len(chart_of(rows, size="narrow")["numbers"]) == numbered
