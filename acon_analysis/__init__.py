"""See how linear or nonlinear a trained network is: by layer, channel and sample.

The public names below are imported when they are first used, so that ``import acon_analysis``
loads neither torch nor matplotlib nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from acon_analysis.errors import AconError, UsageError, closest

if TYPE_CHECKING:
    from acon_analysis import family, layers, paper
    from acon_analysis.models.registry import build_model
    from acon_analysis.runs.compare import compare_runs as compare
    from acon_analysis.runs.examples import example_run
    from acon_analysis.runs.run import Run, open_run
    from acon_analysis.statistics.affine_fit import linearity
    from acon_hooks.blocks.measuring import block_linearity
    from acon_hooks.captures.capturing import capture
    from acon_hooks.census.counting import nonlinearities
    from acon_hooks.explainers.explaining import explain
    from acon_hooks.moments.recording import record
    from acon_hooks.readings.found_layers import find_layers
    from acon_hooks.replacement.gate_changes import gate_use
    from acon_hooks.replacement.linearizing import linearize
    from acon_hooks.replacement.replace import replace

__version__ = "0.1.0"

#: Public name -> the module that holds it, and the name there (None: the module itself).
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "Run": ("acon_analysis.runs.run", "Run"),
    "block_linearity": ("acon_hooks.blocks.measuring", "block_linearity"),
    "build_model": ("acon_analysis.models.registry", "build_model"),
    "capture": ("acon_hooks.captures.capturing", "capture"),
    "compare": ("acon_analysis.runs.compare", "compare_runs"),
    "example_run": ("acon_analysis.runs.examples", "example_run"),
    "explain": ("acon_hooks.explainers.explaining", "explain"),
    "family": ("acon_analysis.family", None),
    "find_layers": ("acon_hooks.readings.found_layers", "find_layers"),
    "gate_use": ("acon_hooks.replacement.gate_changes", "gate_use"),
    "layers": ("acon_analysis.layers", None),
    "linearity": ("acon_analysis.statistics.affine_fit", "linearity"),
    "linearize": ("acon_hooks.replacement.linearizing", "linearize"),
    "nonlinearities": ("acon_hooks.census.counting", "nonlinearities"),
    "open_run": ("acon_analysis.runs.run", "open_run"),
    "paper": ("acon_analysis.paper", None),
    "record": ("acon_hooks.moments.recording", "record"),
    "replace": ("acon_hooks.replacement.replace", "replace"),
}

__all__ = [
    "AconError", "Run", "UsageError", "block_linearity", "build_model", "capture", "compare",
    "example_run", "explain", "family", "find_layers", "gate_use", "layers", "linearity",
    "linearize", "nonlinearities", "open_run", "paper", "record", "replace",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'acon_analysis' has no attribute {name!r}; {closest(name, _PUBLIC)}"
        )
    path, attribute = _PUBLIC[name]
    module = import_module(path)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *(name for name in globals() if name[:2] == "__")})
