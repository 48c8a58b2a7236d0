"""Names of files, classes and layers that hold anything: text in every table, figure and page."""

import html
import io
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.files import spelled
from acon_analysis.layers import MetaAconC
from acon_analysis.models.registry import Origin
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_figures.inputs import Inputs
from acon_figures.registry import find
from acon_figures.report import rendering, write_report
from acon_figures.saving import save as save_figure
from commands import status
from pictures import picture, save

NAMES = [
    "two\nlines", "tab\tand\rreturn", "😀 ünïcode", "=1+1", "+1", "-1", "@SUM(A1)", "<b>bold",
    "$x_1$", "\u202egnp.exe", "n" * 240, "back\\slash", "'quoted\"", "%s {0} {{x}}",
    "\x1b[31mred", " blank ", "x\r=1+1",
]  # fmt: skip
NOT_UTF8 = b"bytes \xff\xfe"


class Named(nn.Module):
    """One Meta-ACON layer for each name."""

    input_shape = (3, 6, 5)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 1)
            for name in NAMES:
                self.add_module(name.replace(".", "·"), MetaAconC(4))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x.mean((2, 3))


LAYERS = [name.replace(".", "·") for name in NAMES]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("names") / os.fsdecode(
        "<i>data</i> =1+1 😀".encode() + b"\xff"
    )
    for number, name in enumerate(NAMES):
        own = folder / name
        own.mkdir(parents=True)
        for copy in range(2):
            file = save(folder / "x.png", picture(5, 6, 2 * number + copy))
            # Neither a class nor a file may make a name longer than file systems take.
            file.rename(own / f"{name[:60]}{copy}.png")
    odd = folder / os.fsdecode(NOT_UTF8)
    odd.mkdir()
    for copy in range(2):
        save(folder / "x.png", picture(5, 6, 90 + copy))
        (folder / "x.png").rename(odd / os.fsdecode(b"%d\xff.png" % copy))
    (odd / os.fsdecode(b"bad\xff.png")).write_bytes(b"no image")
    options: dict[str, Any] = {"unit_size": 8, "batch_size": 8, "progress": False, "workers": 0}
    model: Any = Named()
    model.acon_origin = Origin("n\udcffet.py:net", "w\udcffeights.pth")
    out = folder.parent / os.fsdecode("run\n😀".encode() + b"\xff")
    return acon.capture(model, folder, out, preprocess="none", **options)


def test_every_sample_is_there_under_its_name(run: Run) -> None:
    assert verify_run(run.path).sound
    assert len(run.sample_ids) == 2 * len(NAMES) + 2
    classes = set(run.samples["label"])
    assert classes == {*NAMES, r"bytes \xff\xfe"}
    assert run.errors["path"].tolist() == [r"bytes \xff\xfe/bad\xff.png"]
    assert r"bad\xff.png" in run.errors["reason"][0]


def test_layers_are_there_under_their_names(run: Run) -> None:
    assert list(run.layers["layer"]) == LAYERS
    for name in LAYERS:
        assert run.beta_matrix(name).shape == (2 * len(NAMES) + 2, 4)


@pytest.mark.parametrize("by", ["layer", "channel"])
def test_csv_is_text(run: Run, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("summary", run.path, "--by", by, "--format", "csv", "--draws", "0") == 0
    text = capsys.readouterr().out
    frame = pd.read_csv(io.StringIO(text), dtype={"layer": str}, keep_default_na=False)
    found = list(dict.fromkeys(frame["layer"]))
    assert [name.removeprefix("'") for name in found] == [
        spelled(name).removeprefix("'") for name in LAYERS
    ]
    assert "\x1b" not in text
    assert "\r" not in text
    assert not any(name.startswith(("=", "+", "-", "@", "\t", "\r")) for name in found)


@pytest.mark.parametrize("format", ["table", "json"])
def test_other_formats(run: Run, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("summary", run.path, "--format", format, "--draws", "0") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert format == "json" or "😀" in text


def test_a_file_whose_name_is_no_text(run: Run) -> None:
    out = run.path.parent / os.fsdecode(b"t\xff.parquet")
    assert status("summary", run.path, "--out", out, "--draws", "0") == 0
    assert set(pd.read_parquet(io.BytesIO(out.read_bytes()))["layer"]) == set(LAYERS)


def test_captions_and_notebooks_spell_them(run: Run, tmp_path: Path) -> None:
    spec = find("linearity_by_depth")
    figure = spec.function(**{one: Inputs([run]).get(one) for one in spec.needs})
    figure.caption = "\x1b]0;x\x07 \u200f"
    written = save_figure(figure, tmp_path, "a", ["svg"])
    plt.close(figure)
    assert written[-1].read_text("utf-8") == "\\x1b]0;x\\x07 \\u200f\n"
    shown = run._repr_html_() + run.summary()._repr_html_()
    assert shown == spelled(shown)
    assert "<b>bold" not in shown


@pytest.mark.parametrize("name", ["beta_distributions", "linearity_by_depth", "beta_against_null"])
def test_figures_draw_them_as_text(run: Run, name: str) -> None:
    spec = find(name)
    figure = spec.function(**{one: Inputs([run]).get(one) for one in spec.needs})
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    figure.savefig(io.BytesIO(), format="svg")
    figure.savefig(io.BytesIO(), format="pdf")
    plt.close(figure)


def test_the_page_shows_them_as_text(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "reported", list)
    page = write_report(run, tmp_path / "page.html").read_text("utf-8")
    assert "<b>bold" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    said = html.unescape(page)
    for name in (
        r"n\udcffet.py:net",
        r"😀\udcff",
        "😀 ünïcode",
        "=1+1",
        "n" * 240,
        "two\\nlines",
        "\\u202egnp",
    ):
        assert name in said
