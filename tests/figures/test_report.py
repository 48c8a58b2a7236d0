"""The page of a run: what it says, what it never does, and for which runs there is one."""

import base64
import hashlib
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import figureframes
import reportpages
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.overview import headline_frame, layer_overview
from acon_analysis.runs.compare import compare_runs, comparison_text
from acon_analysis.runs.run import Run, open_run
from acon_analysis.statistics.findings import findings
from acon_analysis.statistics.sentences import sentence
from acon_analysis.statistics.verdicts import verdict_text
from acon_figures.report import context, rendering, units, write_report
from acon_figures.report.pictures import reported
from acon_hooks.captures.capturing import capture
from captures import images, tiny
from commands import status
from reportpages import Parsed, rows_of, table_of

pytestmark = pytest.mark.filterwarnings("ignore:.*untrained.*")


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
    assert html.escape(reportpages.TITLE) in page
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
    assert len(page.encode()) < 1_500_000
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
    assert status("report", "a", "b", "c") == 2
    assert "a report is of one run or of two; got 3" in capsys.readouterr().err


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


def test_the_dotted_line_of_two_runs_is_named_for_both(tmp_path: Path) -> None:
    relu = nn.Sequential(nn.Flatten(), nn.ReLU()).eval()
    leaky = nn.Sequential(nn.Flatten(), nn.Identity(), nn.LeakyReLU(0.2)).eval()
    runs = [
        capture(model, images(8), out=tmp_path / name, progress=False)
        for name, model in (("relu", relu), ("leaky", leaky))
    ]
    assert ">ReLU on Gaussian inputs: 0.733<" in rendering.render(runs[0])
    both = html.unescape(rendering.render(*runs))
    assert ">each layer's function on Gaussian inputs<" in both
    assert ">ReLU on Gaussian inputs" not in both


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
