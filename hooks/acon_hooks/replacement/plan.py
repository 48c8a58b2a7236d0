"""Which channels of a network to replace by which functions, written down as a plan.

A planned unit is one channel of one use of an activation layer, and its replacement a fixed
function of x, fitted on one split of the data: most often the least squares line slope·x +
intercept, otherwise another of `acon_hooks.replacement.forms`. Channels are ranked by s_c, the
squared error of the function over the variance of the whole layer's output (of lines their share of
the layer's nonlinearity, `statistics.linearity`).
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_origin

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.files import atomic_write, read_regular
from acon_analysis.screen import counted
from acon_analysis.selection import layer_path, require_columns
from acon_hooks.replacement.forms import coefficients_of

#: Version of the layout of a plan's file.
PLAN_FORMAT = "acon-plan/2"

#: Versions that can be read: in the first all units are lines.
_READABLE = ("acon-plan/1", PLAN_FORMAT)

#: What names a planned unit.
KEYS = ["layer", "call", "channel"]


class PlanError(AconError):
    """A plan cannot be read, or does not fit the model."""


@dataclass(frozen=True)
class PlannedUnit:
    """One channel of one use of a layer, and its line or other function.

    Parameters
    ----------
    layer : str
        Exact name in ``named_modules()``.
    call : int
        Which use of the layer within one forward pass, from 0.
    channel : int
        Channel, from 0.
    slope, intercept : float
        The line; of two pieces the first line; otherwise 0.
    L : float
        1 - the squared error over the output's sum of squares, on the data of the fit: of a line
        the share of the variance that it explains.
    s_c : float
        The squared error over that of the whole layer's output, on the data of the fit.
    form : str
        Which function: "line", "relu", "two-piece", "hardswish" or "poly:K".
    coefficients : tuple of float
        Its further numbers; see `acon_hooks.replacement.forms`.
    """

    layer: str
    call: int
    channel: int
    slope: float
    intercept: float
    L: float
    s_c: float
    form: str = "line"
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class PlannedLayer:
    """A use of a layer, as far as its lines need to know it.

    Parameters
    ----------
    layer : str
        Exact name in ``named_modules()``.
    call, calls : int
        Which use within one forward pass, from 0, and how many there are.
    channels, axis : int
        Channels of the input, and the axis they lie on.
    kind : str
        Key of `acon_hooks.KINDS`.
    in_place : bool
        Whether this use overwrites its input, and so must its lines.
    """

    layer: str
    call: int
    calls: int
    channels: int
    axis: int
    kind: str
    in_place: bool = False


@dataclass(frozen=True)
class Plan:
    """Channels to replace, with their lines or other functions; saved as JSON.

    Parameters
    ----------
    units : tuple of PlannedUnit
        In the order of the layers, channels ascending.
    layers : tuple of PlannedLayer
        Every use of a layer that has a unit.
    model : str
        MODEL string or class of the network that the lines were fitted on.
    weights_sha256 : str
        Hash of its parameters and buffers.
    data : str
        Images of the fit.
    run_id : str
        Run that the fit came from; empty where it came from a model directly.
    chosen_by : str
        How they were chosen, in words.
    """

    units: tuple[PlannedUnit, ...]
    layers: tuple[PlannedLayer, ...]
    model: str
    weights_sha256: str
    data: str = ""
    run_id: str = ""
    chosen_by: str = ""

    def __post_init__(self) -> None:
        known = {(layer.layer, layer.call): layer.channels for layer in self.layers}
        seen = set()
        for unit in self.units:
            key = unit.layer, unit.call
            if key not in known:
                raise PlanError(f"plan: no facts of layer {unit.layer!r}, call {unit.call}")
            if not 0 <= unit.channel < known[key]:
                raise PlanError(
                    f"plan: layer {unit.layer!r} has channels 0 to {known[key] - 1}, "
                    f"the plan names channel {unit.channel}"
                )
            numbers = (unit.slope, unit.intercept, unit.L, unit.s_c, *unit.coefficients)
            if not all(map(math.isfinite, numbers)):
                raise PlanError(f"plan: every number of a unit must be finite; given {unit}")
            if len(unit.coefficients) != coefficients_of(unit.form):
                raise PlanError(
                    f"plan: {unit.form!r} has {coefficients_of(unit.form)} coefficients; {unit}"
                )
            if (*key, unit.channel) in seen:
                raise PlanError(f"plan: layer {unit.layer!r}, channel {unit.channel} stands twice")
            seen.add((*key, unit.channel))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a unit, the fields of `PlannedUnit`."""
        names = [field.name for field in fields(PlannedUnit)]
        frame = pd.DataFrame([vars(unit) for unit in self.units], columns=names)
        return frame.astype({"layer": "str", "call": "int64", "channel": "int64"})

    @property
    def lost(self) -> dict[tuple[str, int], float]:
        """Predicted squared error of each use of a layer over its output's variance: Σ s_c."""
        sums = self.table.groupby(["layer", "call"], sort=False)["s_c"].sum()
        return {
            (layer.layer, layer.call): float(sums.loc[layer.layer, layer.call])
            for layer in self.layers
        }

    def save(self, path: str | Path) -> Path:
        """Write the plan as JSON; floats keep every digit."""
        path = Path(path)
        content = {"format": PLAN_FORMAT, **asdict(self)}
        atomic_write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
        return path


def load_plan(path: str | Path) -> Plan:
    """Read a plan that `Plan.save` has written.

    Raises
    ------
    UsageError
        If there is no such file.
    PlanError
        If it holds no plan, naming what is missing or wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"plan: there is no file {str(path)!r}")
    try:
        content = json.loads(read_regular(path).decode("utf-8"))
    except ValueError as error:
        raise PlanError(f"plan: {str(path)!r} is not JSON: {error}") from error
    given = content.get("format") if isinstance(content, dict) else None
    if given not in _READABLE:
        raise PlanError(
            f"plan: {str(path)!r} has the format {given!r}, this version reads {PLAN_FORMAT!r}"
        )
    return Plan(
        units=tuple(_read(PlannedUnit, row, path) for row in _entry(content, "units", list, path)),
        layers=tuple(
            _read(PlannedLayer, row, path) for row in _entry(content, "layers", list, path)
        ),
        **{
            name: _entry(content, name, str, path)
            for name in ("model", "weights_sha256", "data", "run_id", "chosen_by")
        },
    )


def choose_units(
    table: pd.DataFrame,
    *,
    budget: int | float | None = None,
    by: str = "s_c",
    within: bool = False,
    layers: Iterable[str] | None = None,
    units: Iterable[Sequence[Any]] | None = None,
) -> pd.DataFrame:
    """Choose channels to replace: the least nonlinear, whole layers, or the given ones.

    `table` is a channel table (`linearity.channel_table`), whose rows are returned in its order.
    `budget` is a number of channels, or a share of all in (0, 1]; None takes whole layers. They are
    ranked by the column `by`, the least first, over all layers or `within` each use of a layer,
    where the budget must be a share. `layers` restricts both. `units`, (layer, channel) or (layer,
    call, channel), excludes all this. Channels without a finite line are never chosen by rank. A
    UsageError for what does not exist or is out of range.
    """
    require_columns(table, [*KEYS, "slope", "intercept"], "the table of channels")
    if units is not None:
        if budget is not None or layers is not None:
            raise UsageError("give either units, or a budget and layers, not both")
        return _given(table, list(units))
    if budget is None and layers is None:
        raise UsageError("say what to replace: a budget (--budget 5%), layers (--layers), or units")
    if layers is not None:
        there = set(table["layer"])
        given = [layers] if isinstance(layers, str) else layers
        wanted = [layer_path(name, there) for name in given]
        for name in wanted:
            if name not in there:
                known = closest(name, table["layer"].unique())
                raise UsageError(f"there is no layer {name!r} in the fit; {known}")
        table = table[table["layer"].isin(wanted)]
    finite: pd.DataFrame = table.loc[np.isfinite(table[["slope", "intercept"]].to_numpy()).all(1)]
    if budget is None:
        return finite
    if by not in table.columns:
        raise UsageError(f"cannot rank by {by!r}; {closest(by, table.columns)}")
    ranked = finite[finite[by].notna()]
    if not within:
        return _least(ranked, by, _count(budget, len(table)))
    if not isinstance(budget, float):
        raise UsageError(f"within layers the budget is a share, such as 0.25; {budget}")
    parts = [
        _least(part[part.index.isin(ranked.index)], by, _count(budget, len(part)))
        for _, part in table.groupby(["layer", "call"], sort=False)
    ]
    return pd.concat(parts)


def make_plan(
    chosen: pd.DataFrame,
    layers: Iterable[PlannedLayer],
    *,
    model: str,
    weights_sha256: str,
    data: str = "",
    run_id: str = "",
    chosen_by: str = "",
) -> Plan:
    """Return a plan of rows of a channel table; uses of layers without one of them are dropped."""
    needed = [field.name for field in fields(PlannedUnit) if field.default is MISSING]
    require_columns(chosen, needed, "the table of chosen units")
    kinds: Any = {own.name: get_origin(own.type) or own.type for own in fields(PlannedUnit)}
    columns = [name for name in kinds if name in chosen]
    used = set(zip(chosen["layer"], chosen["call"], strict=True))
    facts = tuple(layer for layer in layers if (layer.layer, layer.call) in used)
    order = {(layer.layer, layer.call): index for index, layer in enumerate(facts)}
    units = [
        PlannedUnit(**{str(name): kinds[name](value) for name, value in row.items()})
        for row in chosen[columns].to_dict("records")
    ]
    # A unit of an unknown layer is refused by the plan itself.
    units.sort(key=lambda unit: (order.get((unit.layer, unit.call), 0), unit.channel))
    return Plan(tuple(units), facts, model, weights_sha256, data, run_id, chosen_by)


def _least(frame: pd.DataFrame, by: str, count: int) -> pd.DataFrame:
    """Return the rows with the least values of a column, in the frame's order."""
    order: npt.NDArray[np.int64] = np.argsort(frame[by].to_numpy(dtype=np.float64), kind="stable")
    return frame.iloc[np.sort(order[:count])]


def _count(budget: int | float, total: int) -> int:
    """Return a budget as a number of channels."""
    if isinstance(budget, float):
        if not 0 < budget <= 1:
            raise UsageError(
                f"a share of channels lies between 0 and 1; got {budget} "
                f"(a number of channels is an integer)"
            )
        return round(budget * total)
    if not 0 < budget <= total:
        raise UsageError(f"the budget must be 1 to {counted(total, 'channel')}; got {budget}")
    return int(budget)


def _given(table: pd.DataFrame, units: list[Sequence[Any]]) -> pd.DataFrame:
    """Return the rows of (layer, channel) or (layer, call, channel)."""
    if not units:
        raise UsageError("the list of units is empty")
    rows = pd.Series(False, index=table.index)
    for unit in units:
        if len(unit) not in (2, 3):
            raise UsageError(f"a unit is (layer, channel) or (layer, call, channel); got {unit!r}")
        path = layer_path(unit[0], set(table["layer"]))
        mine = (table["layer"] == path) & (table["channel"] == unit[-1])
        if len(unit) == 3:
            mine &= table["call"] == unit[1]
        if not mine.any():
            own = table.loc[table["layer"] == path, "channel"]
            near = f"its channels are 0 to {own.max()}" if len(own) else closest(
                str(unit[0]), table["layer"].unique()
            )  # fmt: skip
            raise UsageError(f"there is no unit {tuple(unit)!r} in the fit; {near}")
        rows |= mine
    return table[rows]


def _entry(content: dict[str, Any], name: str, kind: type[Any], path: Path) -> Any:
    """Return an entry of a plan's file, a list or a text."""
    value = content.get(name)
    if not isinstance(value, kind):
        word = "list" if kind is list else "text"
        raise PlanError(f"plan: {str(path)!r} has no {word} {name!r}")
    return value


def _read(kind: type[Any], row: Any, path: Path) -> Any:
    """Read one unit or layer, every field present and of its type."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        default = None if field.default is MISSING else field.default
        value = row.get(field.name, default) if isinstance(row, dict) else None
        wanted: Any = get_origin(field.type) or field.type
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted is tuple and isinstance(value, list):
            value = tuple(float(v) for v in value if type(v) in (int, float))
        if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
            raise PlanError(
                f"plan: {str(path)!r}: {field.name!r} of a {kind.__name__} must be "
                f"{wanted.__name__}; it is {value!r}"
            )
        values[field.name] = value
    return kind(**values)
