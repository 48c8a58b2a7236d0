"""Counts agree with their words in everything that is printed, drawn or written of small runs."""

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.text import Text

from acon_analysis.cli import main
from acon_analysis.errors import AconError
from acon_analysis.runs.run import open_run
from acon_figures.inputs import Inputs
from acon_figures.registry import FIGURES

#: One layer of one channel, one sample of one position; and the same for Meta-ACON and a gate.
OWN = """
import torch
from torch import nn
from acon_analysis.layers import MetaAconC

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 2))

def meta():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 1, 3), MetaAconC(1), nn.Flatten(), nn.Linear(4, 2)).eval()

def one():
    return [(torch.ones(1, 3), torch.zeros(1, dtype=torch.long))]

def image():
    x = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return [(x, torch.zeros(1, dtype=torch.long))]
"""

#: "1 layers", but not "0.1 seconds", "block 1 has" or "1 always".
WRONG = re.compile(
    r"(?<![\w.,#:-])1 (?!has\b|is\b|was\b|as\b|its\b|this\b|always\b)([a-z]+s)\b(?<!ss)"
)


class _Text(HTMLParser):
    """The text of a page without its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden = tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


SE = """
import torch
from acon_analysis.layers import SqueezeExcitation

def build():
    return SqueezeExcitation(8, r=2).eval()

def data():
    return [torch.randn(8, 8, 4, 4, generator=torch.Generator().manual_seed(0))]
"""


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    said = "\n".join(str(one.message) for one in caught)
    return " ".join(f"{captured.out}\n{captured.err}\n{said}".split())


@pytest.mark.parametrize(("network", "data"), [("plain", "one"), ("meta", "image")])
def test_one_of_each_is_singular(
    network: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    model, given = f"{tmp_path}/own.py:{network}", ["--data", f"{tmp_path}/own.py:{data}"]
    run, page = tmp_path / "run", tmp_path / "page.html"
    texts = [
        printed(capsys, "layers", model, *given),
        printed(capsys, "capture", model, *given, "--out", run, "--moment-blocks", 2),
        printed(capsys, "verify", run),
        *(printed(capsys, "summary", run, "--by", by) for by in ("layer", "channel", "sample")),
        printed(capsys, "compare", run, run),
        printed(capsys, "blocks", model, *given),
        printed(capsys, "gates", model, *given),
        printed(capsys, "explain", model, *given, "--layer", "1", "--out", tmp_path / "explained"),
        printed(capsys, "replace", model, *given, "--out", tmp_path / "replaced"),
        printed(capsys, "linearize", model, "--run", run, *given, "--out", tmp_path / "lines"),
        printed(capsys, "report", run, "--out", page),
        " ".join(_Text(page.read_text()).parts),
        repr(open_run(run)),
        str(open_run(run).summary()),
    ]
    assert "1 layer" in texts[1]
    assert "1 sample" in texts[1]
    texts += captions(run)
    found = [
        text[max(0, hit.start() - 60) : hit.end() + 20]
        for text in texts
        for hit in WRONG.finditer(text)
    ]
    assert not found


def test_layers_counts_what_a_capture_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "se.py").write_text(SE)
    given = [f"{tmp_path}/se.py:build", "--data", f"{tmp_path}/se.py:data"]
    said = printed(capsys, "layers", *given)
    assert "measured 3 of 3 nonlinear calls" in said
    assert "acon capture leaves out 1 of kind gate" in said
    captured = printed(capsys, "capture", *given, "--out", tmp_path / "run")
    assert "measured 3 of 3 nonlinear calls" in captured


def captions(run: Path) -> list[str]:
    """Return what is written in and below the figures of a run."""
    inputs, texts = Inputs([open_run(run)]), []
    for spec in FIGURES.values():
        given = inputs.of(spec)
        if spec.needs and not set(spec.needs) - set(given) and "training" not in given:
            try:
                figure = spec.function(**given)
            except AconError as error:
                texts.append(str(error))
            else:
                texts += [figure.caption, figure.subject]
                texts += [text.get_text() for text in figure.findobj(Text)]
    return texts
