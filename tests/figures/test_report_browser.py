"""The page of a run in a real browser: no error, no violation of its policy, and it works."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import chromium
import reportpages
from acon_analysis import family
from acon_analysis.plotdata.unit_curves import unit_facts
from acon_analysis.runs.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:.*untrained.*")

PROGRAM = chromium.find_chromium()
if PROGRAM is None:
    pytest.skip(
        f"no Chromium on this machine (looked for {', '.join(chromium.NAMES)})",
        allow_module_level=True,
    )

#: Words that are cut off or paler than 4.5 : 1, the least contrast of WCAG 2.2 for text.
ILLEGIBLE = """(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const bright = (color) => color.slice(0, 3)
    .map((part) => (part <= 10 ? part / 3294 : ((part / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0.05);
  const ground = (element) => {
    const color = numbers(getComputedStyle(element).backgroundColor);
    return color[3] === 0 ? ground(element.parentElement) : color;
  };
  const found = [], root = document.documentElement;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, element = text.parentElement;
    const range = document.createRange();
    range.selectNodeContents(text);
    const box = range.getBoundingClientRect();
    if (!text.data.trim() || !box.width || element.closest(".hidden, .skip")) continue;
    const style = getComputedStyle(element), drawing = element.closest("svg");
    const [dark, light] = [numbers(drawing ? style.fill : style.color), ground(element)]
      .map(bright).sort((one, other) => one - other);
    if (light / dark < 4.5) found.push(`pale: ${text.data}`);
    const frame = drawing ? drawing.getBoundingClientRect() : new DOMRect(0, 0, root.clientWidth);
    const within = box.left >= frame.left - 1 && box.right <= frame.right + 1;
    if (!within && !element.closest(".scroll, nav")) found.push(`cut: ${text.data}`);
  }
  return found;
})()"""

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


def test_layers_without_linear_channels_can_be_hidden(
    opened: chromium.Page, hostile_report: tuple[Run, Path]
) -> None:
    table = hostile_report[0].linearity(columns="all")
    click(opened, "#linear")
    assert opened.run(SHOWN) == table.loc[table["linear"] > 0, "layer"].tolist()


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


def test_points_show_their_values_and_lead_to_their_layer(
    opened: chromium.Page, hostile_report: tuple[Run, Path]
) -> None:
    points = "[...document.querySelectorAll('.wide .depth a')]"
    value = hostile_report[0].linearity()["L"][1]
    title = opened.run(f"{points}[1].querySelector('title').textContent")
    assert title.startswith(f"{reportpages.IMAGE}: L = {value:.3f} (")
    opened.run(f"{points}[1].focus()")
    opened.press("Enter")
    opened.run("new Promise((done) => setTimeout(done, 50))")
    assert opened.run("location.hash") == "#layer-1"
    assert opened.run("document.querySelector('#layer-1').open")
    assert opened.run("getComputedStyle(document.querySelector('nav')).position") == "sticky"


def test_definitions_are_shown_to_the_keyboard(opened: chromium.Page) -> None:
    shown = "getComputedStyle(document.querySelector('#layers-L')).display"
    assert opened.run(shown) == "none"
    opened.run("document.querySelector('#layers [data-key=channels]').focus()")
    opened.press("Tab")
    assert opened.run("document.activeElement.dataset.key") == "L"
    assert opened.run(shown) == "block"
    assert "0.733" in opened.run("document.querySelector('#layers-L').textContent")


def test_a_slider_redraws_the_unit(opened: chromium.Page, hostile_report: tuple[Run, Path]) -> None:
    run = hostile_report[0]
    facts = run.linearity("channel", columns="all").merge(
        run.channels[["layer", "channel", "p1", "p2"]], on=["layer", "channel"]
    )
    unit = facts[(facts["layer"] == reportpages.IMAGE) & (facts["channel"] == 3)].iloc[0]
    gauss = "document.querySelector('#layer-1 .gauss').textContent"
    static = opened.run(gauss)
    before = "document.querySelector('#layer-1 .curve').getAttribute('d')"
    click(opened, "#layer-1 summary")
    drawn = opened.run(before)
    opened.run("new Promise((done) => setTimeout(done, 50))")
    assert opened.run(gauss) == static != ""  # by the page's program and by its script
    opened.run(
        """(() => {
          const set = (selector, value) => {
            const input = document.querySelector(`#layer-1 ${selector}`);
            input.value = value;
            input.dispatchEvent(new Event("input", { bubbles: true }));
          };
          set("input.channel", 3);
          set("input.beta", 1.5);
        })()"""
    )
    assert opened.run("document.querySelector('#layer-1 .which').textContent") == "3"
    assert opened.run("document.querySelector('#layer-1 .at').textContent") == "1.50"
    points = [tuple(map(float, point.split(" "))) for point in opened.run(before)[1:].split("L")]
    assert opened.run(before) != drawn
    p1, p2 = unit["p1"], unit["p2"]
    x = np.linspace(unit["min_x"], unit["max_x"], len(points))
    ends = np.concatenate([p1 * x, p2 * x, [0.0]])
    y = family.acon_c(x, p1, p2, 1.5)
    expected = 180 * (ends.max() - y) / (ends.max() - ends.min())
    assert [down for _, down in points] == pytest.approx(expected.tolist(), abs=0.1)
    index = unit_facts(p1, p2, 1.5, unit["mean_x"], unit["std_x"])["L"]
    said = opened.run("document.querySelector('#layer-1 .gauss').textContent")
    assert said == f"L = {index:.3f}"


def test_figures_can_be_saved(opened: chromium.Page, tmp_path: Path) -> None:
    opened.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for kind in ("svg", "png"):
        click(opened, f"#figure-channel_spread button[data-as={kind}]")
        file = tmp_path / f"figure-channel_spread.{kind}"
        for _ in range(100):
            if file.exists() and file.stat().st_size:
                break
            opened.run("new Promise((done) => setTimeout(done, 50))")
    drawing = ET.parse(tmp_path / "figure-channel_spread.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    strokes = {one.get("stroke") for one in drawing.iter()} - {None, "none"}
    assert len(strokes) > 2  # the colours of the theme are written out
    with Image.open(tmp_path / "figure-channel_spread.png") as picture:
        assert picture.width == 2000
        assert len(set(picture.convert("L").resize((50, 20)).get_flattened_data())) > 5


def test_tables_are_cards_on_a_phone(opened: chromium.Page) -> None:
    opened.size(390, 844, mobile=True)
    boxes = opened.run(
        "[...document.querySelectorAll('#layers tbody tr')].map((row) => "
        "[row.scrollWidth <= innerWidth, getComputedStyle(row).display, "
        "getComputedStyle(row.cells[3], '::before').content])"
    )
    assert boxes == [[True, "grid", '"L "']] * 2


def test_the_sections_are_one_line_on_a_phone_that_follows_the_page(
    opened: chromium.Page, hostile_report: tuple[Run, Path]
) -> None:
    opened.size(390, 844, mobile=True)
    opened.open(hostile_report[1])
    bar = "document.querySelector('nav')"
    assert opened.run(f"{bar}.offsetHeight") < 50
    assert opened.run(f"{bar}.scrollLeft") == 0
    assert opened.run(f"{bar}.scrollWidth > innerWidth")
    opened.run("scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
    opened.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
    left, right = opened.run(
        f"(({{left, right}}) => [left, right])"
        f"({bar}.querySelector('[aria-current]').getBoundingClientRect())"
    )
    assert 0 <= left < right <= 390
    assert opened.run(f"{bar}.getBoundingClientRect().top") == 0


def test_light_dark_and_phone(opened: chromium.Page, hostile_report: tuple[Run, Path]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(paper)
    opened.size(390, 844, dark=True, mobile=True)
    dark = opened.run(paper)
    assert dark != light
    assert opened.run("document.documentElement.scrollWidth <= 390")
    shown = "getComputedStyle(document.querySelector('figure .{}')).display"
    assert opened.run(shown.format("wide")) == "none"
    assert opened.run(shown.format("narrow")) == "block"
    for expected in (dark, light, dark):  # dark by choice, light by choice, as the system has it
        click(opened, "#theme")
        assert opened.run(paper) == expected
    axis = "getComputedStyle(document.querySelector('.narrow .s-ink')).stroke"
    assert opened.run(axis) != "rgb(34, 34, 34)"


def test_every_word_is_legible_at_both_widths_light_and_dark(opened: chromium.Page) -> None:
    opened.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for width in (1280, 390):
        for dark in (False, True):
            opened.size(width, 844, dark=dark, mobile=width < 500)
            assert opened.run(ILLEGIBLE) == [], (width, dark)
    opened.run(
        "document.body.insertAdjacentHTML('beforeend', '<a class=s-grid>' + 'x'.repeat(999))"
    )
    opened.run("document.querySelector('a.s-grid').style.cssText = 'color: #888; white-space: pre'")
    assert [one.partition(":")[0] for one in opened.run(ILLEGIBLE)] == ["pale", "cut"]


def test_printing_opens_every_layer(opened: chromium.Page) -> None:
    opened.run("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.run("document.querySelectorAll('details.layer:not([open])').length") == 0
    opened.run("window.dispatchEvent(new Event('afterprint'))")
    assert opened.run("document.querySelectorAll('details.layer[open]').length") == 0
    assert opened.call("Page.printToPDF", preferCSSPageSize=True)["data"].startswith("JVBERi")
