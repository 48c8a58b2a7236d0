"""What a run says in a few sentences and a table, on screens and in notebooks."""

from dataclasses import dataclass
from html import escape

import pandas as pd

from acon_analysis.files import spelled
from acon_analysis.screen import sentence_text, table_text, three_digits
from acon_analysis.statistics.sentences import Names, named

#: Headers of statistics of β for people; data have the plain names.
LABELS = {"mean": "β_mean", "std": "β_std", "min": "β_min", "max": "β_max"}


@dataclass(frozen=True)
class Summary:
    """A run in a few sentences and a table; printed as text, shown by notebooks as HTML."""

    title: str
    # Each may have a second line, its numbers.
    sentences: tuple[str, ...]
    table: pd.DataFrame
    names: Names | None = None

    def __str__(self) -> str:
        said = [
            "\n".join(sentence_text(line) for line in sentence.splitlines())
            for sentence in self.sentences
        ]
        return "\n\n".join([self.title, *said, table_text(self._shown())])

    __repr__ = __str__

    def _shown(self) -> pd.DataFrame:
        """Return the table with the names and headers that people read."""
        return named(self.table, self.names).rename(columns=LABELS)

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(one)}</p>" for one in self.sentences).replace("\n", "<br>")
        table = self._shown().to_html(index=False, float_format=three_digits, na_rep="", border=0)
        return spelled(f"<p><b>{escape(self.title)}</b></p>{said}{table}")
