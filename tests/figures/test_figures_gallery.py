import re
from pathlib import Path

import pytest

from acon_analysis.errors import UsageError
from acon_analysis.studies import results
from acon_figures import FIGURES
from acon_figures.gallery import index_page, main
from acon_figures.inputs import IN_WORDS, PROVIDES
from acon_hooks.figure_inputs import figure_sources

GALLERY = Path(__file__).parents[2] / "figures" / "gallery"


def test_the_index_shows_what_the_folder_holds(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no PNG file of a registered figure"):
        index_page(tmp_path)
    for name in ("slopes", "paper_tables_counts", "unknown"):
        (tmp_path / f"{name}.png").touch()
    (tmp_path / "slopes.txt").write_text("Words of a caption.\n", encoding="utf-8")
    main(str(tmp_path))
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert '<a href="slopes.png"><img src="slopes.png" width="280" alt="Slopes: learned' in page
    assert re.findall(r'href="(\w+)\.txt"', page) == ["slopes"]
    assert "(counts)<br><code>paper_tables</code>" in page
    assert page.count("<td") == page.count("</td>") == 2
    assert page.count("<tr>") == page.count("</tr>") == page.count("<table>") == 2
    assert page.index("## Measured") < page.index("## From numbers")
    assert "unknown" not in page
    assert "From formulas" not in page


def test_every_frame_comes_from_somewhere() -> None:
    given = {*PROVIDES, *figure_sources()}
    own = {name for spec in FIGURES.values() for name in spec.frames if spec.own(name) is not None}
    assert {name for spec in FIGURES.values() for name in spec.frames} == given | own
    assert PROVIDES.keys() & figure_sources().keys() == set()
    assert {name for spec in FIGURES.values() for name in spec.required} - own == set(IN_WORDS)


def test_the_gallery_is_complete_and_its_index_current() -> None:
    names = {
        f"{spec.name}_{suffix}" if suffix else spec.name
        for spec in FIGURES.values()
        if "epochs" not in spec.needs or "beta_over_epochs" in results.available()
        for suffix in ("", *spec.variants)
    }
    drawn = {path.stem for path in GALLERY.glob("*.png")}
    assert names == drawn, "run `make gallery`"
    assert index_page(GALLERY) == (GALLERY / "README.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in GALLERY.glob("*.png")) < 5_000_000
