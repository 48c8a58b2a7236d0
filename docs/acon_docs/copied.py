"""Pages from files that the project keeps elsewhere: gallery, notebooks, results."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acon_docs.pages import Folder
    from acon_figures.spec import FigureSpec

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def relinked(text: str, known: Callable[[str], str | None]) -> str:
    """Return Markdown whose local links lead to pages of the documentation, or to nowhere.

    `known` returns the new target of a link, or None for a file that has no page: then the label
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
    """Write a grid of thumbnails, and a page a figure with its caption and command."""
    from acon_figures.gallery import HEADINGS, title
    from acon_figures.registry import FIGURES

    source = root / "figures" / "gallery"
    parts = [
        "# Gallery",
        "",
        "Every figure of `acon figures --list`, drawn from networks that come with the "
        "package. `acon figures NAME --run RUN` draws one of your own run, and `run.plot(NAME)` in "
        "Python.",
        "",
    ]
    for kind, heading in HEADINGS.items():
        specs = [spec for spec in FIGURES.values() if spec.kind == kind]
        parts += [f"## {heading}", "", "::::{container} gallery", ""]
        for spec in specs:
            name = title(spec)
            drawn = [path for path in _drawn(source, spec) if path.is_file()]
            thumbnail = f"[![{name}]({drawn[0].name})]({spec.name}.md)" if drawn else ""
            parts += [
                ":::{container} thumbnail",
                thumbnail,
                "",
                f"[{name}]({spec.name}.md)",
                ":::",
                "",
            ]
            folder.page(f"gallery/{spec.name}.md", _figure_page(folder, spec, name, drawn))
        parts += ["::::", ""]
    parts += ["```{toctree}", ":hidden:", "", *FIGURES, "```"]
    folder.page("gallery/index.md", "\n".join(parts))


def _drawn(source: Path, spec: "FigureSpec") -> list[Path]:
    """Return where the pictures of a figure and of its variants lie."""
    return [source / f"{spec.name}{'_' * bool(one)}{one}.png" for one in ("", *spec.variants)]


def _figure_page(folder: "Folder", spec: "FigureSpec", title: str, drawn: list[Path]) -> str:
    """Return the page of a figure."""
    parts = [f"# {title}", "", f"{spec.description}.", "", f"`acon figures {spec.name}`", ""]
    for path in drawn:
        folder.file(f"gallery/{path.name}", path.read_bytes())
        caption = path.with_suffix(".txt")
        text = caption.read_text("utf-8").strip() if caption.is_file() else ""
        parts += [f"![{title}]({path.name})", "", text.replace("*", "\\*").replace("_", "\\_"), ""]
    return "\n".join(parts)


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

    parts = [
        "# All measurements",
        "",
        "The tables behind [what was found](../guide/results.md) and "
        "[what it costs](../guide/costs.md), as the scripts in `benchmarks/` write them.",
        "",
    ]
    parts += ["```{toctree}", ":maxdepth: 1", ""]
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
    """Write gallery, notebooks and results of the project in the folder `root`."""
    _gallery(folder, root)
    _notebooks(folder, root)
    _results(folder, root)
