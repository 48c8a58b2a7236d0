"""Matplotlib figures as SVG that may stand inside a page: themed, small, and without inline styles.

A page with a strict Content-Security-Policy lets neither ``<style>`` elements nor ``style``
attributes of an SVG through, so that what matplotlib writes there becomes plain attributes.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from acon_figures.saving import METADATA
from acon_figures.style import FAINT, INK, RULE, theme

#: Points or lines of one artist from which on it is embedded as a picture.
MOST_SHAPES = 600

#: Dots per inch of what is embedded as a picture.
DPI = 160

#: Colours that follow the page's theme -> the end of their class (``f-`` fills, ``s-`` strokes).
THEMED = {
    INK: "ink", "#000000": "ink", RULE: "rule", "#dddddd": "grid", FAINT: "faint",
    "#ffffff": "card",
}  # fmt: skip

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_GEOMETRY = ("d", "transform", "x", "y", "width", "height", "points")
_DEFAULTS = {"stroke-linejoin": "round", "stroke-linecap": "butt"}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """Return a figure as an ``<svg>`` element for an HTML page, without inline styles.

    `name` is unique in the page (letters, digits, ``_`` and ``-``); ids begin with it. Artists with
    more than `MOST_SHAPES` shapes become pictures. Classes ``f-ink``, ``s-grid``, ... replace the
    colours of `THEMED`. A figure with texts on a map of colours keeps its own colours and has the
    class ``light``; one whose pictures are of points or lines alone has the class ``points``.
    """
    many = [one for one in figure.findobj() if one.get_rasterized() or _shapes(one) > MOST_SHAPES]
    for artist in many:
        artist.set_rasterized(True)
    buffer = io.StringIO()
    with theme(), warnings.catch_warnings():
        # The reader's browser has the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        figure.savefig(buffer, format="svg", dpi=DPI, metadata=METADATA["svg"])
    maps = _maps(figure)
    themed = not any(axes.texts for axes in maps)
    kind = "" if themed and (maps or not many) else " points" if themed else " light"
    root = _clean(ET.fromstring(buffer.getvalue()), name, themed)
    return _serialised(root, name, title, description, f"drawing{kind}")


def _maps(figure: Figure) -> list[Axes]:
    """Return the panels with a map of colours, which is the same in light and dark."""
    return [
        axes
        for axes in figure.axes
        if axes.images or any(isinstance(one, QuadMesh) for one in axes.collections)
    ]


def _shapes(artist: Artist) -> int:
    """Return how many shapes an artist draws; 0 for what is one path or has no such notion."""
    if isinstance(artist, Line2D):
        marked = artist.get_marker() not in ("None", None, "", " ")
        return len(artist.get_xdata()) if marked else 0  # type: ignore[arg-type]
    if isinstance(artist, LineCollection):
        return len(artist.get_segments())
    if isinstance(artist, Collection):
        return len(artist.get_offsets())  # type: ignore[arg-type]
    return 0


def _clean(root: ET.Element, name: str, themed: bool) -> ET.Element:
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                element.remove(child)
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r'href="#([^"]+)"', text)) | set(_REFERENCE.findall(text))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _plain_attributes(element)
        if themed:
            _follow_theme(element)
        if element.get("id") is not None:
            if element.get("id") in used:
                element.set("id", f"{name}-{element.get('id')}")
            else:
                del element.attrib["id"]
        link = element.attrib.pop(_LINK, None)
        if link is not None:
            element.set("href", f"#{name}-{link[1:]}" if link.startswith("#") else link)
        for key, value in element.attrib.items():
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
    _merge_groups(root)
    return root


def _plain_attributes(element: ET.Element) -> None:
    """Turn the style of an element into attributes, and round its geometry."""
    declared = element.attrib.pop("style", "")
    for declaration in filter(None, (part.strip() for part in declared.split(";"))):
        key, _, value = declaration.partition(":")
        if key.strip() != "font-family":  # the page's
            element.set(key.strip(), value.strip())
    for key in _GEOMETRY:
        if key in element.attrib:
            element.set(key, " ".join(_NUMBER.sub(_rounded, element.attrib[key]).split()))


def _follow_theme(element: ET.Element) -> None:
    """Turn the themed colours of an element into classes."""
    classes = []
    for key, letter in (("fill", "f"), ("stroke", "s")):
        themed = THEMED.get(element.get(key, "").lower())
        if themed is not None:
            del element.attrib[key]
            classes.append(f"{letter}-{themed}")
    # Text and shapes without a fill of their own are black by default.
    if element.tag == "text" and element.get("fill") is None and not classes:
        classes.append("f-ink")
    if classes:
        element.set("class", " ".join(classes))


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def _merge_groups(root: ET.Element) -> None:
    """Put the only child in the place of groups that say nothing of their own."""
    for element in root.iter():
        for index, child in enumerate(list(element)):
            inner = child
            while inner.tag == "g" and not inner.attrib and len(inner) == 1:
                inner = inner[0]
            element[index] = inner


def _serialised(root: ET.Element, name: str, title: str, description: str, classes: str) -> str:
    box = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    root.attrib.update(
        {
            "class": classes, "viewBox": box, "role": "img",
            "aria-labelledby": f"{name}-title {name}-desc", **_DEFAULTS,
        }
    )  # fmt: skip
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        own = ET.Element(tag, {"id": f"{name}-{tag}"})
        own.text = text
        root.insert(index, own)
    for element in root.iter():  # white space between elements, and between signs of a formula
        if element.tag not in ("text", "tspan", "title", "desc") or len(element):
            element.text = None
        element.tail = None
    return ET.tostring(root, encoding="unicode")
