"""The page of a run: what it says, what it never does, and for which runs there is one."""

import base64
import contextlib
import gzip
import hashlib
import html
import io
import json
import re
import shutil
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import acon_figures
import figureframes
import reportpages
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers import MetaAconC
from acon_analysis.plotdata import drawn
from acon_analysis.plotdata.depth import linearity_by_depth
from acon_analysis.plotdata.overview import headline_frame, layer_overview
from acon_analysis.runs.compare import compare_runs, comparison_text
from acon_analysis.runs.run import Run, open_run
from acon_analysis.statistics.findings import findings
from acon_analysis.statistics.gaussian import RELU_L
from acon_analysis.statistics.sentences import sentence
from acon_analysis.statistics.verdicts import verdict_text
from acon_figures.registry import FIGURES
from acon_figures.report import context, depth, numbers, rendering, svg, units, words, write_report
from acon_figures.report.pictures import reported
from acon_hooks.captures.capturing import capture
from acon_hooks.replacement.gate_changes import gate_use
from captures import images, tiny
from commands import status

pytestmark = pytest.mark.filterwarnings("ignore:.*untrained.*")


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


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figure: a test of something else need not wait for them."""
    monkeypatch.setattr(rendering, "reported", list)


@pytest.fixture(scope="module")
def page(hostile_report: tuple[Run, Path]) -> str:
    return hostile_report[1].read_text("utf-8")


def test_the_numbers_are_those_of_the_tables(hostile_report: tuple[Run, Path], page: str) -> None:
    run = hostile_report[0]
    linearity, betas = run.linearity(columns="all"), run.betas()
    channels = run.linearity(by="channel", columns="all")
    for place, cells in enumerate(rows_of(page)):
        layer = linearity["layer"][place]
        own = channels[channels["layer"] == layer]
        beta = betas.loc[betas["layer"] == layer, "beta"].astype(float)
        assert html.unescape(cells[1]) == layer
        found = [float(cell) for cell in [cells[0], *cells[2:]]]
        split = run.variance_split().iloc[place]
        assert found == pytest.approx([
            place, own.shape[0], linearity["L"][place], own["s_c"].max(), linearity["G"][place],
            linearity["kappa"][place], beta.mean(), split["ratio"],
            linearity["linear"][place],
        ], rel=1e-6)  # fmt: skip


def test_no_folder_of_the_machine_is_shown(hostile_report: tuple[Run, Path], page: str) -> None:
    run = hostile_report[0]
    assert run.identity["data"] == str(run.path.parent / "images")
    said = html.unescape(page)
    assert str(run.path.parent) not in said
    assert re.search(r"<dt>Data</dt>\s*<dd>images</dd>", said)


def test_words_and_headline_come_from_the_statistics(
    hostile_report: tuple[Run, Path], page: str
) -> None:
    run = hostile_report[0]
    splits = run.variance_split()
    said = html.unescape(page)
    assert verdict_text(splits) in said
    for finding in findings(layer_overview(run, splits=splits), splits):
        assert finding.answer.replace(" %", "\u00a0%") in said
    quantities = headline_frame(layer_overview(run, splits=splits)).set_index("quantity")
    total, least = quantities["total"]["linear"], quantities["value"]["L_least"]
    assert f"of {total:.0f} channels linear" in said
    assert f"<b>L {least:.3f}</b>" in page
    assert run.manifest["identity"]["weights_sha256"] in page
    assert run.manifest["versions"]["torch"] in page
    assert "24 of 25" in page


def test_offered_tables_hold_the_numbers(hostile_report: tuple[Run, Path], page: str) -> None:
    run = hostile_report[0]
    layers = table_of(page, "layers")
    assert layers["L"].to_numpy() == pytest.approx(run.linearity()["L"].to_numpy(), rel=1e-6)
    splits = table_of(page, "splits")
    assert splits["p_value"].to_numpy() == pytest.approx(run.variance_split()["p_value"].to_numpy())
    betas = table_of(page, "betas").set_index("sample").sort_index()
    last = run.beta_matrix(reportpages.IMAGE)
    columns = [f"channel {number}" for number in range(last.shape[1])]
    assert betas[columns].to_numpy() == pytest.approx(last, abs=1e-4)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    own = run.linearity(by="channel", columns="all")
    assert [number for layer in data for number in layer["columns"]["L"]] == pytest.approx(
        own["L"].to_list(), rel=1e-5
    )


def test_hostile_names_are_text(page: str) -> None:
    parsed = Parsed(page)
    names = {tag for tag, _ in parsed.elements}
    assert not names & {"img", "b onclick=alert(5)", "i", "iframe", "object", "embed", "link"}
    scripts = [attributes for tag, attributes in parsed.elements if tag == "script"]
    assert [one.get("type") for one in scripts].count(None) == 1
    assert not any("src" in one for one in scripts)
    for tag, attributes in parsed.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
    assert html.escape(reportpages.SCRIPT) in page
    assert html.escape(reportpages.CLASS[-13:], quote=False).partition(" $")[0] in page
    assert "\u202e" not in page
    assert "\\u202e" in page
    for number in range(1, 8):
        for found in re.finditer(rf"alert\({number}\)", page):
            before = page[: found.start()].rpartition("<script>")[2]
            near = page[found.start() - 40 : found.start()]
            text = re.search(r">[^<>]*$", near)  # of an element: a line or end of a long name
            assert "&lt;" in near or text or "</script>" in before


def test_nothing_is_loaded_and_the_policy_says_so(page: str) -> None:
    parsed = Parsed(page)
    policy = next(
        attributes["content"]
        for tag, attributes in parsed.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        whole = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(whole) == 1
        digest = base64.b64encode(hashlib.sha256(whole[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), (tag, value)
    assert not re.search(r"https?://", page)
    assert not re.search(r"@import|url\((?!#)", page)


def test_it_can_be_used_without_a_mouse_or_eyes(page: str) -> None:
    parsed = Parsed(page)
    for tag, attributes in parsed.elements:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            assert attributes["role"] in ("img", "group")  # links inside a picture would be lost
            for name in str(attributes["aria-labelledby"]).split():
                assert page.count(f'id="{name}"') == 1
        if "aria-describedby" in attributes:
            assert page.count(f'role="tooltip" id="{attributes["aria-describedby"]}"') == 1
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert 'aria-sort="none"' in page
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert set(references) <= set(ids)


def test_the_same_run_gives_the_same_bytes(
    hostile_report: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "reported", lambda: reported()[:1])
    run = hostile_report[0]
    one = write_report(run, tmp_path / "a" / "one.html").read_bytes()
    (tmp_path / "two.html").write_text("an older page")
    assert write_report(run.path, tmp_path / "two.html").read_bytes() == one
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["two.html"]


def test_a_title_and_size(hostile_report: tuple[Run, Path], page: str) -> None:
    assert html.escape(reportpages.TITLE) in page
    assert hostile_report[1].stat().st_size < 1_500_000


@pytest.mark.usefixtures("bare")
def test_a_network_without_beta(tmp_path: Path) -> None:
    run = reportpages.captured(reportpages.Plain, images(16), tmp_path / "run")
    text = rendering.render(run)
    cells = rows_of(text)
    assert len(cells) == 1
    assert float(cells[0][2 + 1]) == pytest.approx(run.linearity()["L"][0], rel=1e-6)
    assert "Samples’ effect" not in text
    assert "β mean" not in text.partition("<script")[0]


@pytest.mark.usefixtures("bare")
def test_meanings_name_what_is_missing_as_tables_show_it() -> None:
    assert "–" in words.HINTS["L_gate"]
    assert not [name for name, meaning in words.HINTS.items() if "NaN" in meaning]


def test_the_page_says_what_to_do_next_and_explains_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reportpages.captured(reportpages.Plain, images(1), tmp_path / "run one")
    text = html.unescape(rendering.render(run))
    assert "Too few samples for intervals" in text
    assert "– to –" not in text
    commands = re.findall(r"<dd><code>(acon .*?)</code>", text)
    assert commands[-1] == "acon report RUN OTHER_RUN --out compared.html"
    assert "RUN: the folder 'run one'." in text
    with contextlib.chdir(tmp_path):
        here = words.next_steps(open_run("run one"), run.linearity(columns="all"))
    assert here["steps"][-1][1] == "acon report 'run one' OTHER_RUN --out compared.html"
    assert "RUN:" not in here["note"].replace("_RUN:", "")
    assert any(command.startswith("acon replace MODEL --fit DATA ") for command in commands)
    assert not any("gates" in command for command in commands)  # the network has none
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text.partition('id="glossary"')[2]))
    assert {"L", "s_c", "channel", "Gaussian inputs"} <= shown.keys()
    assert not shown.keys() & {"p1≈p2", "constant gate", "κ", "call 0, call 1", "null"}
    gated = reportpages.captured(tiny, images(16), tmp_path / "gated")
    assert "acon gates" in rendering.render(gated)
    monkeypatch.setattr(Run, "model", "it's.py:net")
    monkeypatch.setattr(Run, "data_name", "my.py:batches")
    steps = words.next_steps(run, run.linearity(columns="all"))["steps"]
    assert steps[-2][1] == """acon blocks 'it'"'"'s.py:net' --data my.py:batches"""
    monkeypatch.setattr(Run, "model", "/home/her/it.py:net")
    steps = words.next_steps(run, run.linearity(columns="all"))["steps"]
    assert steps[-2][1] == "acon blocks MODEL --data my.py:batches"


class _Gated(nn.Module):
    """A product of two linear layers' outputs, one of them through an activation."""

    def __init__(self, gate: nn.Module, *, squeezed: bool) -> None:
        super().__init__()
        self.a, self.b, self.act, self.squeezed = nn.Linear(4, 4), nn.Linear(4, 4), gate, squeezed

    def forward(self, x: Tensor) -> Tensor:
        factor: Tensor = x if self.squeezed else self.a(x)
        out: Tensor = factor * self.act(self.b(x))
        return out


@pytest.mark.parametrize(
    ("network", "offered"),
    [
        (_Gated(nn.SiLU(), squeezed=False), False),
        (nn.Sequential(_Gated(nn.Sigmoid(), squeezed=True)), True),
        (nn.Sequential(nn.Linear(4, 8), nn.GLU()), True),
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU()), False),
    ],
)
def test_gates_are_offered_where_they_can_be_held(
    network: nn.Module, offered: bool, tmp_path: Path
) -> None:
    data = [torch.randn(16, 4)]
    run = capture(network.eval(), data, tmp_path / "run", progress=False)
    steps = words.next_steps(run, run.linearity(columns="all"))["steps"]
    said = [what for what, command in steps if command.startswith("acon gates")]
    assert said == ["Ask whether the network uses its gates: hold or exchange them"] * offered
    if offered:
        assert len(gate_use(network, data, ["mean"]))
    else:
        with pytest.raises(UsageError, match="such as silu"):
            gate_use(network, data, ["mean"])


@pytest.mark.usefixtures("bare")
def test_a_run_without_moments_says_so(tmp_path: Path) -> None:
    run = reportpages.captured(tiny, images(16), tmp_path / "run", moments=False)
    text = rendering.render(run)
    assert "captured without moments" in text
    assert len(rows_of(text)) == 2
    betas = run.betas().groupby("layer", sort=False)["beta"].mean()
    assert [float(cells[3]) for cells in rows_of(text)] == pytest.approx(list(betas), rel=1e-5)
    plain = reportpages.captured(
        reportpages.Plain, images(8), tmp_path / "none", moments=False, kinds=("activation",)
    )
    assert "captured without moments" in rendering.render(plain)


@pytest.mark.usefixtures("bare")
def test_an_incomplete_run_says_so_at_the_top(tmp_path: Path) -> None:
    run = reportpages.captured(tiny, images(24), tmp_path / "run")
    marks = sorted((run.path / "done").glob("*.json"))
    marks[-1].unlink()
    manifest = run.path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"complete": False}))
    text = rendering.render(open_run(run.path))
    place = text.index("This run is not complete: 2 of 3 units done")
    assert place < text.index('id="findings"')
    assert "16 of 24" in text


def test_a_run_without_images_is_explained(tmp_path: Path) -> None:
    run = reportpages.captured(tiny, images(8), tmp_path / "run")
    for mark in (run.path / "done").iterdir():
        mark.unlink()
    with pytest.raises(AconError, match="holds no finished samples yet; run the same capture"):
        write_report(run.path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_wrong_names_of_pages(hostile_report: tuple[Run, Path], tmp_path: Path) -> None:
    run = hostile_report[0]
    with pytest.raises(UsageError, match=r"must end in \.html; got .*manifest\.json"):
        write_report(run, run.path / "manifest.json")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_report(run, tmp_path / "folder.html")
    with pytest.raises(UsageError, match="no folder"):
        write_report(tmp_path / "nothing", tmp_path / "page.html")


@pytest.mark.usefixtures("bare")
def test_the_command(
    hostile_report: tuple[Run, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "page.html"
    assert status("report", hostile_report[0].path, "--out", out, "--title", "A & B") == 0
    assert "page.html: 0." in capsys.readouterr().out
    assert "<title>A &amp; B</title>" in out.read_text("utf-8")
    assert status("report", hostile_report[0].path, "--out", "page.pdf") == 2
    assert "must end in .html" in capsys.readouterr().err


def test_blocks_are_drawn_where_a_table_is_given(
    hostile_report: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hostile_report[0]
    strip = [spec for spec in reported() if spec.name == "network_strip"]
    monkeypatch.setattr(rendering, "reported", lambda: strip)
    assert 'id="figure-network_strip"' not in rendering.render(run)
    table = figureframes.blocks().assign(network=run.model, data="<b>", samples=24)
    table.to_csv(tmp_path / "blocks.csv", index=False)
    given = ("--out", tmp_path / "page.html", "--blocks", tmp_path / "blocks.csv")
    assert status("report", run.path, *given) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<h3>The network as a strip of blocks</h3>" in page
    assert "on &lt;b&gt;, 24 samples" in page
    assert table_of(page, "blocks")["nlc"].tolist() == table["nlc"].tolist()
    with pytest.raises(UsageError, match="blocks is of the network 'other', the run of"):
        run.report(tmp_path / "other.html", blocks=table.assign(network="other"))
    with pytest.raises(AconError, match="table of blocks lacks the column r2"):
        run.report(tmp_path / "other.html", blocks=table.drop(columns="r2"))
    assert not (tmp_path / "other.html").exists()


@pytest.mark.parametrize("name", ["blocks.txt", "nothing.csv", "broken.json"])
def test_a_file_that_is_no_table_is_refused_in_one_sentence(
    hostile_report: tuple[Run, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "broken.json").write_text("{")
    assert status("report", hostile_report[0].path, "--blocks", tmp_path / name) == 2
    assert "table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (float("nan"), 3, "–"), (float("-inf"), 3, "−∞"), (0.0, 3, "0"), (0.5, 3, "0.500"),
        (-0.25, 2, "−0.25"), (0.00012, 3, "0.00012"), (123456.0, 3, "1.23e+05"),
    ],
)  # fmt: skip
def test_numbers_for_people(value: float, digits: int, text: str) -> None:
    assert numbers.number(value, digits) == text


def test_an_index_that_is_not_one_does_not_look_like_it() -> None:
    assert [numbers.share(value) for value in (1.0, 0.99999, 0.9991)] == [
        "1.000", "> 0.999", "0.999",
    ]  # fmt: skip
    assert sentence("β varies") == "β varies."
    assert sentence("a line") == "A line."


def test_csv_holds_no_formula_and_large_ones_stay_out() -> None:
    names = pd.Series(["=HYPERLINK(1)", "ok\x00\udcff", "-1"], dtype=object)
    frame = pd.DataFrame({"name": names, "value": [-1.5, 0, 1]})
    lines = numbers.csv_text(frame).splitlines()
    assert lines == ["name,value", "'=HYPERLINK(1),-1.5", "ok\\x00\\udcff,0", "'-1,1"]
    assert numbers.packed("x" * 100) == numbers.packed("x" * 100)
    noise = np.random.default_rng(0).bytes(numbers.MOST_PACKED).hex()
    assert numbers.packed(noise) is None


def test_a_drawing_without_inline_styles_follows_the_theme() -> None:
    figure = figureframes.draw("slopes")
    text = svg.inline_svg(figure, "own", "A < B", "one & two")
    assert text.startswith('<svg class="drawing" viewBox="0 0 ')
    assert "<style" not in text
    assert " style=" not in text
    assert "A &lt; B</title>" in text
    assert 'class="f-ink"' in text
    assert "#222222" not in text


def test_texts_on_colours_stay_readable_in_the_dark() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    axes.imshow([[0.0, 1.0]])
    assert 'class="drawing"' in svg.inline_svg(figure, "own", "", "")
    axes.text(0, 0, "dark on light", color="#222222")
    text = svg.inline_svg(figure, "own", "", "")
    assert 'class="drawing light"' in text
    assert "#222222" in text
    assert "f-ink" not in text


def test_many_points_become_a_picture() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    axes.plot(range(100), "o")
    few_points = svg.inline_svg(figure, "few", "", "")
    axes.scatter(range(5000), range(5000))
    many = svg.inline_svg(figure, "many", "", "")
    assert few_points.count("<use") >= 100
    assert "data:image/png" not in few_points
    assert many.count("<image") == 1
    assert many.count("<use") < 200


def test_the_page_is_part_of_the_package() -> None:
    from importlib.resources import files

    own = files("acon_figures.report") / "templates"
    found = {file.name for file in own.iterdir()}
    assert {"report.html.j2", "macros.html.j2", "style.css", "script.js"} <= found


def test_the_least_a_run_can_be(tmp_path: Path) -> None:
    """One layer, one unit, two images, no labels; with its figures."""
    data = TensorDataset(images(2).tensors[0])
    run = reportpages.captured(reportpages.Plain, data, tmp_path / "run")
    assert "Layer by layer" in rendering.render(run)


@pytest.mark.usefixtures("bare")
def test_the_census_is_a_table_and_older_runs_have_none(tmp_path: Path) -> None:
    run = capture(tiny(), images(9), tmp_path / "run", progress=False)
    found = context.census(run)
    assert found is not None
    assert found["text"].startswith("Measured 2 of 2 nonlinear calls (100 %")
    assert [set(row["operator"].split(" + ")) for row in found["rows"]] == [{"sigmoid", "mul"}]
    page = rendering.render(run)
    assert found["text"] in html.unescape(page)
    assert 'id="census"' in page
    (run.path / "nonlinearities.parquet").unlink()
    old = Run(run.path)
    assert context.census(old) is None
    assert 'id="census"' not in rendering.render(old)


def test_linearity_comes_first_and_every_point_leads_to_its_layer(
    hostile_report: tuple[Run, Path], page: str
) -> None:
    run = hostile_report[0]
    body = page[page.index("<main>") :]
    first = body.index("How close to straight lines are the activations?")
    assert first < body.index('id="figure-depth"') < body.index("Did the network learn to set β")
    assert body.index("L is the share of the variance") < body.index('id="figure-depth"')
    links = re.findall(r'<a href="#(layer-\d+)" aria-label="([^"]*)">', body)
    said = [html.unescape(text) for _, text in links]
    table = run.linearity()
    for size in (0, 2):  # the chart of wide pages, then that of narrow ones
        for place, row in enumerate(table.to_dict("records")):
            assert links[size + place][0] == f"layer-{place}"
            assert said[size + place].startswith(f"{row['layer']}: L = {row['L']:.3f} (")


def test_positions_in_the_chart_are_those_of_l() -> None:
    entries = [
        {"name": name, "key": (name, 0), "id": f"layer-{name}", "index": index, "dead": False,
         "role": "activation", "place": place}
        for name, place, index in [
            ("a", 0, (1.0, 1.0, 1.0)), ("b", 4, (0.5, 0.4, 0.6)), ("c", 9, (RELU_L, *2 * [np.nan])),
        ]
    ]  # fmt: skip
    chart = depth.depth_chart([entries, [entries[1] | {"id": "second-layer-0"}]], "wide")
    assert chart is not None
    (a, b, c), (other,) = (one["points"] for one in chart["series"])
    scale = chart["ticks"][-1][0] - chart["ticks"][0][0]  # from the lowest mark to 1: upwards
    low = float(chart["ticks"][0][1])
    assert chart["ticks"][-1] == (a["y"], "1.0")
    assert (b["y"] - chart["ticks"][0][0]) / scale == pytest.approx(
        (0.5 - low) / (1 - low), abs=1e-3
    )
    assert c["y"] == c["low"] == c["high"] == chart["relu"]
    assert b["low"] > b["y"] > b["high"]
    assert other == b | {"id": "second-layer-0"}
    assert c["text"] == "c: L = 0.733"
    assert chart["numbers"] == [(one["x"], number) for one, number in ((a, 1), (b, 5), (c, 10))]
    assert depth.depth_chart([[entries[0] | {"index": None}]], "wide") is None


def test_each_kind_of_layer_has_a_line_of_its_own() -> None:
    kinds = ["activation", "product", "activation", "product", "activation"]
    entries = [
        {"index": (0.8, np.nan, np.nan), "dead": False, "role": kind, "id": name, "name": name,
         "key": (name, 0), "place": place}
        for place, (name, kind) in enumerate(zip("abcde", kinds, strict=True))
    ]  # fmt: skip
    chart = depth.depth_chart([entries], "wide")
    assert chart is not None
    shown = [
        (one["look"], one["sign"], "".join(point["id"] for point in one["points"]))
        for one in chart["series"]
    ]
    assert shown == [("run-a", "●", "ace"), ("run-b", "■", "bd")]
    assert chart["kinds"] == [("run-a", "●", "activation"), ("run-b", "■", "product")]
    three = depth.depth_chart([[*entries, entries[0] | {"role": "gate", "id": "f"}]], "wide")
    assert three is not None
    assert three["kinds"][-1] == ("run-c", "▲", "gate")
    two = depth.depth_chart([entries, entries[:2]], "wide")
    assert two is not None
    assert [(one["look"], one["sign"]) for one in two["series"]] == [
        ("run-a", "●"), ("run-a", "■"), ("run-b", "●"), ("run-b", "■")
    ]  # fmt: skip
    alone = depth.depth_chart([entries[:1]], "wide")
    assert alone is not None
    assert alone["kinds"] == []


def test_lines_of_two_runs_of_other_layers_never_run_back() -> None:
    def entries(names: str) -> list[dict[str, object]]:
        one = {"index": (0.8, np.nan, np.nan), "dead": False, "role": "activation"}
        return [
            one | {"id": name, "name": name, "key": (name, 0), "place": place}
            for place, name in enumerate(names)
        ]

    for first, second, order in (
        ("be", "abcdef", "abcdef"), ("abcdef", "be", "abcdef"), ("abc", "axcy", "abxcy"),
        ("ab", "cd", "cdab"), ("abd", "bcd", "abcd"),
    ):  # fmt: skip
        chart = depth.depth_chart([entries(first), entries(second)], "wide")
        assert chart is not None
        lines = [series["points"] for series in chart["series"]]
        at = {one["id"]: one["x"] for points in lines for one in points}
        for points in lines:
            assert [one["x"] for one in points] == sorted(one["x"] for one in points)
        longest = max(first, second, key=len)
        assert chart["numbers"] == [(at[name], n) for n, name in enumerate(longest, 1)]
        assert sorted(at, key=lambda name: at[name]) == list(order), order


def test_numbers_of_thousands_have_room_in_the_chart() -> None:
    def numbers_of(last: int) -> int:
        places = np.linspace(0, last - 1, 60).astype(int)
        one = {"id": "x", "index": (1.0, np.nan, np.nan), "dead": False, "role": "activation"}
        rows = [
            one | {"name": "a", "key": (f"{place}", 0), "place": int(place)} for place in places
        ]
        chart = depth.depth_chart([rows], "narrow")
        assert chart is not None
        return len(chart["numbers"])

    assert numbers_of(100) == numbers_of(999) == 12
    assert numbers_of(5000) == 10


def test_a_unit_is_drawn_from_its_own_numbers(hostile_report: tuple[Run, Path]) -> None:
    run = hostile_report[0]
    table = run.linearity("channel", columns="all")
    facts = units.unit_facts(run)
    assert len(facts) == len(table)
    own = facts[facts["layer"] == reportpages.IMAGE]
    entry = units.unit_entry(own)
    assert entry is not None
    worst = table[table["layer"] == reportpages.IMAGE].nlargest(1, "s_c").iloc[0]
    assert entry["channel"] == worst["channel"]
    p1, p2 = (own.loc[own["channel"] == worst["channel"], name].item() for name in ("p1", "p2"))
    x = np.linspace(worst["min_x"], worst["max_x"], units.POINTS)
    lines = np.concatenate([p1 * x, p2 * x, [0.0]])
    y = (p1 - p2) * x / (1 + np.exp(-worst["beta_mean"] * (p1 - p2) * x)) + p2 * x
    down = [float(point.split(" ")[1]) for point in entry["curve"][1:].split("L")]
    expected = units.HEIGHT * (lines.max() - y) / (lines.max() - lines.min())
    assert down == pytest.approx(expected.tolist(), abs=0.06)
    assert units.unit_entry(own.iloc[:0]) is None


def test_two_runs_are_one_page(
    hostile_report: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "reported", list)
    run = hostile_report[0]
    other = reportpages.captured(
        reportpages.Hostile, reportpages.folder(tmp_path / "images", 16), tmp_path / "run",
        preprocess="none",
    )  # fmt: skip
    page = run.report(tmp_path / "page.html", other).read_text("utf-8")
    said = html.unescape(page)
    found = compare_runs(run, other)
    assert sentence(comparison_text(found)) in said
    index = found[found["quantity"] == "L"]
    cells = re.findall(r'data-label="Difference" data-v="([^"]*)"', page)
    assert [float(cell) for cell in cells] == pytest.approx(index["difference"].to_list(), rel=1e-6)
    assert table_of(page, "differences")["second"].to_numpy() == pytest.approx(
        found["second"].to_numpy(), rel=1e-5
    )
    assert 'id="second-layer-1"' in page
    assert "not of the same samples (24 and 16)" in said
    ids = [attributes["id"] for _, attributes in Parsed(page).elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    plain = reportpages.captured(reportpages.Plain, images(8), tmp_path / "plain")
    said = html.unescape(rendering.render(run, plain))
    assert "The two runs have no layer of one name, so that no layers can be compared." in said
    assert 'id="second-layer-0"' in said
    moved = shutil.copytree(plain.path, tmp_path / "later")
    said = html.unescape(rendering.render(plain, open_run(moved)))
    titles = re.findall(r'class="brand">(First|Second) run: (.*?)</p>', said)
    assert [title.rpartition(" ")[2] for _, title in titles] == ["(plain)", "(later)"]


def test_calls_are_numbered_as_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "reported", list)
    relu = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(3, 4, 1), relu, nn.Conv2d(4, 4, 1), relu, nn.Flatten())
    run = reportpages.captured(network.eval, images(16), tmp_path / "run")
    page = rendering.render(run)
    assert [cells[1] for cells in rows_of(page)] == ["1 (ReLU, call 0)", "1 (ReLU, call 1)"]
    assert run.layers["call"].tolist() == [0, 1]
    assert "call 2" not in page


def test_more_than_two_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("report", "a", "b", "c") == 2
    assert "a report is of one run or of two; got 3" in capsys.readouterr().err


class Eight(nn.Module):
    """Eight layers, every other a Meta-ACON."""

    def __init__(self) -> None:
        super().__init__()
        kinds = [nn.ReLU() if number % 2 else MetaAconC(3 + number) for number in range(8)]
        sizes = [3, *(3 + number - number % 2 for number in range(8))]
        self.convs = nn.ModuleList(map(partial(nn.Conv2d, kernel_size=1), sizes, sizes[1:]))
        self.acts = nn.ModuleList(kinds)

    def forward(self, x: Tensor) -> Tensor:
        for conv, act in zip(self.convs, self.acts, strict=True):
            x = act(conv(x))
        return x.mean((2, 3))


def eight(folder: Path) -> Run:
    """Capture `Eight` on some images."""
    data = TensorDataset(torch.rand(12, 3, 4, 4))
    return capture(Eight().eval(), data, folder, kinds=("meta_acon", "activation"), progress=False)


def test_of_very_many_layers_a_spread_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "WHOLE", 7)
    monkeypatch.setattr(drawn, "SPREAD", 3)
    names = ("linearity_by_depth", "channel_states", "slopes", "beta_against_null")
    monkeypatch.setattr(rendering, "reported", lambda: [FIGURES[name] for name in names])
    run = eight(tmp_path / "run")
    text = rendering.render(run)
    kept = drawn.drawn_layers(run)
    assert {0, 7} < set(kept.index) < set(range(8))
    said = f"{len(kept)} of 8 layers are "
    assert text.count(f"{said}drawn, evenly by depth") == 1 + len(names)  # L by depth, and figures
    assert text.count(f"{said}listed, evenly by depth") == 2
    assert [int(cells[0]) for cells in rows_of(text)] == kept.index.to_list()
    assert len(table_of(text, "layers")) == 8
    assert text.count("layers.csv has all of them") == 1
    assert "<b>8</b> <span>layers</span>" in text
    for name in ("depth", "every_channel"):
        assert set(table_of(text, name)["layer"]) == set(kept["layer"])
    every = run.linearity(by="channel", columns="all")
    data = json.loads(Parsed(text).inside["script"][0])
    places = [
        (fields["data-layer"], fields["data-name"])
        for element, fields in Parsed(text).elements
        if element == "details"
    ]
    shown = [run.layer_names[layer, 0] for layer in kept["layer"]]
    assert places == [(str(place), known) for place, known in enumerate(shown)]
    for layer, own in zip(kept["layer"], data, strict=True):
        known = every.loc[every["layer"] == layer, "L"].to_list()
        assert own["columns"]["L"] == pytest.approx(known, rel=1e-5)


def test_figures_say_of_which_layers_their_numbers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "WHOLE", 7)
    monkeypatch.setattr(drawn, "SPREAD", 2)
    runs = [eight(tmp_path / name) for name in "ab"]
    kept = [drawn.drawn_layers(run)["layer"].to_list() for run in runs]
    states = acon_figures.channel_states(runs[0])
    assert f"{len(kept[0])} of 8 layers are drawn" in states.caption
    assert "all counts and ranks are of these" in states.caption
    # Of several runs what is drawn of any is drawn of all, and counted so.
    depth = acon_figures.linearity_by_depth(*runs)
    both = len({*kept[0], *kept[1]})
    for name in "ab":
        said = f"{runs[0].network} ({name}): {both} of 8 layers are drawn"
        assert both == 8 or said in depth.caption
    # Figures of one layer show any that is asked for, and say nothing of others.
    other = next(name for name in ("acts.2", "acts.4") if name not in kept[0])
    for name in ("channel_portrait", "measures_disagree"):
        caption = getattr(acon_figures, name)(runs[0], layer=other).caption
        assert f"layer {other} " in caption
        assert "are drawn, evenly" not in caption


def test_two_runs_of_one_network_are_two_in_every_figure(tmp_path: Path) -> None:
    runs = [eight(tmp_path / name) for name in "ab"]
    depth, name = linearity_by_depth(runs), runs[0].network
    assert depth["network"].unique().tolist() == [f"{name} (a)", f"{name} (b)"]
    for run, (_, own) in zip(runs, depth.groupby("network"), strict=True):
        expected = run.linearity()["L"]
        np.testing.assert_allclose(own.loc[own["measure"] == "L", "value"], expected)
    figure = acon_figures.linearity_by_depth(*runs)
    assert all(len(axes.containers) == 2 for axes in figure.axes)
    for one in ("slopes", "channel_portrait"):
        alone, both = (getattr(acon_figures, one)(*own).caption for own in (runs[:1], runs))
        assert both.replace(f"{name} (a)", name) == alone


def test_two_runs_of_very_many_layers_share_what_they_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: None
) -> None:
    monkeypatch.setattr(drawn, "WHOLE", 7)
    monkeypatch.setattr(drawn, "SPREAD", 3)
    runs = [eight(tmp_path / name) for name in "ab"]
    text = rendering.render(*runs)
    compared = re.search(r'<table id="differences".*?</table>', text, re.DOTALL)
    assert compared is not None
    links = re.findall(r'<a href="#(layer-\d+)">', compared.group())
    assert links == [f"layer-{place}" for place in drawn.drawn_layers(runs[0]).index]
    assert all(f'id="{link}"' in text for link in links)
    assert text.count("differences.csv has all of them") == 1
    assert table_of(text, "differences")["layer"].nunique() == 8
    data_of = [fields["data-layer"] for name, fields in Parsed(text).elements if name == "details"]
    assert data_of == [str(place) for place in range(len(data_of))]
