"""What the benchmarks share: machine facts, interleaved ratios, tables in RESULTS.md."""

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("torch", "numpy", "pandas", "pyarrow")


def machine() -> str:
    """Return the processor, the cores, the load and the versions, and nothing that names a host."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        model = found[1] if found else model
    versions = ", ".join(f"{name} {installed(name)}" for name in PACKAGES)
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} thread, load {load:.1f} "
        f"when written; Python {platform.python_version()}, {versions}"
    )


def installed(name: str) -> str:
    """Return a package's version, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def ratios(
    base: Callable[[], object], others: Mapping[str, Callable[[], object]], pairs: int = 9
) -> dict[str, tuple[float, float]]:
    """Measure calls side by side; return medians.

    Returns
    -------
    dict of str to (float, float)
        Median of the ratio to the base call, and median of the difference in milliseconds.
    """
    return {
        name: (statistics.median(r for r, _ in rows), statistics.median(d for _, d in rows))
        for name, rows in side_by_side(base, others, pairs).items()
    }


def side_by_side(
    base: Callable[[], object], others: Mapping[str, Callable[[], object]], pairs: int = 9
) -> dict[str, list[tuple[float, float]]]:
    """Measure calls side by side: base, other, base, other, ...

    Processor time of this process, which other processes on the machine disturb least.

    Returns
    -------
    dict of str to list of (float, float)
        Ratios to the base call, and differences in milliseconds.
    """
    base()
    for call in others.values():
        call()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
    for _ in range(max(9, pairs)):
        for name, call in others.items():
            before = seconds(base)
            own = seconds(call)
            after = seconds(base)
            mean = (before + after) / 2
            found[name].append((own / mean, 1e3 * (own - mean)))
    return found


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [list(map(str, header)), ["---"] * len(header), *(list(map(str, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(name: str, text: str) -> None:
    """Print a section and put it into RESULTS.md; it replaces its last version."""
    section = f"## {name}\n\n{text}\n\nMeasured on: {machine()}.\n"
    print(section)
    old = RESULTS.read_text("utf-8") if RESULTS.is_file() else "# Results of the benchmarks\n"
    head, *parts = re.split(r"^(?=## )", old, flags=re.MULTILINE)
    kept = [part.strip() + "\n" for part in parts if not part.startswith(f"## {name}\n")]
    body = "\n".join([head.strip() + "\n", *sorted([*kept, section])])
    RESULTS.write_text(body, "utf-8")


def make_jpegs(folder: Path, count: int, side: int = 400) -> Path:
    """Write synthetic photographs: smooth colour with noise."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    for number in range(count):
        waves = [120 + 90 * np.sin(rows / (9 + number % 13) + k) * np.cos(columns / (7 + k))
                 for k in range(3)]  # fmt: skip
        pixels = np.stack(waves, 2) + generator.normal(0, 12, (side, side, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg")
    return folder


def repeated(images: Path, folder: Path, count: int) -> Path:
    """Link the images of a folder again and again until there are so many."""
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise SystemExit(f"--images: {str(images)!r} holds no images ({', '.join(suffixes)})")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        source = files[number % len(files)].resolve()
        (folder / f"{number:06d}{source.suffix.lower()}").symlink_to(source)
    return folder
