"""L by depth as a chart whose points are links to layers: positions only, the template draws."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from acon_figures.report.numbers import share

#: Width and height of the chart on wide and narrow pages.
SIZES = {"wide": (1000, 320), "narrow": (360, 280)}

_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 14, 54

#: Classes of style: of the first run or kind, the second, and further kinds.
_LOOKS = ("run-a", "run-b", "run-c")

#: Points of the first kind, the second, and further ones.
_SIGNS = ("●", "■", "▲")

#: Layers that the axis numbers one by one, with numbers of at most three digits.
_NUMBERED = {"wide": 40, "narrow": 12}


def depth_chart(runs: Sequence[Sequence[dict[str, Any]]], size: str) -> dict[str, Any] | None:
    """Return where a chart's parts stand, in units of its view box; None without any L.

    ``runs`` are the entries of `layer_entries` of one run or two; layers of one path and call share
    a position. The longest run's layers have numbers, and so have those of a run that shares none.
    Each kind of layer has a line of its own, and in a chart of one run a colour.
    No line goes through points that are `off`.
    """
    known = [[row for row in entries if row["index"] is not None] for entries in runs]
    longest, *others = sorted(known, key=len, reverse=True)
    numbers = {row["key"]: row["place"] + 1 for row in longest}
    names = [*numbers]
    for rows in others:
        own = {row["key"]: row["place"] + 1 for row in rows}
        names = _merged(names, [*own])
        if own.keys().isdisjoint(numbers):  # the runs stand one after the other
            numbers = own | numbers
    if not names:
        return None
    width, height = SIZES[size]
    yardsticks = {row["key"]: row["yardstick"] for rows in known[::-1] for row in rows}
    lowest = np.nanmin([*yardsticks.values(), *(row["index"][1] for rows in known for row in rows)])
    floor = max(0.0, math.floor(10 * lowest) / 10)
    step = (width - _LEFT - _RIGHT) / len(names)

    def x_of(name: tuple[str, int]) -> float:
        return float(round(_LEFT + step * (names.index(name) + 0.5), 1))

    def y_of(value: float) -> float:
        part = (min(max(value, floor), 1.0) - floor) / (1 - floor)
        return float(round(height - _BOTTOM - part * (height - _TOP - _BOTTOM), 1))

    digits = max(3, len(str(max(numbers.values()))))
    every = -(-len(names) * digits // (3 * _NUMBERED[size]))
    steps = 5 if floor < 0.5 else 10
    kinds = list(dict.fromkeys(row["role"] for rows in known for row in rows))
    looks = dict(zip(kinds, [*_LOOKS, *_LOOKS[-1:] * len(kinds)], strict=False))
    signs = dict(zip(kinds, [*_SIGNS, *_SIGNS[-1:] * len(kinds)], strict=False))
    marks = [tick / 10 for tick in range(round(10 * floor), 11) if tick % (10 // steps) == 0]
    return {
        "size": size, "width": width, "height": height, "left": _LEFT, "right": width - _RIGHT,
        "ticks": [(y_of(mark), f"{mark:.1f}") for mark in marks],
        "yardsticks": _dotted([yardsticks[name] for name in names], step, y_of),
        "numbers": [(x_of(name), numbers[name]) for name in [*numbers][::every]],
        "radius": round(min(5.0, max(1.5, step / 3)), 1),
        "off": any(row["off"] and not row["dead"] for rows in known for row in rows),
        "kinds": [(looks[kind], signs[kind], kind) for kind in kinds] if len(kinds) > 1 else [],
        "series": [
            {"look": _LOOKS[which] if len(known) > 1 else looks[kind], "sign": signs[kind],
             "points": [_point(row, x_of, y_of) for row in rows if row["role"] == kind]}
            for which, rows in enumerate(known) for kind in kinds
            if any(row["role"] == kind for row in rows)
        ],
    }  # fmt: skip


def _dotted(yardsticks: Sequence[float], step: float, y_of: Any) -> str:
    """Return the path along the layers' yardsticks, in one stroke where neighbours share one."""
    parts, end = [], float(_LEFT)
    for value, own in groupby(yardsticks):
        start, end = end, end + step * len(list(own))
        if not math.isnan(value):
            parts.append(f"M{start:.1f} {y_of(value)}H{end:.1f}")
    return "".join(parts)


def _merged(names: list[Any], further: Sequence[Any]) -> list[Any]:
    """Return names with further ones, each of these behind the one that it follows."""
    merged, behind = list(names), -1
    for name in further:
        if name not in names:
            merged.insert(behind + 1, name)
        behind = merged.index(name)
    return merged


def _point(row: dict[str, Any], x_of: Any, y_of: Any) -> dict[str, Any]:
    """Return one layer of a chart: where it stands, what it links to and what it says."""
    value, low, high = row["index"]
    between = "" if math.isnan(low) else f" ({share(low)} to {share(high)})"
    dead = ", dead" if row["dead"] else ""
    return {
        "x": x_of(row["key"]), "y": y_of(value), "id": row["id"], "dead": row["dead"],
        "off": row["off"],
        "low": y_of(value if math.isnan(low) else low),
        "high": y_of(value if math.isnan(high) else high),
        "text": f"{row['name']}: L = {share(value)}{between}{dead}",
    }  # fmt: skip
