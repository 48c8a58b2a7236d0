"""Pages from files that the project keeps elsewhere: gallery, notebooks, results."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acon_docs.pages import Folder

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
#: Sections of README.md that tell what was found, by the beginning of their titles.
FINDINGS = ("What ", "Which ", "The published ")


def relinked(text: str, known: Callable[[str], str | None]) -> str:
    """Return Markdown whose local links lead to pages of the documentation, or to nowhere.

    Parameters
    ----------
    text : str
        Markdown.
    known : callable
        Given a link's target, the new target, or None for a file that has no page: then the name
        alone stays.
    """

    def replaced(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found.group()
        place = known(target)
        if place is None:
            return label
        return f"{mark}[{label}]({place})"

    return _LINK.sub(replaced, text)


def _gallery(folder: "Folder", root: Path) -> None:
    from acon_figures.registry import FIGURES

    source = root / "figures" / "gallery"
    page = source / "README.md"
    text = page.read_text("utf-8") if page.is_file() else "# Gallery\n"
    pictures = {path.name: path for path in source.glob("*.png")}
    text = relinked(text, lambda target: target if target in pictures else None)
    for name in re.findall(r"\]\(([^)]+\.png)\)", text):
        folder.file(f"gallery/{name}", pictures[name].read_bytes())
    missing = [spec for spec in FIGURES.values() if f"### {spec.name}\n" not in text]
    if missing:
        text += "\n## Not drawn here yet\n\n"
        text += "\n".join(f"- `acon figures {spec.name}`: {spec.description}" for spec in missing)
    folder.page("gallery/index.md", text)


def _title(notebook: Path) -> str:
    """Return the first heading of a notebook."""
    for one in json.loads(notebook.read_text("utf-8"))["cells"]:
        found = re.search(r"^#+ (.+)$", "".join(one["source"]), re.MULTILINE)
        if one["cell_type"] == "markdown" and found:
            return found.group(1)
    return notebook.stem


def _notebooks(folder: "Folder", root: Path) -> None:
    source = root / "notebooks"
    rendered = source / "rendered"
    for path in sorted(rendered.rglob("*.png")):
        folder.file(f"notebooks/{path.relative_to(rendered).as_posix()}", path.read_bytes())
    pages, listed = [], []
    for notebook in sorted(source.glob("*.ipynb")):
        title, page = _title(notebook), rendered / f"{notebook.stem}.md"
        line = f"- {title} (`notebooks/{notebook.name}`)"
        if page.is_file():
            folder.page(f"notebooks/{page.name}", _notebook_page(page, title))
            pages.append(notebook.stem)
            line = f"- [{title}]({page.name}) (`notebooks/{notebook.name}`)"
        listed.append(line)
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *pages, "```"]) if pages else ""
    folder.page(
        "notebooks/index.md",
        "# Notebooks\n\n`make lab` opens them in JupyterLab; the tests run each from top to "
        "bottom. Those with a link are shown here as they come out.\n\n"
        + "\n".join(listed) + f"\n\n{toctree}",
    )  # fmt: skip


def _notebook_page(page: Path, title: str) -> str:
    text = page.read_text("utf-8")

    def known(target: str) -> str | None:
        return target if ".." not in target and (page.parent / target).is_file() else None

    text = relinked(text, known)
    return text if re.search(r"^# ", text, re.MULTILINE) else f"# {title}\n\n{text}"


def sections(text: str) -> dict[str, str]:
    """Return the sections of a Markdown text: title of the second level -> what stands below."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _results(folder: "Folder", root: Path) -> None:
    files = sorted((root / "benchmarks").glob("RESULTS*.md"))
    pages = {f"benchmarks/{path.name}": f"{path.stem.lower()}.md" for path in files}

    def known(target: str) -> str | None:
        if target in pages:
            return pages[target]
        picture = root / target
        if picture.suffix == ".png" and picture.is_file():
            folder.file(f"results/{picture.name}", picture.read_bytes())
            return picture.name
        return None

    parts = ["# Results", "", "What stands in the README, and the full tables behind it.", ""]
    for title, text in sections((root / "README.md").read_text("utf-8")).items():
        if title.startswith(FINDINGS):
            parts += [f"## {title}", relinked(text, known).rstrip(), ""]
    parts += ["## All measurements", "", "```{toctree}", ":maxdepth: 1", ""]
    for path in files:
        title = path.read_text("utf-8").partition("\n")[0].lstrip("# ")
        parts += [f"{title} ({path.name}) <{path.stem.lower()}>"]
    parts += ["```"]
    folder.page("results/index.md", "\n".join(parts))
    for path in files:

        def near(target: str, path: Path = path) -> str | None:
            local = path.parent / target
            return known(local.resolve().relative_to(root).as_posix()) if local.is_file() else None

        folder.page(f"results/{path.stem.lower()}.md", relinked(path.read_text("utf-8"), near))


def write(folder: "Folder", root: Path) -> None:
    """Write gallery, notebooks and results.

    Parameters
    ----------
    folder : Folder
        Where to.
    root : Path
        The project.
    """
    _gallery(folder, root)
    _notebooks(folder, root)
    _results(folder, root)
