"""Executes the notebooks and writes them as Markdown with small pictures, for reading on the web.

``python notebooks/rendering.py [NAME ...]`` writes ``notebooks/rendered/``; each page names the
SHA-256 of the cells that it was made from, so that a test can tell whether it is still theirs.
"""

import base64
import hashlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError
from PIL import Image

FOLDER = Path(__file__).parent
RENDERED = FOLDER / "rendered"

#: Colours of a picture: enough for plots, and a third of the size.
COLOURS = 128

#: Tag of cells whose code only builds sentences: JupyterLab folds it, pages leave it out.
HIDDEN = "hide-input"


def notebook_paths() -> list[Path]:
    """Return the notebooks in reading order."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def digest(path: Path) -> str:
    """Return the SHA-256 of a notebook's cells: kinds, tags, sources, without ids and outputs."""
    cells = [
        f"{' '.join([cell.cell_type, *cell.metadata.get('tags', [])])}\n{cell.source}\n"
        for cell in read(path).cells
    ]
    return hashlib.sha256("\n".join(cells).encode()).hexdigest()


def execute(path: Path, folder: Path) -> Any:
    """Run a notebook from top to bottom in a folder and return it with its outputs."""
    try:
        return _executed(path, folder)
    except CellTimeoutError:  # a kernel's message can get lost where several kernels begin at once
        return _executed(path, folder)


def _executed(path: Path, folder: Path) -> Any:
    notebook = read(path)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    # These networks are too small for threads, and several notebooks may run side by side.
    client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"})
    return notebook


def title(path: Path) -> str:
    """Return the first heading."""
    return str(read(path).cells[0].source).splitlines()[0].removeprefix("# ")


def summary(path: Path) -> str:
    """Return the first sentence below the first heading: what one learns."""
    text = " ".join(str(read(path).cells[0].source).split("\n\n")[1].split())
    sentence = text.partition(". ")[0].rstrip(".") + "."
    return sentence.removeprefix("You will learn ")


def render(path: Path, notebook: Any) -> tuple[str, dict[str, bytes]]:
    """Return an executed notebook as Markdown, and its pictures by name."""
    pictures: dict[str, bytes] = {}
    parts = [f"<!-- {path.name}, SHA-256 of its cells: {digest(path)} -->"]
    heading = title(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(_links(cell.source))
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
            continue
        if HIDDEN not in cell.metadata.get("tags", []):
            parts.append(f"```python\n{cell.source}\n```")
        outputs = cell.get("outputs", [])
        parts += [_output(output, path.stem, heading, pictures) for output in outputs]
    parts.insert(2, f"*This is [the notebook](../{path.name}) with its results.*")
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def _links(text: str) -> str:
    """Let links between notebooks lead from page to page."""
    return re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](\1.md)", text)


def _output(output: Any, stem: str, heading: str, pictures: dict[str, bytes]) -> str:
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}/{len(pictures) + 1:02d}.png"
        pictures[name] = smaller(base64.b64decode(data["image/png"]))
        return f"![{heading}]({name})"
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""  # a progress bar or sliders; the picture that they begin with follows
    if "text/markdown" in data:
        return str(data["text/markdown"])
    html = str(data.get("text/html", ""))
    if html.startswith("<div>\n<style"):  # a frame of pandas
        return table(html)
    if html.startswith("<p style"):  # a figure's caption
        return re.sub(r' style="[^"]*"', "", html)
    return f"```text\n{data.get('text/plain', '').rstrip()}\n```"


def smaller(png: bytes) -> bytes:
    """Return a PNG with fewer colours."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
            buffer, "png", optimize=True
        )
    return buffer.getvalue()


def table(html: str) -> str:
    """Return a frame's HTML as a Markdown table."""
    start, end = html.index("<table"), html.index("</table>") + len("</table>")
    rows = ET.fromstring(html[start:end]).iter("tr")
    body = [["".join(cell.itertext()).strip().replace("|", r"\|") for cell in row] for row in rows]
    # The numbers of the rows say nothing.
    if [row[0] for row in body[1:]] == [str(place) for place in range(len(body) - 1)]:
        body = [row[1:] for row in body]
    # A named index stands in a second row of headings.
    if len(body) > 1 and body[1][1:] and not any(body[1][1:]):
        body[0][0] = body[1][0]
        del body[1]
    lines = [f"| {' | '.join(row)} |" for row in body]
    lines.insert(1, "|" + "---|" * len(body[0]))
    return "\n".join(lines)


def index() -> str:
    """Return the page that lists the notebooks."""
    lines = [
        "# The notebooks with their results",
        "",
        "Written by `make notebooks`, for reading without running anything.",
        "",
    ]
    lines += [f"- [{title(path)}]({path.stem}.md): {summary(path)}" for path in notebook_paths()]
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Execute and write the named notebooks, by default all; pages without notebook go."""
    RENDERED.mkdir(exist_ok=True)
    for path in notebook_paths():
        if names and path.stem not in names and path.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            page, pictures = render(path, execute(path, Path(folder)))
        for old in RENDERED.glob(f"{path.stem}/*"):
            old.unlink()
        for name, png in pictures.items():
            (RENDERED / name).parent.mkdir(exist_ok=True)
            (RENDERED / name).write_bytes(png)
        (RENDERED / f"{path.stem}.md").write_text(page, "utf-8")
        print(f"{path.stem}: {len(page) // 1024} kB, {len(pictures)} pictures")
    (RENDERED / "README.md").write_text(index(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
