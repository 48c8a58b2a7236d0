"""The README is short, its examples print what it says, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
#: Name -> an example and the output that the README prints below it.
EXAMPLES = {
    name: (code, output)
    for name, code, output in re.findall(
        r"<!-- test: ([\w-]+) -->\n```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL
    )
}
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")


def same(printed: str, expected: str) -> bool:
    """Say whether lines have the same words, and numbers that agree to half a hundredth."""
    words = [" ".join(_NUMBER.sub("#", text).split()) for text in (printed, expected)]
    numbers = [[float(one) for one in _NUMBER.findall(text)] for text in (printed, expected)]
    return words[0] == words[1] and all(
        abs(one - two) <= 0.005 for one, two in zip(*numbers, strict=True)
    )


@pytest.mark.parametrize("name", ["ordinary", "meta"])
def test_an_example_prints_what_the_readme_shows(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = EXAMPLES[name]
    exec(compile(code, f"README ({name})", "exec"), {"__name__": "readme"})
    printed = " ".join(capsys.readouterr().out.split())
    for part in output.split("...\n"):  # what the README leaves out
        length, wanted = len(part.split()), part
        words = printed.split()
        found = any(
            same(" ".join(words[start : start + length]), wanted)
            for start in range(len(words) - length + 1)
        )
        assert found, f"not printed:\n{part}\nbut:\n{printed}"


def test_every_marked_example_is_tested() -> None:
    assert set(EXAMPLES) == {"ordinary", "meta"} == set(re.findall(r"<!-- test: (\w+)", README))


def test_it_can_be_read_in_a_few_minutes() -> None:
    assert len(README.split()) <= 1400


def test_the_headline_commands_are_named() -> None:
    for command in ("pip install", "make figures", "make test", "acon capture", "acon report"):
        assert command in README, command


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_within_the_project_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), target


def test_every_command_is_in_the_readme() -> None:
    from acon_analysis.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"`acon {name}" in README, name
