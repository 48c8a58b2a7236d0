"""The index page of a folder of figures: picture, one line and command each."""

import sys
from collections.abc import Iterator
from pathlib import Path

from acon_analysis.errors import UsageError
from acon_figures.registry import FIGURES
from acon_figures.spec import FigureSpec

HEADINGS = {
    "measured": "Measured on trained networks",
    "formula": "From formulas",
    "printed numbers": "From numbers that the paper prints",
}

HEAD = """# Gallery

Every figure of `acon figures --list`, as `make gallery` draws it from what comes with the package:
captured runs of networks trained on photographs (CIFAR-10), and networks trained on handwritten
digits, from which the figures that need images or live networks are. Draw one by the
command below it; `--run RUN` takes your own captured runs instead, `--format pdf` and
`--context talk` other formats.
"""


def index_page(folder: str | Path) -> str:
    """Return a folder's index in Markdown, from its ``NAME.png`` and captions ``NAME.txt``."""
    parts = [HEAD]
    for kind, heading in HEADINGS.items():
        specs = [spec for spec in FIGURES.values() if spec.kind == kind]
        entries = [entry for spec in specs for entry in _entries(spec, Path(folder))]
        if entries:
            parts += [f"## {heading}\n", *entries]
    if len(parts) == 1:
        raise UsageError(f"{str(folder)!r} holds no PNG file of a registered figure")
    return "\n".join(parts)


def _entries(spec: FigureSpec, folder: Path) -> Iterator[str]:
    for suffix in ("", *spec.variants):
        name = f"{spec.name}_{suffix}" if suffix else spec.name
        if not (folder / f"{name}.png").is_file():
            continue
        caption = folder / f"{name}.txt"
        text = caption.read_text(encoding="utf-8").strip() if caption.is_file() else ""
        more = f" ({suffix.replace('_', ' ')})" if suffix else ""
        yield (
            f"### {name}\n\n{spec.description}{more}.\n\n![{name}]({name}.png)\n\n"
            f"`acon figures {spec.name}`\n\n"
            f"<details><summary>Caption</summary>\n\n{text}\n\n</details>\n"
        )


def main(folder: str) -> None:
    """Write the index page of a folder into its ``README.md``."""
    Path(folder, "README.md").write_text(index_page(folder), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
