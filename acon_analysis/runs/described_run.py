"""What the manifest of a captured run says: network, data, layers, and the units that are done."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from acon_analysis.columns import LAYER_COLUMNS, LAYER_DEFAULTS, dtypes, names
from acon_analysis.errors import StoreError, UsageError, closest
from acon_analysis.files import spelled
from acon_analysis.moments.gram import rounding
from acon_analysis.screen import counted
from acon_analysis.statistics.sentences import layer_names
from acon_analysis.store.folder import RunFolder


class DescribedRun:
    """A captured run as its manifest describes it, without what its tables hold.

    Methods take a layer's exact name in ``named_modules()``, and as ``call`` which of its uses
    within one forward pass; or the name that figures and tables show, `layer_names`. A layer that
    the run does not hold is a UsageError that names what comes close.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        self.manifest: dict[str, Any] = self.folder.read_manifest()
        self.folder.run_id = self.manifest.get("run_id")

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def identity(self) -> dict[str, Any]:
        """What was captured: the network, its weights, the data and every setting that counts."""
        identity: dict[str, Any] = self.manifest["identity"]
        return identity

    @property
    def model(self) -> str:
        """The network's name, as it was given; of a script's own class without ``__main__``."""
        return spelled(str(self.identity["model"]).removeprefix("__main__."))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of layers that were to be captured."""
        return tuple(spelled(str(kind)) for kind in self.identity.get("kinds") or ())

    @property
    def network(self) -> str:
        """The network's name for people: of a class its own, of a file without folders."""
        name = self.model.rpartition("/")[2] if self.model.startswith("/") else self.model
        return name if ":" in name else name.rpartition(".")[2]

    @property
    def weights(self) -> str:
        """Where the weights come from: "shipped", "random", a file's name, or "not known".

        Older versions called the weights of a user's own callable random, which nobody knows.
        """
        origin = self.manifest.get("origin") or {}
        source, colon, _ = self.model.rpartition(":")
        found = str(origin.get("weights") or "not known")
        own = colon and source not in ("torchvision", "timm")
        return "not known" if found == "random" and own else spelled(found)

    @cached_property
    def layer_names(self) -> dict[tuple[str, int], str]:
        """What people read for each layer and call: its path, class or call only where needed."""
        return layer_names(self.layers)

    @property
    def sample_word(self) -> str:
        """What a sample is called: "image" where the data are known to be images."""
        return "image" if "samples_sha256" in self.identity else "sample"

    @property
    def data_name(self) -> str:
        """The data as they were named, without folders; of objects their class, or nothing."""
        recorded = str(self.identity.get("data") or "")
        if self.sample_word == "sample":  # a class, or "stream of" a class
            recorded = "" if recorded.startswith("stream of") else recorded.rpartition(".")[2]
        name = str(self.manifest.get("data") or recorded)
        return name.rstrip("/").rpartition("/")[2]

    @property
    def _unit_count(self) -> int | None:
        """The units that the run is planned to have; None for data of unknown length."""
        count: int | None = self.manifest["units"]
        return count

    @cached_property
    def units(self) -> list[int]:
        """The units that are done, in order."""
        count = self._unit_count
        return [unit for unit in self.folder.done_units() if count is None or unit < count]

    @property
    def complete(self) -> bool:
        """Whether every unit is done and the manifest is finished."""
        return bool(self.manifest["complete"])

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a layer and call, in order of execution, columns of `columns.LAYER_COLUMNS`."""
        rows = [LAYER_DEFAULTS | row for row in self.manifest["layers"]]
        frame = pd.DataFrame(rows, columns=names(LAYER_COLUMNS))
        return frame.astype(dtypes(LAYER_COLUMNS))

    @property
    def beta_layers(self) -> pd.DataFrame:
        """The rows of `layers` that have a β, static or of every sample."""
        table = self.layers
        return table[(table["column"] != "") | (table["granularity"] == "static")]

    @property
    def per_sample_layers(self) -> pd.DataFrame:
        """The rows of `layers` whose β depends on the sample, gates left out."""
        table = self.layers
        return table[(table["column"] != "") & (table["kind"] != "gate")]

    @property
    def has_beta(self) -> bool:
        """Whether any layer has a β, static or of every sample."""
        return not self.beta_layers.empty

    def layer_row(self, layer: str, call: int = 0) -> Any:
        """Return the row of `layers` of one layer and call; an error names what comes close.

        ``layer`` is a module path, or one of `layer_names`, which may hold the call.
        """
        key = self.layer_key(layer, call)
        if key in self._layer_rows:
            return self._layer_rows[key]
        options = self.layers["layer"].unique()
        if layer not in options:
            raise UsageError(f"the run holds no layer {layer!r}; {closest(layer, options)}")
        raise UsageError(
            f"layer {layer!r} was not called {counted(call + 1, 'time')} in a forward pass"
        )

    def layer_key(self, layer: str, call: int = 0) -> tuple[str, int]:
        """Return path and call of a layer that has its path or one of `layer_names`."""
        known = (layer, 0) in self._layer_rows
        return (layer, call) if known else self._layers_shown.get(layer, (layer, call))

    @cached_property
    def _layers_shown(self) -> dict[str, tuple[str, int]]:
        """Path and call of every layer by its name in figures and tables."""
        return {name: key for key, name in self.layer_names.items()}

    @cached_property
    def _layer_rows(self) -> dict[tuple[str, int], Any]:
        """The rows of `layers` by layer and call: a search for each of thousands takes long."""
        rows: Iterator[Any] = self.layers.itertuples(index=False)
        return {(row.layer, row.call): row for row in rows}

    def rows_of(self, layers: Iterable[str]) -> pd.DataFrame:
        """Return the rows of `layers` of some: all calls of a path, one call of a shown name."""
        asked = set(layers)
        keys = {(row.layer, row.call) for row in map(self.layer_row, asked)}
        pairs = zip(self.layers["layer"], self.layers["call"], strict=True)
        return self.layers[[pair[0] in asked or pair in keys for pair in pairs]]

    @property
    def rounding(self) -> float:
        """Relative rounding of the network's arithmetic, float32's at least."""
        return rounding(str(self.identity.get("dtype") or "").split(", "))

    def files(self, kind: str) -> Iterator[Path]:
        """Yield the parts of a kind, of the units that are done, in order."""
        for unit in self.units:
            parts = self.folder.unit_parts(unit) or {}
            path = self.folder.part(kind, unit)
            if f"{kind}/{path.name}" in parts:
                if not path.is_file():
                    raise StoreError(
                        f"{str(path)!r} is missing; `acon verify` reports what else is"
                    )
                yield path
