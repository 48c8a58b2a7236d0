"""The documentation builds without a warning, leaves nothing out, and its examples run."""

import doctest
import os
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.cmd.build import main as sphinx_build

import acon_analysis
import acon_figures
import acon_hooks
import forks
from acon_analysis import columns
from acon_analysis.cli import app
from acon_analysis.moments import fields
from acon_analysis.statistics import other_measures as measures

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: Pages that are written by hand; the others are made of code at build time.
WRITTEN = sorted([*DOCS.glob("guide/*.md"), *DOCS.glob("measures/*.md"), DOCS / "index.md"])
MEASURES = [path for path in WRITTEN if path.parent.name == "measures" and path.stem != "index"]
#: What every page of a measure answers, whatever its headings are.
ANSWERS = ("**Source.**", "n = 0", "NaN", "onstant input", "ead")

#: Columns that identify, count or describe data, and measure nothing.
BOOKKEEPING = {
    "layer", "call", "channel", "channels", "sample", "samples", "n", "n_samples", "mean", "std",
    "mean_x", "std_x", "min_x", "max_x", "null", "text",
}  # fmt: skip


def examples(page: Path) -> str:
    return "\n".join(re.findall(r"(?ms)^```pycon\n(.*?)^```$", page.read_text("utf-8")))


def explained(page: Path) -> set[str]:
    """Return the columns that a measure's page says it explains."""
    head = re.match(r"---\ncolumns: \[([^\]]+)\]\n---\n", page.read_text("utf-8"))
    assert head, f"{page.name} does not begin with the columns that it explains"
    return set(re.findall(r"\w+", head.group(1)))


@pytest.mark.parametrize("page", [p for p in WRITTEN if examples(p)], ids=lambda path: path.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(examples(page), {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    runner.run(test, out=told.append)
    assert runner.failures == 0, "".join(told)


def test_every_measure_has_its_page() -> None:
    found = set().union(*map(explained, MEASURES))
    others = {"affine_r2", *measures.measure_table([0.0], [0.0])} - {"channel"}
    assert others <= found
    tables = (
        columns.LINEARITY_LAYER_COLUMNS, columns.LINEARITY_CHANNEL_COLUMNS,
        columns.LINEARITY_SAMPLE_COLUMNS, columns.NULL_COLUMNS, columns.SPLIT_COLUMNS,
    )  # fmt: skip
    shown = {column.name for table in tables for column in table}
    assert shown - BOOKKEEPING - found == set()
    known = shown | others | {"first_order"}
    assert found - known == set(), "a page explains a column that there is not"


def test_every_table_of_columns_stands_on_the_reference_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    from acon_docs.columns import TITLES

    tables = {name for module in (columns, fields) for name in vars(module)}
    public = {name for name in tables if name.endswith("_COLUMNS") and not name.startswith("_")}
    assert set(TITLES) == public - {"MOMENT_KEY_COLUMNS"}


def test_tables_of_columns_stand_in_one_place() -> None:
    written = r'^\s+(Column)?\(\s*"\w+", "(str|int64|float64|bool)",'
    helped = r'^\s+_(number|count|text|flag)\(\s*"\w+", "'
    pattern = re.compile(f"{written}|{helped}", re.MULTILINE)
    package = Path(acon_analysis.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if pattern.search(path.read_text("utf-8"))
    }
    assert found == {"columns.py", "moments/fields.py"}


def test_no_table_of_columns_has_the_name_of_another() -> None:
    packages = ("acon_analysis", "hooks/acon_hooks", "figures/acon_figures")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = [
        name
        for path in files
        for name in re.findall(r"(?m)^([A-Z]\w*_COLUMNS)\b.*=", path.read_text("utf-8"))
    ]
    assert len(found) > 20
    assert sorted(found) == sorted(set(found))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.stem)
def test_a_page_has_a_picture(page: Path) -> None:
    drawn = page.stem == "index" or re.search(r"!\[[^\]]{9,}\]\(", page.read_text("utf-8"))
    assert drawn, f"{page.name} has no picture"


@pytest.mark.parametrize("page", MEASURES, ids=lambda path: path.stem)
def test_a_measure_page_answers_every_question(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = [words for words in ANSWERS if words not in text]
    assert missing == []
    assert re.search(r"^## When (it|they) misleads?$", text, re.MULTILINE)
    assert f"\n{page.stem}\n" in (DOCS / "measures" / "index.md").read_text("utf-8")


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    for page in WRITTEN:
        for block in re.findall(
            r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
        ):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if "acon" in words:
                    yield page.name, words[words.index("acon") + 1 :]


def test_shell_examples_name_commands_and_options_that_exist() -> None:
    import typer

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    seen = list(shell_lines())
    assert len(seen) > 10
    for page, (name, *words) in seen:
        assert name in commands, f"{page}: acon {name}"
        options = {flag for one in commands[name].params for flag in one.opts}
        for word in words:
            assert not word.startswith("--") or word in options, f"{page}: acon {name} {word}"


class Page(HTMLParser):
    """What a built page links to, what it loads, and the places in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a":
            self.links.append(given.get("href", ""))
        for name in ("src", "srcset", "data", "poster"):
            if name in given:
                self.loads.append(given[name])
        if tag == "link" and given.get("rel") not in ("canonical", "author", "license"):
            self.loads.append(given.get("href", ""))


def broken_links(pages: dict[Path, Page]) -> Iterator[str]:
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.name}: {link}"
                continue
            places = pages[target].ids if target in pages else set()
            if parts.fragment and places and unquote(parts.fragment) not in places:
                yield f"{path.name}: {link} (no such place)"


def external_resources(out: Path, pages: dict[Path, Page]) -> Iterator[str]:
    for path, page in pages.items():
        yield from (f"{path.name}: {one}" for one in page.loads if "//" in one)
    for path in out.rglob("*.css"):
        for found in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]+)", path.read_text("utf-8")):
            if found.startswith(("http:", "https:", "//")):
                yield f"{path.name}: {found}"


def missing_names(pages: dict[Path, Page]) -> Iterator[str]:
    places = set().union(*(page.ids for path, page in pages.items() if "reference" in path.parts))
    texts = {path.stem: path.read_text("utf-8") for path in pages if "reference" in path.parts}
    for room in (acon_analysis, acon_hooks, acon_figures):
        for name in room.__all__:
            full = f"{room.__name__}.{name}"
            # What two rooms export is described in one of them and named in the other.
            if full not in places and not re.search(rf"\b{name}\b", texts.get(room.__name__, "")):
                yield full
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        if f"acon-{name}" not in places:
            yield f"acon {name}"


@pytest.mark.slow
def test_the_documentation_builds_and_holds_together(tmp_path: Path) -> None:
    out = tmp_path / "html"
    options = [
        "-W",
        "--keep-going",
        "-n",
        "-q",
        "-E",
        "-b",
        "html",
        "-d",
        str(tmp_path / "doctrees"),
    ]
    env = {**os.environ, "NO_COLOR": "1"}
    done = forks.run(sphinx_build, [*options, str(DOCS), str(out)], env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = {path.resolve(): Page(path) for path in out.rglob("*.html")}
    assert len(pages) > 40
    assert list(missing_names(pages)) == []
    assert list(broken_links(pages)) == []
    assert list(external_resources(out, pages)) == []
    assert [path.name for path in pages if str(ROOT) in path.read_text("utf-8")] == []
    gallery = (out / "gallery" / "index.html").read_text("utf-8")
    assert [name for name in acon_figures.FIGURES if name not in gallery] == []
    listed = (out / "notebooks" / "index.html").read_text("utf-8")
    assert [p.name for p in (ROOT / "notebooks").glob("*.ipynb") if p.name not in listed] == []
    measured = (out / "results" / "index.html").read_text("utf-8")
    assert [
        p.stem for p in ROOT.glob("benchmarks/RESULTS*.md") if p.stem.lower() not in measured
    ] == []
    assert "<math" in (out / "measures" / "linearity.html").read_text("utf-8")
