"""The README's examples run as they stand, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"<!-- test: ([\w-]+) -->\n```python\n(.*?)```", README, re.DOTALL))


@pytest.mark.parametrize("name", ["own-class", "timm", "one-dimensional"])
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES[name], f"README ({name})", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


def test_every_marked_example_is_tested() -> None:
    assert set(EXAMPLES) == {"own-class", "timm", "one-dimensional"}


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
