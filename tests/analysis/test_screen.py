"""Tables as text: they fit, names stay distinct, numbers keep their digits."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_analysis.screen import (
    LEAST_PATH,
    a_or_an,
    sentence_text,
    signed,
    table_text,
    three_digits,
)

HUGGING_FACE = [
    f"bert.encoder.layer.{number}.intermediate.intermediate_act_fn" for number in (0, 1)
]


def test_text_is_on_the_left_and_numbers_are_on_the_right() -> None:
    frame = pd.DataFrame({"layer": ["a", "act"], "channels": [8, 16], "L": [0.5, 0.25]})
    assert table_text(frame, 80).splitlines() == [
        "layer  channels      L",
        "a             8  0.500",
        "act          16  0.250",
    ]


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(50, 130),
    names=st.lists(st.text(min_size=1, max_size=70), min_size=1, max_size=4),
    words=st.lists(st.text(max_size=90), min_size=4, max_size=4),
    number=st.floats(allow_nan=True),
)
def test_no_line_is_wider_than_the_terminal(
    width: int, names: list[str], words: list[str], number: float
) -> None:
    count = len(names)
    frame = pd.DataFrame(
        {"name": ["n"] * count, "layer": names, "L": number, "n": 3, "why": words[:count]}
    )
    lines = table_text(frame.drop(columns="layer"), width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() for line in table_text(frame, width).splitlines())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_paths_are_shortened_from_the_left_and_stay_distinct(width: int) -> None:
    frame = pd.DataFrame({"layer": HUGGING_FACE, "L": 0.5, "L_low": 0.4, "L_high": 0.6})
    rows = [line.split()[0] for line in table_text(frame, width).splitlines()[1:3]]
    assert len(set(rows)) == 2
    for shown, name in zip(rows, HUGGING_FACE, strict=True):
        assert name.endswith(shown.removeprefix("…"))
        assert len(shown) >= LEAST_PATH
    assert ("…" in rows[0]) == (width < 70)


def test_what_has_no_room_is_named() -> None:
    frame = pd.DataFrame({"layer": ["a"], **{f"column_{number}": [1.5] for number in range(9)}})
    text = table_text(frame, 60)
    shown, note = text.splitlines()[0].split(), text.partition("(")[2]
    missing = [name for name in frame.columns if name not in shown]
    assert missing
    assert all(name in note for name in missing)


def test_names_that_people_type_are_never_shortened() -> None:
    frame = pd.DataFrame({"name": ["x" * 60], "source": ["y" * 60], "n": [1]})
    assert "x" * 60 in table_text(frame, 70)


def test_a_wrapped_text_keeps_its_words() -> None:
    why = "nonlinear because p1 = -p2 leaves little of the straight line over its inputs"
    lines = table_text(pd.DataFrame({"layer": ["a"], "why": [why]}), 50).splitlines()
    assert len(lines) > 2
    assert " ".join(" ".join(lines[1:]).split()[1:]) == why


def test_numbers() -> None:
    frame = pd.DataFrame({
        "L": [1.0, 0.99999, -1e-9], "error": [1e-9, 0.0, 0.5], "parameters": [1234567, 1, 2],
        "sample": [12345, 1, 2], "measured": [True, False, True], "s": [float("nan"), 1.5, 2.0],
    })  # fmt: skip
    rows = [line.split() for line in table_text(frame, 100).splitlines()[1:]]
    assert rows[0] == ["1.000", "1e-09", "1,234,567", "12345", "yes", "-"]
    assert rows[1] == [">", "0.999", "0.000", "1", "1", "no", "1.500"]
    assert rows[2][0] == "0.000"
    assert three_digits(0.99951) == "> 0.999"


def test_rounding_of_float32_is_not_shown() -> None:
    assert [three_digits(value) for value in (1 - 1e-7, 1.0, -1e-8, 1 - 1e-5)] == [
        "1.000", "1.000", "0.000", "> 0.999"
    ]  # fmt: skip
    assert [signed(value) for value in (-4e-4, 4e-4, -0.0, -0.0021, 0.03)] == [
        "0.000", "0.000", "0.000", "-0.002", "+0.030"
    ]  # fmt: skip


def test_articles() -> None:
    names = ("ELU", "ReLU", "SiLU", "RReLU", "Leaky ReLU", "product", "clamp (0 to 1)", "CELU")
    assert [a_or_an(name) for name in names] == ["an", "a", "a", "an", "a", "a", "a", "a"]


def test_a_number_stays_with_its_percent_sign() -> None:
    text = "A straight line explains 73 % of it, another one 92 % of it"
    for width in range(12, 60):
        lines = sentence_text(text, width).split("\n")
        assert not any(line.startswith("%") for line in lines)
        assert max(map(len, lines)) <= width
        assert " ".join(lines) == text
