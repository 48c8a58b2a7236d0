"""What holds for every registered figure, whatever it shows."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

import acon_figures
import figureframes
from acon_analysis.errors import AconError, UsageError
from acon_analysis.runs.run import Run
from acon_figures import FIGURES, save, style
from figurechecks import problems, texts

LETTERS = re.compile(r"\([a-d]\)")
#: What the tests below this one do not draw.
CASES: list[tuple[Any, ...]] = [(name, {}, "double", "talk") for name in FIGURES] + [
    (name, dict(variant), "double", "paper")
    for name, spec in FIGURES.items()
    for variant in spec.variants.values()
]


@pytest.mark.parametrize(("name", "arguments", "width", "context"), CASES)
def test_nothing_is_cut_off_and_no_texts_overlap(
    name: str, arguments: dict[str, Any], width: str, context: str
) -> None:
    check(figureframes.draw(name, width=width, context=context, **arguments), width, context)


def check(figure: style.AconFigure, width: str, context: str) -> None:
    """Fail unless all text of a figure can be read and its caption names what is there."""
    assert isinstance(figure, Figure)
    scale = 1.0 if context == "paper" else style.TALK_SIZE
    assert figure.get_size_inches()[0] == pytest.approx(style.WIDTHS[width] * scale)
    assert problems(figure) == []
    # Panels stand next to or below one another: captions call them by letters that they bear.
    assert not re.search(r"\b(Left|Middle|Right)\b|\((left|right)\)", figure.caption)
    shown = " ".join(text for text, _ in texts(figure))
    assert set(LETTERS.findall(figure.caption)) <= set(LETTERS.findall(shown))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_described_and_leaves_no_trace(name: str) -> None:
    spec = FIGURES[name]
    assert spec.name == name == spec.function.__name__
    assert inspect.unwrap(getattr(acon_figures, name)) is spec.function
    assert spec.kind in ("formula", "printed numbers", "measured")
    assert 20 < len(spec.description) < 100
    assert "\n" not in spec.description
    assert set(spec.needs) | set(spec.options) <= set(inspect.signature(spec.function).parameters)
    before = dict(mpl.rcParams)
    figure = figureframes.draw(name, width="double")
    assert dict(mpl.rcParams) == before
    assert len(figure.caption) > 40
    check(figure, "double", "paper")
    manager = sys.modules.get("matplotlib.pyplot")
    assert manager is None or manager.get_fignums() == []


IN_ALL_FORMATS = ("beta_distributions", "acon_c_example", "improvements", "frelu_surface")
USERS = {
    "font.size": 20.0, "axes.facecolor": "black", "lines.linewidth": 9.0, "axes.grid": False,
    "legend.loc": "center", "axes.titlesize": 3.0, "xtick.labelsize": 30.0,
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_another_day_and_other_settings_give_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SVG holds every text and line; the other formats of all figures would take a minute more.
    formats = ["png", "pdf", "svg"] if name in IN_ALL_FORMATS else ["svg"]
    figure = figureframes.draw(name, width="single")
    one = save(figure, tmp_path / "one", name, formats, dpi=50)
    check(figure, "single", "paper")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "915148800")
    users: dict[Any, Any] = USERS
    if name in IN_ALL_FORMATS:  # drawn twice, as matplotlib does by itself
        monkeypatch.setattr(style.AconFigure, "draw", Figure.draw)
    with mpl.rc_context(users):
        again = figureframes.draw(name, width="single")
        other = save(again, tmp_path / "other", name, formats, dpi=50)
    assert [path.suffix[1:] for path in one] == [*formats, "txt"]
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_an_unknown_figure_is_explained() -> None:
    with pytest.raises(UsageError, match="no figure 'beta_distribution'; did you mean 'beta_dis"):
        acon_figures.find("beta_distribution")


def test_saved_files_hold_text_as_text_and_are_readable(tmp_path: Path) -> None:
    figure = figureframes.draw("beta_distributions")
    for path in save(figure, tmp_path / "new" / "folder", "beta"):
        assert path.stat().st_mode & 0o444 == 0o444 & ~_umask()
    svg = (tmp_path / "new/folder/beta.svg").read_text(encoding="utf-8")
    assert "switching factor β</text>" in svg
    pdf = (tmp_path / "new/folder/beta.pdf").read_bytes()
    assert b"/Type0" in pdf
    assert b"CreationDate" not in pdf
    assert (tmp_path / "new/folder/beta.txt").read_text(encoding="utf-8").startswith("Densities")
    assert not list((tmp_path / "new/folder").glob(".*"))


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_save_takes_a_caption_and_any_figure(tmp_path: Path) -> None:
    paths = save(Figure(), tmp_path, "plain", "png", caption="words")
    assert [path.name for path in paths] == ["plain.png", "plain.txt"]
    assert [path.name for path in save(Figure(), tmp_path, "bare", ["svg"])] == ["bare.svg"]


def test_save_explains_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no format 'jpeg'; .*'png'"):
        save(Figure(), tmp_path, "x", ["jpeg"])
    with pytest.raises(UsageError, match="'a/b' is not a plain file name"):
        save(Figure(), tmp_path, "a/b")
    (tmp_path / "file").touch()
    with pytest.raises(AconError, match="cannot write the figure 'x'"):
        save(Figure(), tmp_path / "file", "x")


def test_a_failed_save_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_text("old")
    figure = Figure()
    monkeypatch.setattr(figure, "savefig", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(figure, tmp_path, "x", "png")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert (tmp_path / "x.png").read_text() == "old"


def test_unknown_context_and_width_are_explained() -> None:
    with pytest.raises(UsageError, match="no context 'tlk'; did you mean 'talk'"):
        acon_figures.function_and_derivatives(context="tlk")
    with pytest.raises(UsageError, match=r"no width 'triple'; .*'single'"):
        acon_figures.function_and_derivatives(width="triple")
    with pytest.raises(UsageError, match=r"width of 0\.5 inch"):
        acon_figures.function_and_derivatives(width=0.5)


def test_notebooks_show_a_figure_and_its_caption(digits_run: Run, tmp_path: Path) -> None:
    display = pytest.importorskip("IPython.display")
    outputs: list[dict[str, Any]] = []
    figure = digits_run.plot("channel_states")
    figure.caption += " <script>"
    with mock.patch.object(display, "display", lambda one, raw: outputs.append(one)):
        figure._ipython_display_()
        figureframes.draw("function_and_derivatives")._ipython_display_()
    assert [one["image/png"][:4] for one in outputs[::2]] == [b"\x89PNG"] * 2
    named, own = (one["text/html"] for one in outputs[1::2])
    assert "><b>Dead and saturated channels.</b> The 256 channels of digits_metaacon" in named
    assert "&lt;script&gt;" in named
    assert "<b>" not in own
    assert outputs[1]["text/plain"] == f"Dead and saturated channels {figure.caption}"
    save(figure, tmp_path, "x", ["png"])  # it is a matplotlib Figure as before
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_drawing_loads_no_torch() -> None:
    # One figure each with frames, with seaborn, with scipy, with an experiment.
    names = ["beta_distributions", "improvements", "relu_like", "maxout_learned"]
    code = (
        f"import sys, acon_figures.drawing, figureframes as g\n"
        f"[g.draw(name) for name in {names}]\n"
        "print('torch' in sys.modules, 'acon_hooks' in sys.modules)"
    )
    assert _output(code) == ["False", "False"]
    # The check itself can fail.
    stub = "import sys; sys.modules['torch'] = type(sys)('torch')"
    assert _output(f"{stub}; print('torch' in sys.modules)") == ["True"]


def _output(code: str) -> list[str]:
    here = Path(__file__).parents[1] / "support"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
