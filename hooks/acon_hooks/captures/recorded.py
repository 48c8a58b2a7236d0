"""Samples without names, compared with those that a run holds already."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from acon_analysis.errors import StoreError
from acon_analysis.screen import counted
from acon_analysis.store.folder import RunFolder
from acon_analysis.store.parquet import read_table
from acon_hooks.engine.feed import Batch


class Recorded:
    """What a run holds of samples without names, to be compared with what is read now."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: Mapping[str, Any] | None,
        unit_size: int,
        what: str = "stream",
    ) -> None:
        self._folder, self._unit_size, self._what = folder, unit_size, what
        complete = manifest is not None and manifest["complete"]
        self._count: int | None = manifest["samples"] if manifest and complete else None
        self._unit: int | None = None
        self._known: pd.DataFrame | None = None

    def compare(self, batch: Batch) -> None:
        """Raise a StoreError if a batch differs from a finished unit or the complete run."""
        # This includes units that are done again because other files of them are damaged.
        if not batch.ids:
            return
        if self._count is not None:
            self._compare_count(batch.ids[-1] + 1, batch.last)
        known = self._rows(batch.unit)
        if known is None:  # not finished
            return
        for row in batch.sample_rows():
            self._compare_row(row, known)
        if batch.last and batch.ids[-1] < known.index[-1]:
            raise self._refusal(
                f"its unit {batch.unit} ends with sample {known.index[-1]}, the images now end "
                f"with sample {batch.ids[-1]}"
            )

    def _compare_count(self, stop: int, last: bool) -> None:
        """Raise where a unit ends elsewhere than in the complete run."""
        count = self._count or 0
        if stop > count:
            raise self._refusal(
                f"it is complete with {counted(count, 'image')}, and now there are more"
            )
        if last and stop < count and stop % self._unit_size:
            raise self._refusal(
                f"it is complete with {counted(count, 'image')}, now there are {stop}"
            )

    def _compare_row(self, row: Mapping[str, Any], known: pd.DataFrame) -> None:
        sample = row["sample_id"]
        if sample not in known.index:
            raise self._refusal(
                f"its last images are up to sample {known.index[-1]}, and now there are more"
            )
        if known.at[sample, "sha256"] != row["sha256"]:
            raise self._refusal(
                f"sample {sample} of the {self._what} is not the one that was captured"
            )
        label: Any = known.at[sample, "label"]
        label = None if pd.isna(label) else label
        if label != row["label"]:
            raise self._refusal(f"the label of sample {sample} was {label!r}, is {row['label']!r}")

    def end(self, count: int) -> None:
        """Raise if a stream that ended after `count` images is not as long as the run's."""
        manifest = self._folder.read_manifest()
        if manifest["complete"] and manifest["samples"] != count:
            raise self._refusal(
                f"it is complete with {counted(manifest['samples'], 'image')}, now there are "
                f"{count}"
            )
        for unit in reversed(self._folder.done_units()):
            start = unit * self._unit_size
            if start >= count and self._folder.unit_parts(unit) is not None:
                raise self._refusal(
                    f"its unit {unit} begins with sample {start}, now there are "
                    f"{counted(count, 'image')}"
                )

    def _rows(self, unit: int) -> pd.DataFrame | None:
        """Return the sample table of a unit by sample_id; None if it is not finished and sound."""
        if unit != self._unit:
            self._unit, self._known = unit, None
            part = self._folder.part("samples", unit)
            name = f"samples/{part.name}"
            digest = (self._folder.unit_parts(unit) or {}).get(name)
            if digest is not None and not any(self._folder.damage({name: digest})):
                table = read_table(part, ["sample_id", "sha256", "label"])
                self._known = table.to_pandas().set_index("sample_id").sort_index()
        return self._known

    def _refusal(self, reason: str) -> StoreError:
        return StoreError(
            f"out: {str(self._folder.path)!r} holds a run of something else: {reason}; a "
            f"{self._what} must give the same images in the same order every time"
        )
