"""The colours of every figure: one for each activation, wherever it is drawn, and others.

All of them can be distinguished with any kind of colour blindness; the lightness of those that are
often drawn together differs, too, and their line styles, so that grey print is readable.
"""

import re
from collections.abc import Iterable
from typing import Any

INK = "#222222"
MUTED = "#5f6368"
RULE = "#b8b8b8"
FAINT = "#f1f3f5"
"""Text and edges, second text, grid and guide lines, fills of boxes."""

COLORS = {
    "blue": "#0173b2", "orange": "#de8f05", "green": "#029e73", "red": "#d55e00",
    "purple": "#cc78bc", "brown": "#8a5a2b", "pink": "#fbafe4", "grey": "#949494",
    "yellow": "#ece133", "sky": "#56b4e9",
}  # fmt: skip
"""seaborn's "colorblind" palette with a darker brown, which colour-blind readers distinguish."""

PUBLISHED_COLORS = {
    "blue": "#1f77b4", "orange": "#ff7f0e", "green": "#2ca02c", "red": "#d62728",
    "purple": "#9467bd", "brown": "#8c564b", "sky": "#e377c2", "grey": "#7f7f7f",
}  # fmt: skip
"""matplotlib's "tab10" colours, which the paper's figures use; its pink stands under "sky"."""

DASHES: tuple[Any, ...] = (
    "solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)), (0, (2, 1)),
)  # fmt: skip
"""Line styles in addition to colours, so that curves differ in grey print as well."""

#: Colour, line style and marker of every activation.
ACTIVATIONS: dict[str, tuple[str, Any, str]] = {
    "relu": (INK, DASHES[0], "^"),
    "swish": ("#0173b2", DASHES[1], "D"),
    "aconc": ("#029e73", DASHES[3], "s"),
    "metaacon": ("#d55e00", DASHES[0], "o"),
    "gelu": ("#e0a100", DASHES[0], "v"),
    "mish": ("#882255", DASHES[5], "P"),
    "elu": ("#56b4e9", DASHES[0], "<"),
    "selu": ("#cc78bc", DASHES[3], ">"),
    "softplus": ("#8c8c26", DASHES[4], "p"),
    "leakyrelu": ("#949494", DASHES[1], "h"),
    "rrelu": ("#b59a5b", DASHES[2], "X"),
    "prelu": ("#8a5a2b", DASHES[4], "d"),
    "relu6": ("#6d8196", DASHES[6], "H"),
    "hardswish": ("#7fa8d1", DASHES[6], "D"),
    "sigmoid": ("#117733", DASHES[0], "8"),
    "tanh": ("#4b3f8f", DASHES[1], "*"),
    "aconb": ("#7fb800", DASHES[4], "s"),
    "aconfrelu": ("#b0457b", DASHES[0], "v"),
    "frelu": ("#6d8196", DASHES[4], "^"),
    "senet": ("#a9b4c2", DASHES[2], "h"),
    "product": ("#e377c2", DASHES[2], "s"),
}

_SAME = {
    "silu": "swish", "acona": "swish", "acon": "aconc", "metaaconc": "metaacon",
    "newgelu": "gelu", "quickgelu": "gelu", "gelutanh": "gelu",
    "mul": "product", "div": "product", "glu": "product",
}  # fmt: skip

#: For what is no known activation, and for two networks of one.
_OTHERS = ("purple", "brown", "sky", "orange", "green", "blue")
_OTHER_MARKERS = "Xph*d8"


def activation_key(name: str) -> str:
    """Return the key of an activation's name, class or title; parameters do not count."""
    plain = re.sub(r"[^a-z0-9]", "", re.split(r"[(,/:=]", name)[0].casefold())
    plain = plain.removesuffix("activation")
    return _SAME.get(plain, plain)


def activation_color(name: str) -> str:
    """Return the colour of an activation, which is the same in every figure; grey for others."""
    return ACTIVATIONS.get(activation_key(name), (COLORS["grey"],))[0]


def activation_looks(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return colour, line style and marker of one activation each, in their order."""
    looks, taken, left = [], set(), iter(zip(_OTHERS, DASHES[1:], _OTHER_MARKERS, strict=True))
    for name in names:
        key = activation_key(name)
        # An unknown activation, or one that comes a second time, gets a look that is left.
        if key in ACTIVATIONS and key not in taken:
            color, style, marker = ACTIVATIONS[key]
        else:
            other, style, marker = next(left, ("grey", "solid", "."))
            color = COLORS[other]
        taken.add(key)
        looks.append({"color": color, "linestyle": style, "marker": marker})
    return looks
