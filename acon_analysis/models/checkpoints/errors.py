"""The one error of this package, and how names out of a foreign file are shown."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from acon_analysis.errors import AconError
from acon_analysis.screen import listed

_SHOWN_CHARACTERS = 80
_POOL = 500


class CheckpointError(AconError):
    """A checkpoint that cannot be used: which file, what was found, what was expected."""


class Refusal(Exception):  # noqa: N818 - it always ends as a CheckpointError that names the file
    """The reason why a file is refused, without the file's name."""


def show(value: object) -> str:
    """Return a file's value quoted, escaped and shortened; of a container only its type."""
    if isinstance(value, str):
        text = value[:_SHOWN_CHARACTERS]
        shown = f"'{text}'" if text.isprintable() else ascii(text)
        return shown + ("…" if len(value) > _SHOWN_CHARACTERS else "")
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)[:_SHOWN_CHARACTERS]
    return "a dict" if isinstance(value, dict) else f"a {type(value).__name__}"


def listing(items: Sequence[Any], count: int = 6, describe: Callable[[Any], str] = show) -> str:
    """Return the first items, and how many more there are."""
    return listed(items, count, describe)


def nearest(name: str, pool: Iterable[str]) -> str | None:
    """Return the name of `pool` that is near to `name`; both are cut: they may be hostile."""
    short = {other[:_SHOWN_CHARACTERS]: other for other, _ in zip(pool, range(_POOL), strict=False)}
    found = get_close_matches(name[:_SHOWN_CHARACTERS], short, n=1, cutoff=0.8)
    return short[found[0]] if found else None
