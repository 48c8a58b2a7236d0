"""Whether a run is complete, unique and unaltered."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from acon_analysis.errors import StoreError
from acon_analysis.runs.run import Run
from acon_analysis.runs.stored_run import CENSUS
from acon_analysis.screen import counted
from acon_analysis.store.folder import PARTS, unit_name
from acon_analysis.store.manifest import alteration
from acon_analysis.store.parquet import read_table

#: Tables of the whole run.
TABLES = (
    *(f"{name}.parquet" for name in ("samples", "channels", "histograms", "references")),
    CENSUS,
)

#: Names and SHA-256 of the parts of each finished unit; None for what is no mark.
Marks = dict[int, dict[str, str] | None]


@dataclass(frozen=True)
class Verification:
    """What `verify_run` found.

    ``problems`` are sentences, none for a sound run; ``units_done`` and ``units`` finished and
    expected units of work; ``samples`` are those listed, ``captured`` those with β, and of ``bad``
    ones the image could not be read.
    """

    problems: tuple[str, ...]
    units_done: int
    units: int
    samples: int
    captured: int
    bad: int

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_run(path: str | Path) -> Verification:
    """Check a run: every unit done, every file as it was written, every sample exactly once.

    Bad images (rows of ``errors/``) are no problem of the run; a folder without a run is a
    UsageError.
    """
    run = Run(path)
    marks = {unit: run.folder.unit_parts(unit) for unit in run.units}
    problems = [found] if (found := alteration(run.manifest)) else []
    problems += _unit_problems(run, marks)
    problems += _foreign_files(run, marks)
    captured, bad, counting = _count(run)
    problems += counting
    problems += _table_problems(run)
    if not run.complete and not problems:
        problems.append("the manifest is not finished; run the same capture command again")
    return Verification(
        tuple(problems),
        units_done=len(run.units),
        units=run.manifest["units"] or len(run.units),
        samples=run.manifest["samples"] or captured + bad,
        captured=captured,
        bad=bad,
    )


def _unit_problems(run: Run, marks: Marks) -> Iterator[str]:
    """Yield what is wrong with the units of work and their parts."""
    expected = run.manifest["units"] or 0
    if missing := expected - len(marks):
        first = islice((unit for unit in count() if unit not in marks), min(missing, 5))
        shown = ", ".join(map(str, first)) + (" ..." if missing > 5 else "")
        yield (
            f"{missing} of {counted(expected, 'unit')} not done ({shown}); "
            f"run the same capture command again"
        )
    recorded = run.manifest.get("parts", {})
    bar = tqdm(marks.items(), desc="verify", unit="unit", disable=None, leave=False)
    for unit, parts in bar:
        if parts is None:
            yield f"done/{unit_name(unit)}.json is no mark of a unit of this run"
            continue
        yield from run.folder.damage(parts)
        for name, digest in parts.items():
            if run.complete and recorded.get(name) != digest:
                yield f"{name} is not the part that the manifest records"
    for name in sorted(recorded.keys() - _written(marks)):
        yield f"{name} is recorded by the manifest, and no finished unit has written it"


def _written(marks: Marks) -> set[str]:
    """Return the names of the parts that finished units have written."""
    return {name for parts in marks.values() for name in parts or ()}


def _foreign_files(run: Run, marks: Marks) -> list[str]:
    """Return a sentence for each file that no finished unit has written."""
    known, names = _written(marks), {f"{unit_name(unit)}.json" for unit in marks}
    return [
        f"{kind}/{file.name} belongs to no finished unit"
        for kind in PARTS
        for file in sorted((run.path / kind).glob("*"))
        if f"{kind}/{file.name}" not in known and not file.name.startswith(".")
    ] + [
        f"done/{file.name} marks no unit of this run"
        for file in sorted((run.path / "done").glob("*"))
        if file.name not in names and not file.name.startswith(".")
    ]


def _count(run: Run) -> tuple[int, int, list[str]]:
    """Return captured and bad samples, and what is wrong with the sample ids."""
    problems, parts = [], []
    for kind in ("betas", "errors"):
        ids = []
        for file in sorted((run.path / kind).glob("*.parquet")):
            try:
                ids.append(read_table(file, ["sample_id"])["sample_id"].to_numpy())
            except StoreError as error:
                problems.append(str(error))
        parts.append(np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64))
    unique, counts = np.unique(np.concatenate(parts), return_counts=True)
    if (counts > 1).any():
        problems.append(f"there more than once: {counted(int((counts > 1).sum()), 'sample')}")
    expected = run.manifest["samples"]
    if expected is not None:
        inside = (unique >= 0) & (unique < expected)
        listed, extra = unique[inside], unique[~inside]
        if len(listed) < expected and run.complete:
            gaps = np.flatnonzero(listed != np.arange(len(listed)))
            first = gaps[0] if len(gaps) else len(listed)
            problems.append(
                f"missing: {counted(expected - len(listed), 'sample')}, the first is {first}"
            )
        if len(extra):
            problems.append(
                f"not in the list: {counted(len(extra), 'sample')}, the first is {extra[0]}"
            )
    return len(parts[0]), len(parts[1]), problems


def _table_problems(run: Run) -> Iterator[str]:
    """Yield what is wrong with the tables of a finished run."""
    recorded = run.manifest.get("tables", {})
    yield from run.folder.damage(recorded)
    for name in TABLES:
        if run.complete and name not in recorded and (run.path / name).exists():
            yield f"{name} is not recorded by the manifest"
