"""Names from outside as a figure or a page shows them: text, whatever they hold.

Every figure passes the names of layers, networks, classes and the like through here. In matplotlib
a text between dollar signs is mathematics, and a legend leaves out what begins with ``_``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from textwrap import wrap
from typing import Any

from acon_analysis.files import spelled

_CLASS = re.compile(r" \((\w+)\)$")
"""A class after the path of a layer."""

_LABEL = 18
"""Letters of the label of a sample; a figure of one column keeps room for its panel."""

_NOTHING = "\u200b"
"""A letter without width."""


def visible(text: Any) -> str:
    """Return a name so that it can neither break the text around it nor reorder it.

    Control characters, ends of lines, lone surrogates and characters that turn the direction of
    writing come out as their code.
    """
    return spelled(str(text)).replace("\t", r"\t").replace("\n", r"\n")


def last_part(name: str) -> str:
    """Return the last part of an absolute path, whose folders are private, or any other name."""
    return PurePath(name).name if PurePath(name).is_absolute() else name


def plain(text: Any) -> str:
    """Return a name for matplotlib, which then draws it as it is: `visible`, never mathematics."""
    return visible(text).replace("$", r"\$")


def sample_name(sample: int, labels: Mapping[int, object] | None, gap: str = " ") -> str:
    """Return what a sample is called: its number, and the beginning of its label if it has one."""
    if labels is None or sample not in labels:
        return f"sample {sample}"
    label = str(labels[sample])
    label = label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…"
    return f"sample {sample}:{gap}{plain(label)}"


def entry(text: Any) -> str:
    """Return a name for a legend: `plain`, and not left out where it begins with an underscore."""
    drawn = plain(text)
    return f"{_NOTHING}{drawn}" if drawn.startswith("_") else drawn


def shortened(text: Any, letters: int) -> str:
    """Return a name as `plain` of at most N letters; its beginning gives way to "…"."""
    whole = str(text)
    return plain(whole if len(whole) <= letters else f"…{whole[1 - letters :]}")


def layer_labels(layers: Sequence[Any], letters: int = 18) -> list[str]:
    """Return short names of layers: without the class and parts of the path that all share.

    ``encoder.layer.0.act`` and ``encoder.layer.1.act`` become ``0`` and ``1``. What is still longer
    than N letters loses its last parts, where the names stay different, and then its
    beginning, of which as much stays as keeps them different; see `_cut`.
    """
    paths, _, _ = _without_shared(layers)
    for path in paths.values():
        while len(path) > 1 and len(".".join(path)) > letters:
            if any(
                other[: len(path) - 1] == path[:-1] for other in paths.values() if other != path
            ):
                break
            del path[-1]
    names = {layer: ".".join(path) for layer, path in paths.items()}
    cut = _cut(list(dict.fromkeys(names.values())), letters)
    return [cut[names[str(layer)]] for layer in layers]


def _cut(names: Sequence[str], letters: int) -> dict[str, str]:
    """Shorten different names to N letters, or half as many more where they would become equal.

    The beginning gives way, or else the middle; names that differ elsewhere begin with a number.
    """
    lengths = range(letters, letters + letters // 2 + 1)
    for cut in (shortened, _without_middle):
        for length in lengths:
            found = {name: cut(name, length) for name in names}
            if len(set(found.values())) == len(found):
                return found
    return {name: f"{n}: {shortened(name, letters)}" for n, name in enumerate(names, 1)}


def _without_middle(text: str, letters: int) -> str:
    """Return a name as `plain` of at most N letters; its middle gives way to "…"."""
    half = letters // 2
    return plain(text if len(text) <= letters else f"{text[:half]}…{text[half + 1 - letters :]}")


def layers_word(layers: Sequence[Any]) -> str:
    """Return the label of an axis of `layer_labels`, which says what these leave out.

    ``"layer"``, or ``"layer (encoder.layer.*.act)"``, or ``"layer (features.*, ReLU)"``.
    """
    _, before, after = _without_shared(layers)
    pattern = ".".join([*before, "*", *after])
    words = filter(None, ["" if pattern == "*" else shortened(pattern, 34), _shared_class(layers)])
    more = ", ".join(words)
    return f"layer ({more})" if more else "layer"


def _shared_class(layers: Sequence[Any]) -> str:
    """Return the class that stands in brackets after every one of several names, or ""."""
    found = {match[1] if (match := _CLASS.search(str(layer))) else "" for layer in layers}
    return found.pop() if len(found) == 1 and len(layers) > 1 else ""


def _without_shared(layers: Sequence[Any]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Return the parts of each path that not all share, and the shared ones before and after."""
    ending = f" ({shared})" if (shared := _shared_class(layers)) else ""
    paths = {str(layer): str(layer).removesuffix(ending).split(".") for layer in layers}
    parts: dict[int, list[str]] = {0: [], -1: []}
    for end, found in parts.items():
        while len(paths) > 1 and all(len(path) > 1 for path in paths.values()):
            if len({path[end] for path in paths.values()}) > 1:
                break
            found += {path.pop(end) for path in paths.values()}
    return paths, parts[0], parts[-1][::-1]


def folded(text: Any, letters: int) -> str:
    """Return a name as `plain` lines of at most N letters."""
    return "\n".join(plain(line) for line in wrap(str(text), letters))
