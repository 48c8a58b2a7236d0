"""From a captured run to the bytes of its page."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from tqdm.auto import tqdm

from acon_analysis.errors import UsageError
from acon_analysis.files import atomic_write
from acon_analysis.plotdata.networks import with_folders
from acon_analysis.plotdata.overview import channel_overview, layer_overview
from acon_analysis.runs.run import Run, as_run
from acon_analysis.screen import counted
from acon_analysis.selection import require_columns
from acon_analysis.statistics.sentences import sentence
from acon_figures.inputs import Inputs
from acon_figures.names import visible
from acon_figures.plots.network_strip import DRAWN
from acon_figures.report.comparison import comparison
from acon_figures.report.context import run_page
from acon_figures.report.depth import SIZES, depth_chart
from acon_figures.report.numbers import MOST_PACKED_LAYERS
from acon_figures.report.pictures import Numbers, Picture, numbers, picture, reported
from acon_figures.report.words import HINTS, words

ENDINGS = (".html", ".htm")

#: Of the ids of what belongs to each run.
PREFIXES = ("", "second-")


def write_report(
    run: Run | str | Path,
    path: str | Path,
    *,
    second: Run | str | Path | None = None,
    title: str | None = None,
    blocks: pd.DataFrame | None = None,
    progress: bool = False,
) -> Path:
    """Write one self-contained HTML page about a captured run, or about two.

    The page holds its figures, tables, style and script, loads nothing, and a
    Content-Security-Policy forbids it to; names from the run are text in it, whatever they hold.
    The same run, given by the same path, gives the same bytes.

    Parameters
    ----------
    run : Run, str or Path
        A captured run, with or without moments, of any kinds of layers; it may be incomplete.
    path : str or Path
        Ends in ``.html``; an existing page is replaced in one step.
    second : Run, str or Path, optional
        A run to compare the first one with (`acon_analysis.runs.compare.compare_runs`); the page
        holds both.
    title : str, optional
        By default the runs' models and data.
    blocks : pandas.DataFrame, optional
        From `acon_analysis.block_linearity` of the first run's network, to be drawn as well
        (`network_strip`): a run holds no network whose blocks could be measured.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        If there is no run, the path does not end in ``.html`` or is a folder, or the blocks are
        those of another network.
    AconError
        If no image of the run has been captured, or the table of blocks lacks a column.
    """
    target = Path(path)
    if target.suffix.lower() not in ENDINGS:
        raise UsageError(f"the page must end in .html; got {str(target)!r}")
    if target.is_dir():
        raise UsageError(f"{str(target)!r} is a folder; give the name of a page")
    given = [run] if second is None else [run, second]
    runs = [as_run(one) for one in given]
    page = render(*runs, title=title, blocks=blocks, progress=progress)
    data = page.encode("utf-8", "backslashreplace")

    atomic_write(target, data)
    return target


def render(
    *runs: Run, title: str | None = None, blocks: pd.DataFrame | None = None, progress: bool = False
) -> str:
    """Return the page of one run or of two as text; see `write_report`."""
    for run in runs:
        run.require_samples()
    if blocks is not None:
        _require_own(blocks, runs[0])
    specs, inputs = reported(), Inputs(runs, {"blocks": lambda _run: blocks})
    steps = 1 + len(runs) + len(specs)
    with tqdm(total=steps, desc="report", unit="step", disable=not progress, leave=False) as bar:
        offered: dict[str, Numbers] = {}
        pages = []
        for run, prefix in zip(runs, PREFIXES, strict=False):
            pages.append(_page(run, prefix, offered))
            bar.update()
        titles = [one["title"] for one in pages]
        for one, called in zip(pages, with_folders(titles, titles, runs), strict=True):
            one["title"] = visible(called)
        pictures = []
        for spec in specs:
            bar.set_postfix_str(spec.name)
            shown = picture(spec, inputs, offered)
            pictures += [] if shown is None else [shown]
            bar.update()
        page = _assets() | {
            "title": visible(title) if title else " and ".join(one["title"] for one in pages),
            "runs": pages,
            "charts": [depth_chart([one["layers"] for one in pages], size) for size in SIZES],
            "compared": _compared(runs, pages[0]["layers"], offered),
            "hints": HINTS,
            "glossary": pages[0]["signs"] + words(_said(pages, pictures)),
            "data": Markup(_for_script([layer for one in pages for layer in one["channels"]])),
            "pictures": pictures,
            "offered": offered,
            # Each once, those that the page carries.
            "tables": list({t.name: t for t in offered.values() if t.data is not None}.values()),
        }
        text = _environment().get_template("report.html.j2").render(page)
        bar.update()
    return text


def _page(run: Run, prefix: str, offered: dict[str, Numbers]) -> dict[str, Any]:
    """Return what the page shows of one run, and offer its table of layers."""
    splits = None if run.per_sample_layers.empty else run.variance_split()
    channels = channel_overview(run)
    layers = layer_overview(run, channels=channels, splits=splits)
    offered[f"{prefix}layers"] = numbers(f"{prefix}layers", layers, MOST_PACKED_LAYERS)
    return run_page(run, layers, channels, splits, prefix)


def _said(pages: Sequence[dict[str, Any]], pictures: Sequence[Picture]) -> str:
    """Return the texts of a page whose words may need an explanation."""
    texts = [one[name] for one in pages for name in ("findings", "layers", "census")]
    return f"{texts} {[one.caption for one in pictures]}"


def _compared(
    runs: Sequence[Run], layers: Sequence[dict[str, Any]], offered: dict[str, Numbers]
) -> dict[str, Any] | None:
    """Return what the page says of two runs together, and offer its table; None for one run."""
    if len(runs) < 2:
        return None
    first, second = runs
    found = comparison(first, second, {row["key"]: row["id"] for row in layers})
    if found["table"] is not None:
        offered["differences"] = numbers("differences", found["table"])
    return found


def _require_own(blocks: pd.DataFrame, run: Run) -> None:
    """Raise unless a table of blocks can be drawn and is of the run's network."""
    require_columns(blocks, DRAWN, "the table of blocks")
    others = sorted({str(name) for name in blocks.get("network", ())} - {run.model})
    if others:
        raise UsageError(
            f"the table of blocks is of the network {others[0]!r}, the run of {run.model!r}"
        )


def _for_script(data: Any) -> str:
    """Return JSON that no text in it can end the script element of."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _assets() -> dict[str, str]:
    """Return the page's style, script and policy, and the version that made it."""
    folder = files("acon_figures.report") / "templates"
    style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("style.css", "script.js")
    )
    return {
        "version": version("acon-analysis"),
        "policy": _policy(style, script),
        "style": Markup(style),
        "script": Markup(script),
    }


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: nothing but this style, this script, inline pictures."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("acon_figures.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"sentence": sentence, "counted": counted, "parted": _parted}
    return environment


def _parted(name: str) -> Markup:
    """Let a long name break before the parts of its path."""
    return Markup("<wbr>").join(re.split(r"(?=[.:/])", name))
