"""Runs whose every name is hostile, and their pages, read: for the tests of reports."""

import base64
import gzip
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.layers import MetaAconC
from acon_analysis.runs.run import Run
from acon_figures.report import write_report
from acon_figures.report.pictures import reported as every

#: A name that would run a script if the page took it for markup, and one that leaves an attribute.
SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
#: Class folders cannot hold a slash; `$` would be mathematics to matplotlib.
CLASS = "<img src=x onerror=alert(3)> $\\frac$"
TITLE = "</title><script>alert(4)</script>&amp;"

#: Figures that show names of layers or classes; the others would only take time.
NAMING = ("beta_distributions", "channel_spread", "beta_against_null", "beta_heatmap")


class Hostile(nn.Module):
    """Two Meta-ACON layers and a ReLU whose names and classes are markup."""

    input_shape = (3, 6, 5)

    def __init__(self) -> None:
        super().__init__()
        evil = type("<b onclick=alert(5)>Evil</b>", (MetaAconC,), {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 4, 1)
            self.add_module(SCRIPT, evil(4))
            self.second = nn.Conv2d(4, 6, 3, padding=1)
            self.add_module(IMAGE, evil(6))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self._modules[SCRIPT](self.first(x))  # type: ignore[misc]
        out: Tensor = self._modules[IMAGE](self.second(x))  # type: ignore[misc]
        return out.mean((2, 3))


Hostile.__qualname__ = "<i>Hostile</i>"


class Plain(nn.Module):
    """One activation without β."""

    input_shape = (3, 6, 5)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.conv(x))
        return out.mean((2, 3))


def folder(place: Path, count: int = 24) -> Path:
    """Make class folders of images, one of them no image, with hostile names."""
    rng = np.random.default_rng(3)
    for number in range(count):
        own = place / (CLASS if number % 2 else "=1+1")
        own.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(own / f'{number}"><b onclick=alert(6)>.png')
    (place / CLASS / "<img src=x onerror=alert(7)>\u202e.png").write_bytes(b"no image at all")
    return place


def captured(make: Callable[[], nn.Module], data: Any, out: Path, **options: Any) -> Run:
    """Capture a network in units of eight images."""
    settings = {"unit_size": 8, "batch_size": 8, "progress": False, "workers": 0} | options
    return acon.capture(make(), data, out, **settings)


def reported(place: Path) -> tuple[Run, Path]:
    """Capture the hostile network on hostile images; return the run and its page."""
    run = captured(Hostile, folder(place / "images"), place / "run", preprocess="none")

    naming = [spec for spec in every() if spec.name in NAMING]
    with mock.patch("acon_figures.report.rendering.reported", return_value=naming):
        return run, write_report(run, place / "page.html", title=TITLE)


class Parsed(HTMLParser):
    """The elements of a page as a browser's parser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.inside.setdefault(self._open, []).append(data)


def rows_of(text: str) -> list[list[str]]:
    """Return what the cells of the table of layers hold in full, row by row."""
    table = re.search(r'<table id="layers".*?</table>', text, re.DOTALL)
    assert table is not None
    body = table.group().partition("<tbody>")[2]
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    return [re.findall(r'data-v="([^"]*)"', row) for row in rows]


def table_of(text: str, name: str) -> pd.DataFrame:
    """Return a table that the page offers as CSV."""
    found = re.search(rf'id="csv-{name}">([^<]*)</script>', text)
    assert found is not None
    return pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(found.group(1)))))
