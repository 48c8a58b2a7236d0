"""The notebooks run from top to bottom; stripped, linked, and their rendered pages are theirs."""

import re
from pathlib import Path

import pytest
import rendering
from ipykernel.kernelapp import IPKernelApp

import forks

FOLDER = rendering.FOLDER
NOTEBOOKS = rendering.notebook_paths()
PAGES = sorted(rendering.RENDERED.glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)\)")
MACHINE = re.compile(r"(?<![\w.:/])/(home|root|tmp|work|Users|mnt|opt|var)/")


def markdown(path: Path) -> str:
    return "\n".join(c.source for c in rendering.read(path).cells if c.cell_type == "markdown")


def test_there_are_seven_in_order() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


class Kernel:
    """A kernel in a fork, as its manager sees a process."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], cwd: str, env: dict[str, str], **_: object) -> None:
        process = forks.start(
            IPKernelApp.launch_instance, command[3:], folder=Path(cwd), cwd=Path(cwd), env=env
        )
        self.pid, self.wait, self.kill = process.pid, process.join, process.kill
        self.poll = lambda: process.exitcode


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_client.provisioning.local_provisioner.launch_kernel", Kernel)
    notebook = rendering.execute(path, tmp_path)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")
    page, pictures = rendering.render(path, notebook)
    assert not MACHINE.search(page)
    # The same text and as many pictures as in the page that is kept; numbers may differ in their
    # last digits between processors, so only their places are compared.
    kept = (rendering.RENDERED / f"{path.stem}.md").read_text("utf-8")
    assert len(pictures) == len(list((rendering.RENDERED / path.stem).glob("*.png")))
    assert shape(page) == shape(kept)


def shape(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(("#", "!", "<!--", "```"))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_and_short_of_breath(path: Path) -> None:
    for cell in rendering.read(path).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert len(cell.source.splitlines()) <= 24
        assert not MACHINE.search(cell.source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_that_only_builds_sentences_is_hidden(path: Path) -> None:
    page = (rendering.RENDERED / f"{path.stem}.md").read_text("utf-8")
    for cell in rendering.read(path).cells:
        if cell.cell_type == "code":
            hidden = rendering.HIDDEN in cell.metadata.get("tags", [])
            assert hidden or not cell.source.startswith("Markdown(")
            assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == hidden
            assert (f"```python\n{cell.source}\n```" in page) != hidden


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_it_teaches_and_where_to_go(path: Path) -> None:
    cells = rendering.read(path).cells
    assert cells[0].cell_type == cells[-1].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert "You will learn" in cells[0].source
    others = {link for link in LINK.findall(cells[-1].source) if link.endswith(".ipynb")}
    assert others
    assert path.name not in others


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = markdown(path) if path.suffix == ".ipynb" else path.read_text("utf-8")
    for link in LINK.findall(text):
        assert "://" in link or (path.parent / link).exists(), link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_rendered_page_is_of_this_notebook(path: Path) -> None:
    page = (rendering.RENDERED / f"{path.stem}.md").read_text("utf-8")
    said = page.splitlines()[0]
    assert said == f"<!-- {path.name}, SHA-256 of its cells: {rendering.digest(path)} -->", (
        "the notebook has changed since: make notebooks"
    )
    assert not MACHINE.search(page)
    shown = set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page))
    there = {f"{path.stem}/{p.name}" for p in (rendering.RENDERED / path.stem).glob("*")}
    assert shown == there


def test_the_pages_are_listed_and_small() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert {path.stem for path in PAGES} == names | {"README"}
    assert (rendering.RENDERED / "README.md").read_text("utf-8") == rendering.index()
    files = [path for path in rendering.RENDERED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_500_000


def test_tables_become_markdown() -> None:
    import pandas as pd

    frame = pd.DataFrame({"a|b": [1.5, 2.0], "c": ["x < 1 & y", "<b>y</b>"]})
    lines = ["| a\\|b | c |", "|---|---|", "| 1.5 | x < 1 & y |", "| 2.0 | <b>y</b> |"]
    assert rendering.table(frame.to_html()) == "\n".join(lines)
    named = frame.set_index("c")
    assert rendering.table(named.to_html()).splitlines()[0] == "| c | a\\|b |"


def test_a_change_of_a_cell_changes_the_digest(tmp_path: Path) -> None:
    import nbformat

    notebook = rendering.read(NOTEBOOKS[0])
    copy = tmp_path / NOTEBOOKS[0].name
    notebook.cells[0]["id"] = "another"
    nbformat.write(notebook, copy)  # type: ignore[no-untyped-call]
    assert rendering.digest(copy) == rendering.digest(NOTEBOOKS[0])
    notebook.cells[1].metadata["tags"] = [rendering.HIDDEN]
    nbformat.write(notebook, copy)  # type: ignore[no-untyped-call]
    tagged = rendering.digest(copy)
    assert tagged != rendering.digest(NOTEBOOKS[0])
    notebook.cells[1].source += "\n# changed"
    nbformat.write(notebook, copy)  # type: ignore[no-untyped-call]
    assert rendering.digest(copy) not in (tagged, rendering.digest(NOTEBOOKS[0]))
