"""What a run says in a few sentences and a table, on screens and in notebooks."""

from dataclasses import dataclass
from html import escape

import pandas as pd


@dataclass(frozen=True)
class Summary:
    """A run in a few sentences and a table; printed as text, shown by notebooks as HTML.

    Parameters
    ----------
    title : str
        Network, data and how much was captured.
    sentences : tuple of str
        What was found.
    table : DataFrame
        A row a layer.
    """

    title: str
    sentences: tuple[str, ...]
    table: pd.DataFrame

    def __str__(self) -> str:
        table = self.table.to_string(index=False, float_format=_number, na_rep="")
        return "\n\n".join([self.title, "\n".join(self.sentences), table])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.sentences)
        table = self.table.to_html(index=False, float_format=_number, na_rep="", border=0)
        return f"<p><b>{escape(self.title)}</b></p>{said}{table}"


def _number(value: float) -> str:
    """Format a number with three digits; what is not 1 does not look like it."""
    text = f"{value:.3g}"
    return text if text != "1" or value == 1 else f"{value:.6f}"
