"""Errors meant for a person: one sentence, no traceback on the command line."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class AconError(Exception):
    """Something the user can understand and mend; the command line exits with 1."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Return what notebooks show: the sentence alone; ``%debug`` has the rest."""
        return [f"{type(self).__name__}: {self}", *getattr(self, "__notes__", ())]


class UsageError(AconError):
    """A wrong name, option or argument; the command line exits with 2."""

    exit_code = 2


class StoreError(AconError):
    """A run on disk cannot be written, or read, or belongs to something else."""


def closest(given: str, options: Iterable[str], *, count: int = 3) -> str:
    """Return a phrase that names what comes close to a misspelt name.

    Parameters
    ----------
    given : str
        What the user wrote.
    options : iterable of str
        What exists.
    count : int
        How many near names to give at most.

    Returns
    -------
    str
        ``"did you mean 'a' or 'b'?"``; without a near name the options themselves (at most ten).
    """
    names = list(dict.fromkeys(options))
    folded = {name.casefold(): name for name in names}
    near = [folded[m] for m in get_close_matches(given.casefold(), folded, n=count, cutoff=0.6)]
    near = near or [name for name in names if given and name.startswith(f"{given}_")]
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    if not names:
        return "there is nothing to choose from"
    shown = ", ".join(repr(name) for name in names[:10])
    return f"choose one of {shown}" + (f" (and {len(names) - 10} more)" if len(names) > 10 else "")


def named_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function name what comes close to an argument that it does not have."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        known = signature(function).parameters
        for name in kwargs:
            if name not in known:
                text = f"{function.__name__} has no argument {name!r}; {closest(name, known)}"
                raise UsageError(text)
        return function(*args, **kwargs)

    return call
