"""The page of a run in a real browser: no error, no violation of its policy, and it works."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import chromium
import reportpages
from acon_analysis.runs.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:.*untrained.*")

PROGRAM = chromium.find_chromium()
if PROGRAM is None:
    pytest.skip(
        f"no Chromium on this machine (looked for {', '.join(chromium.NAMES)})",
        allow_module_level=True,
    )

#: The names of the layers in the order in which the table shows them.
SHOWN = (
    "[...document.querySelectorAll('#layers tbody tr')].filter((row) => !row.hidden)"
    ".map((row) => row.cells[1].querySelector('a').textContent)"
)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    assert PROGRAM is not None
    folder = tmp_path_factory.mktemp("chromium")
    with chromium.browser(PROGRAM, folder) as page:
        yield page


@pytest.fixture
def opened(window: chromium.Page, hostile_report: tuple[Run, Path]) -> Iterator[chromium.Page]:
    """The page, freshly loaded; after every test nothing may have gone wrong."""
    window.size(1400, 1000)
    window.open(hostile_report[1])
    yield window
    assert window.problems() == []
    assert window.requested() == []


def click(page: chromium.Page, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).click()")


def test_hostile_names_are_shown_as_text(opened: chromium.Page) -> None:
    assert opened.run(SHOWN) == [reportpages.SCRIPT, reportpages.IMAGE]
    assert opened.run("document.title") == reportpages.TITLE
    assert opened.run("document.querySelectorAll('img, b[onclick], iframe, object').length") == 0
    assert reportpages.CLASS[:20] in opened.run("document.body.innerText")


def test_the_browser_enforces_the_policy(opened: chromium.Page) -> None:
    """What a hole in the escaping would bring in cannot run or load."""
    opened.run(
        """new Promise((done) => {
          window.refused = [];
          document.addEventListener("securitypolicyviolation", (event) => {
            refused.push(event.effectiveDirective);
            if (refused.length === 3) done();
          });
          const script = document.createElement("script");
          script.textContent = "window.pwned = true";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<img src='https://example.invalid/x'>" +
            "<p id='styled' style='color: red'>x</p>");
        })"""
    )
    assert opened.run("window.pwned === undefined")
    assert sorted(opened.run("refused")) == ["img-src", "script-src-elem", "style-src-attr"]
    assert len(opened.problems()) >= 3
    opened.events.clear()  # these violations were wanted


def test_sorting(opened: chromium.Page, hostile_report: tuple[Run, Path]) -> None:
    order = hostile_report[0].linearity().sort_values("L")["layer"].to_list()
    state = "document.querySelector('[data-key=L]').closest('th').getAttribute('aria-sort')"
    assert opened.run(state) == "none"
    click(opened, "#layers [data-key=L]")
    assert (opened.run(SHOWN), opened.run(state)) == (order, "ascending")
    click(opened, "#layers [data-key=L]")
    assert (opened.run(SHOWN), opened.run(state)) == (order[::-1], "descending")
    opened.run("document.querySelector('#layers [data-key=layer]').focus()")
    opened.press("Enter")
    assert opened.run(state) == "none"
    assert opened.run(SHOWN) == sorted(order)


def test_filtering(opened: chromium.Page) -> None:
    said = "document.querySelector('#shown').textContent"
    assert opened.run(said) == "2 of 2 layers"
    opened.run("document.querySelector('#find').focus()")
    opened.call("Input.insertText", text="<SCRIPT>")
    assert opened.run(SHOWN) == [reportpages.SCRIPT]
    assert opened.run(said) == "1 of 2 layers"
    opened.call("Input.insertText", text=" nothing like it")
    assert opened.run(SHOWN) == []
    assert not opened.run("document.querySelector('#nothing').hidden")


def test_a_layer_opens_and_lists_its_channels(
    opened: chromium.Page, hostile_report: tuple[Run, Path]
) -> None:
    click(opened, '#layers a[href="#layer-1"]')
    opened.run("new Promise((done) => setTimeout(done, 50))")
    assert opened.run("document.querySelector('#layer-1').open")
    click(opened, "#layer-1 button.channels")
    found = opened.run(
        "[...document.querySelectorAll('#layer-1 .every tbody tr')].map((row) => "
        "[...row.cells].slice(0, 3).map((cell) => Number(cell.dataset.v)))"
    )
    own = hostile_report[0].linearity(by="channel", columns="all")
    own = own[own["layer"] == reportpages.IMAGE][["channel", "L", "s_c"]]
    assert found == [pytest.approx(row, rel=1e-5) for row in own.to_numpy().tolist()]
    click(opened, "#layer-1 .every th:nth-child(3) button")
    first = "Number(document.querySelector('#layer-1 .every tbody th').dataset.v)"
    assert opened.run(first) == own.sort_values("s_c")["channel"].iloc[0]
    click(opened, "#all")
    assert opened.run("document.querySelectorAll('details.layer[open]').length") == 2


def test_csv_files_can_be_saved(
    opened: chromium.Page, hostile_report: tuple[Run, Path], tmp_path: Path
) -> None:
    opened.run(
        """(() => {
          window.saved = [];
          const make = URL.createObjectURL;
          URL.createObjectURL = (blob) => {
            blob.text().then((text) => saved.push(text));
            return make(blob);
          };
        })()"""
    )
    opened.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for selector in ("button[data-csv=layers]", "#layer-0 button[data-channels]"):
        click(opened, selector)
        opened.run("new Promise((done) => setTimeout(done, 150))")
    layers, channels = opened.run("saved")
    assert len(layers.splitlines()) == 1 + 2
    assert reportpages.SCRIPT in layers
    assert channels.splitlines()[0].startswith("channel,L,s_c")
    assert len(channels.splitlines()) == 1 + 4


def test_light_dark_and_phone(opened: chromium.Page, hostile_report: tuple[Run, Path]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(paper)
    opened.size(390, 844, dark=True, mobile=True)
    dark = opened.run(paper)
    assert dark != light
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")
    shown = "getComputedStyle(document.querySelector('figure .{}')).display"
    assert opened.run(shown.format("wide")) == "none"
    assert opened.run(shown.format("narrow")) == "block"
    for expected in (dark, light, dark):  # dark by choice, light by choice, as the system has it
        click(opened, "#theme")
        assert opened.run(paper) == expected
    axis = "getComputedStyle(document.querySelector('.narrow .s-ink')).stroke"
    assert opened.run(axis) != "rgb(34, 34, 34)"


def test_printing_opens_every_layer(opened: chromium.Page) -> None:
    opened.run("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.run("document.querySelectorAll('details.layer:not([open])').length") == 0
    opened.run("window.dispatchEvent(new Event('afterprint'))")
    assert opened.run("document.querySelectorAll('details.layer[open]').length") == 0
    assert opened.call("Page.printToPDF", preferCSSPageSize=True)["data"].startswith("JVBERi")
