"""Alters runs and plans, with right hashes, and checks what every command that reads them does.

``python tests/support/run_fuzz.py --seconds 3600`` for an hour of it. Whatever stands in a file, a
command must end within 60 s and 1.5 GB, with one readable line or what it was asked for, and write
nothing elsewhere. Only numbers in a run that its hashes agree with can be believed wrongly.
"""

import argparse
import contextlib
import copy
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import acon_hooks.figure_inputs  # noqa: F401  loaded before the forks
from acon_analysis.cli import main as acon
from acon_analysis.errors import AconError
from acon_analysis.store.manifest import manifest_text
from acon_figures.registry import FIGURES
from acon_hooks import load_plan
from acon_hooks.replacement.linearizing import load_linearized

MOST_SECONDS, MOST_BYTES = 60, 1.5e9
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -0.5, math.nan, math.inf, "", "x", "1",
    "\ud800", "a\nb\x1b[31m", "<b>", "../../etc", "=1", "A" * 5000, [], {}, [[]],
    {"a": 1}, "digits",
)  # fmt: skip
NUMBERS = (
    math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -1.0, 0.0, 1.0, 2.0**62, -(2.0**62),
)  # fmt: skip
TYPES: tuple[Any, ...] = (
    pa.string(), pa.large_string(), pa.binary(), pa.float16(), pa.float32(), pa.float64(),
    pa.int8(), pa.int64(), pa.uint64(), pa.bool_(), pa.decimal128(38, 3), pa.timestamp("ns"),
    pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.float64()), pa.null(),
)  # fmt: skip
RUN_FIGURES = [spec.name for spec in FIGURES.values() if spec.frames]


def alter_json(content: Any, choice: random.Random) -> Any:
    """Return JSON with some values replaced, removed, repeated or nested."""
    content = copy.deepcopy(content)
    for _ in range(choice.choice((1, 1, 1, 2, 5))):
        paths = [path for path in nodes(content) if path]
        if not paths:
            break
        *above, last = choice.choice(paths)
        target = content
        for step in above:
            target = target[step]
        how = choice.randrange(6)
        if how == 0:
            del target[last]
        elif how == 1 and isinstance(target, list):
            target.append(target[last])
        elif how == 1:
            target[choice.choice(("x", "\ud800", "<b>", ""))] = target[last]
        elif how == 2:
            target[last] = [target[last]]
        else:
            target[last] = choice.choice(VALUES)
    return content


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths to everything in JSON, of long lists to the first six items."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:6]) \
        if isinstance(value, list) else ()  # fmt: skip
    for key, inner in items:
        yield from nodes(inner, (*path, key))


def as_text(content: Any, choice: random.Random) -> bytes:
    """Return JSON as bytes, now and then odd ones."""
    text = json.dumps(content)
    how = choice.randrange(25)
    odd = {
        0: "[" * 100_000 + "]" * 100_000, 1: '{"a":' * 5000 + "1" + "}" * 5000, 2: "\ufeff" + text,
        3: text.replace("{", '{"format": "x", "format": 1, ', 1), 4: text + text, 5: text[:-9],
        6: text.replace(": 1", ": " + "9" * 5000, 1), 7: text.replace(": 0", ": 1e999", 1),
    }  # fmt: skip
    return odd.get(how, text).encode("utf-16" if how == 8 else "utf-8", "backslashreplace")


def alter_table(table: pa.Table, choice: random.Random) -> pa.Table:
    """Return a table with a column, or some of its values, changed."""
    at = choice.randrange(table.num_columns)
    name, column, rows = table.column_names[at], table.column(at), table.num_rows
    how = choice.randrange(11)
    if how == 0:
        return table.remove_column(at)
    if how == 1:
        return table.slice(0, choice.choice((0, 1, max(rows - 1, 0))))
    if how == 2:
        return pa.concat_tables([table, table.slice(choice.randrange(rows + 1))])
    if how == 3:
        return table.take(pa.array(choice.sample(range(rows), rows), pa.int64()))
    if how == 4:
        return table.append_column(choice.choice((name, "x", "", "layer")), column)
    if how == 5:
        new = choice.choice(("", "x", "sample_id", "\x1b[0m", "<i>", "layer"))
        return table.rename_columns(
            [new if i == at else n for i, n in enumerate(table.column_names)]
        )
    if how == 6:
        return table.set_column(at, name, column.cast(choice.choice(TYPES), safe=False))
    if how == 7:
        return table.set_column(at, name, pa.array([choice.choice(VALUES[:13])] * rows))
    return table.set_column(at, name, altered_values(column, choice))


def altered_values(column: pa.ChunkedArray, choice: random.Random) -> pa.Array:
    """Return a column of the same type with one value, or all of them, replaced."""
    values = column.to_pylist()
    places = range(len(values)) if choice.random() < 0.3 else [choice.randrange(len(values))]
    listed = pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type)
    kind = column.type.value_type if listed else column.type
    for place in places:
        new: Any = choice.choice(("", "x", "<b>", "=1", "\x00", "A" * 3000, "0", None))
        if pa.types.is_floating(kind):
            new = choice.choice(NUMBERS)
        elif pa.types.is_integer(kind):
            new = choice.choice((-1, 0, 1, 127, 2 ** (kind.bit_width - 1) - 1, None))
        elif pa.types.is_boolean(kind):
            new = choice.choice((True, False, None))
        if listed and values[place]:
            values[place] = [*values[place]]
            values[place][choice.randrange(len(values[place]))] = new
        else:
            values[place] = new
    return pa.array(values, column.type)


def rewrite(path: Path, choice: random.Random) -> None:
    """Alter a Parquet file once to thrice, or its bytes."""
    if choice.random() < 0.1:
        content = bytearray(path.read_bytes())
        content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
        path.write_bytes(content)
        return
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):  # altered before
        return
    for _ in range(choice.choice((1, 1, 2, 3))):
        try:
            table = alter_table(table, choice)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, IndexError):
            continue
    try:
        pq.write_table(table, path)
    except pa.ArrowException:
        path.write_bytes(b"PAR1")


def sign(run: Path) -> None:
    """Give a run the hashes of what is in it."""

    def digest(name: str) -> str:
        return hashlib.sha256((run / name).read_bytes()).hexdigest()

    manifest = json.loads((run / "manifest.json").read_bytes())
    identity = json.dumps(manifest.get("identity"), sort_keys=True).encode()
    manifest["run_id"] = hashlib.sha256(identity).hexdigest()[:16]
    for kind in ("parts", "tables"):
        for name in manifest.get(kind) or {}:
            if (run / name).is_file():
                manifest[kind][name] = digest(name)
    (run / "manifest.json").write_bytes(manifest_text(manifest))
    for mark in (run / "done").glob("*.json"):
        found = json.loads(mark.read_bytes())
        found["run_id"] = manifest["run_id"]
        found["parts"] = {name: digest(name) for name in found["parts"]}
        mark.write_text(json.dumps(found))


def alter_run(run: Path, choice: random.Random) -> None:
    """Alter a run's manifest, a mark, its parts and tables; mostly with hashes that agree."""
    how = choice.random()
    if how < 0.6:
        for _ in range(choice.choice((1, 1, 3))):
            rewrite(choice.choice(sorted(run.rglob("*.parquet"))), choice)
    if how > 0.5:
        path = choice.choice([*sorted(run.rglob("*.json")), *[run / "manifest.json"] * 4])
        content = alter_json(json.loads(path.read_bytes()), choice)
        path.write_bytes(json.dumps(content).encode())
    if choice.random() < 0.9:
        try:
            sign(run)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, UnicodeError):
            return
    if choice.random() < 0.05:
        path = choice.choice(sorted(run.rglob("*.json")))
        path.write_bytes(as_text(json.loads(path.read_bytes()), choice))


def cases(folder: Path, base: Path, choice: random.Random) -> list[list[str]]:
    """Make a case in a folder; return the commands that read it."""
    if choice.random() < 0.2:
        shutil.copytree(base / "lin", folder / "lin")
        plan = folder / "lin" / "plan.json"
        plan.write_bytes(as_text(alter_json(json.loads(plan.read_bytes()), choice), choice))
        return [["load"]]
    shutil.copytree(base / "run", folder / "run")
    alter_run(folder / "run", choice)
    data = "digits_metaacon --data digits --limit"
    base_run = str(base / "run")
    cheap = [
        *(f"summary run {options}" for options in (
            "--draws 0", "--draws 2", "--by channel --all", "--by sample --format json",
            "--by channel --format csv",
        )),
        "verify run", f"compare run {base_run}", f"compare {base_run} run",
    ]  # fmt: skip
    dear = [
        "report run --out r.html", f"report run {base_run} --out r.html",
        *(f"figures {name} --run run --format svg" for name in choice.sample(RUN_FIGURES, 3)),
        f"capture {data} 24 --unit 12 --out run --threads 1",
        f"linearize {data} 8 --run run --out lin --budget 10",
    ]  # fmt: skip
    return [line.split() for line in (*choice.sample(cheap, 2), choice.choice(dear))]


def perform(command: list[str]) -> int:
    """Run a command, or load a plan; return the exit status."""
    try:
        if command == ["load"]:
            for load in (load_linearized, lambda folder: load_plan(f"{folder}/plan.json")):
                with contextlib.suppress(AconError):
                    load("lin")
        else:
            acon(command)
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 97
    return 0


def attempt(command: list[str], folder: Path) -> tuple[int, str, str]:
    """Run a command in a fork; return its status, what it said, and what is wrong with that."""
    said = folder.with_name("said")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        signal.alarm(15 * MOST_SECONDS)  # where it waits
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.chdir(folder)
        status = perform(command)
        sys.stdout.flush()
        os._exit(status)
    ended = os.wait4(child, 0)
    status, text = os.waitstatus_to_exitcode(ended[1]), said.read_text(errors="replace")
    wrong = "" if status in (0, 1, 2) else f"status {status}"
    if "Traceback" in text or "error of acon itself" in text:
        wrong = "an error of its own"
    if ended[2].ru_maxrss * 1024 > MOST_BYTES:
        wrong = f"{ended[2].ru_maxrss / 1e6:.1f} GB"
    errors = [
        line for line in text.splitlines() if line.startswith("acon: ") and "warning" not in line
    ]
    if status == 1 and not errors and command[0] != "verify":
        wrong = "no readable line"
    return status, text, wrong


def fuzz(seconds: float, seed: int, folder: Path, keep: Path) -> tuple[Counter[str], list[str]]:
    """Alter and read for a time; return counts of statuses, and what went wrong."""
    base, work = folder / "base", folder / "work"
    base.mkdir()
    for command in (
        "capture digits_metaacon --data digits --limit 24 --unit 12 --threads 1 --out run",
        "linearize digits_metaacon --run run --data digits --limit 16 --budget 10 --out lin",
    ):
        status, text, wrong = attempt(command.split(), base)
        assert (status, wrong) == (0, ""), text
    counts, problems, number = Counter[str](), list[str](), 0
    end = time.monotonic() + seconds
    before = sorted(base.rglob("*"))
    while time.monotonic() < end:
        number += 1
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for arguments in cases(work, base, random.Random(f"{seed}-{number}")):
            status, text, wrong = attempt(arguments, work)
            counts[f"{arguments[0]} {status}"] += 1
            names = {path.name for path in folder.iterdir()}
            if sorted(base.rglob("*")) != before or names != {"base", "work", "said"}:
                wrong = "something was written elsewhere"
            if wrong:
                line = f"{seed}-{number} {' '.join(arguments)}: {wrong}: {text.strip()[-600:]}"
                problems.append(line)
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
                kept = keep / f"{seed}-{number}"
                shutil.copytree(work, kept, symlinks=True, dirs_exist_ok=True)
    return counts, problems


def main(arguments: list[str] | None = None) -> None:
    """Fuzz for as long as asked; print what was found."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "acon-run-fuzz")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        counts, problems = fuzz(options.seconds, options.seed, Path(folder), options.keep)
    sys.stdout.write(f"{counts.total()} commands: {dict(counts)}\n")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
