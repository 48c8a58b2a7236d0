"""The index page of a folder of figures: a grid of pictures, with title, caption and command."""

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

COLUMNS = 3
"""Pictures in a row."""

HEAD = """# Gallery

Every figure of `acon figures --list`, as `make gallery` draws it from what comes with the package:
captured runs of networks trained on photographs (CIFAR-10), and networks trained on handwritten
digits, from which the figures that need images or live networks are. `acon figures NAME` draws one;
`--run RUN` takes your own captured runs instead, `--format pdf` and `--context talk` other formats.
"""

#: Titles of figures whose names say too little.
_TITLES = {
    "acon_c_example": "ACON-C from mean to maximum",
    "explanation": "Which pixels decide β",
    "function_and_derivatives": "ACON-C and its derivative",
    "gate_changes": "The loss when β is held",
    "improvements": "Gains over ReLU, as printed",
    "maxout_learned": "Functions that Maxout learns",
    "network_sketch": "A network with its activations",
    "relu_like": "Activations like ReLU",
    "replacement_damage": "Which measure predicts the damage",
    "selu_self_normalisation": "SELU normalises itself",
    "training_curves": "Training of the shipped networks",
}
#: Parts of figures' names that are written otherwise in titles.
_WORDS = {
    "acon": "ACON", "beta": "β", "c": "C", "frelu": "FReLU", "maxout": "Maxout", "relu": "ReLU",
    "selu": "SELU", "tfnet": "TFNet",
}  # fmt: skip


def title(spec: FigureSpec) -> str:
    """Return what people call a figure.

    Examples
    --------
    >>> from acon_figures import FIGURES
    >>> title(FIGURES["meta_acon_module"]), title(FIGURES["gate_changes"])
    ('Meta-ACON module', 'The loss when β is held')
    """
    if given := _TITLES.get(spec.name) or spec.heading:
        return given
    words = " ".join(_WORDS.get(word, word) for word in spec.name.split("_"))
    words = words.replace("meta ACON", "meta-ACON").replace("ACON C", "ACON-C")
    return words[:1].upper() + words[1:] if words[:1].isascii() else words


def index_page(folder: str | Path) -> str:
    """Return a folder's index in Markdown, from its ``NAME.png`` and captions ``NAME.txt``."""
    parts = [HEAD]
    for kind, heading in HEADINGS.items():
        specs = [spec for spec in FIGURES.values() if spec.kind == kind]
        cells = [cell for spec in specs for cell in _cells(spec, Path(folder))]
        if cells:
            starts = range(0, len(cells), COLUMNS)
            rows = ["\n".join(["<tr>", *cells[one : one + COLUMNS], "</tr>"]) for one in starts]
            parts += [f"## {heading}\n", "<table>", *rows, "</table>\n"]
    if len(parts) == 1:
        raise UsageError(f"{str(folder)!r} holds no PNG file of a registered figure")
    return "\n".join(parts)


def _cells(spec: FigureSpec, folder: Path) -> Iterator[str]:
    """Yield the grid's cell of each picture of a figure."""
    for suffix in ("", *spec.variants):
        name = f"{spec.name}_{suffix}" if suffix else spec.name
        if not (folder / f"{name}.png").is_file():
            continue
        words = title(spec) + (f" ({suffix.replace('_', ' ')})" if suffix else "")
        caption = f'<br><a href="{name}.txt">caption</a>' * (folder / f"{name}.txt").is_file()
        yield (
            f'<td><a href="{name}.png"><img src="{name}.png" width="280" alt="{words}"></a><br>'
            f"{words}<br><code>{spec.name}</code>{caption}</td>"
        )


def main(folder: str) -> None:
    """Write the index page of a folder into its ``README.md``."""
    Path(folder, "README.md").write_text(index_page(folder), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
