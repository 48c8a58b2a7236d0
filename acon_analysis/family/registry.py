"""All activations under their names."""

import types
from collections.abc import Mapping

from acon_analysis.errors import UsageError, closest
from acon_analysis.family import acon, funnel, gated, maxima, rectified, saturating
from acon_analysis.family._activation import Activation

ACTIVATIONS: Mapping[str, Activation] = types.MappingProxyType(
    {
        record.name: record
        for kind in (saturating, rectified, gated, maxima, acon, funnel)
        for record in kind.RECORDS
    }
)
"""Every activation of the project by its name, in the order of the files."""


def _plain(name: str) -> str:
    """Return a name as it is compared: 'Leaky ReLU', 'LeakyReLU' and 'leaky_relu' are one."""
    return "".join(character for character in name.casefold() if character.isalnum())


_BY_PLAIN_NAME = {
    _plain(name): record
    for record in ACTIVATIONS.values()
    for name in (record.name, record.title, *record.aliases)
}


def get(name: str) -> Activation:
    """Return an activation by its name.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`, a title or an alias; case, spaces, hyphens and underscores do not
        matter, so the class names of torch (``"LeakyReLU"``, ``"SiLU"``) work too.

    Raises
    ------
    UsageError
        For an unknown name; it gives the names that come close.
    """
    record = _BY_PLAIN_NAME.get(_plain(str(name)))
    if record is None:
        known = [n for r in ACTIVATIONS.values() for n in (r.name, *r.aliases)]
        raise UsageError(f"unknown activation {name!r}; {closest(str(name), known)}")
    return record
