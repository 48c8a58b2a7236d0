"""Reference pages: the public names of the rooms, and the command line."""

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from acon_docs.pages import Folder

#: Pages of the reference: file, title, modules. Of a module with ``__all__`` those names are
#: documented, of others the public functions and classes written there.
PAGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("acon_analysis", "acon_analysis: the front door", (
        "acon_analysis", "acon_analysis.runs.run", "acon_analysis.runs.stored_run",
        "acon_analysis.runs.described_run",
    )),
    (
        "acon_hooks",
        "acon_hooks: reading live models",
        ("acon_hooks", "acon_hooks.readings.proving", "acon_hooks.errors"),
    ),
    (
        "acon_figures",
        "acon_figures: drawing",
        ("acon_figures", "acon_figures.inputs", "acon_figures.drawing", "acon_figures.names"),
    ),
    (
        "looking",
        "A run at a glance, and the tables behind the figures",
        tuple(
            f"acon_analysis.{name}"
            for name in ("runs.examples", "plotdata.overview", "runs.images", "data.denormalize",
                         "statistics.beta_densities", "statistics.beta_clusters", "plotdata.depth",
                         "plotdata.channels", "plotdata.sample_extremes", "plotdata.measure_ranks",
                         "plotdata.unit_curves")
        ),
    ),
    (
        "results",
        "Measured results that come with the package",
        ("acon_analysis.studies.results", "acon_analysis.training.logs",
         "acon_analysis.studies.experiments"),
    ),
    (
        "trials",
        "Activations tried side by side",
        ("acon_analysis.studies.activation_trials", "acon_analysis.studies.trial_tables"),
    ),
    ("family", "family: activation functions", ("acon_analysis.family",)),
    ("layers", "layers: activations as torch modules", ("acon_analysis.layers",)),
    (
        "statistics",
        "Statistics of linearity",
        tuple(
            f"acon_analysis.{name}"
            for name in (
                "statistics.linearity", "statistics.other_measures", "statistics.gaussian",
                "statistics.jackknife", "statistics.causes", "runs.compare",
                "statistics.beta_matrix", "statistics.beta_summary",
            )
        ),
    ),
    (
        "null_model",
        "The null model of β",
        tuple(
            f"acon_analysis.{name}"
            for name in ("statistics.batchnorm_null", "statistics.beta_variance",
                         "statistics.redrawn_null", "statistics.verdicts")
        ),
    ),
    (
        "replacement",
        "Plans and proofs of replacement",
        (
            "acon_hooks.replacement.plan", "acon_analysis.studies.replacement_ranks",
            "acon_hooks.replacement.linearizing", "acon_hooks.replacement.fitting",
            "acon_hooks.replacement.verifying", "acon_hooks.replacement.damage",
            "acon_hooks.engine.plans", "acon_hooks.replacement.gate_changes",
            "acon_hooks.explainers.importance", "acon_hooks.explainers.explaining",
        ),
    ),
    (
        "data",
        "Images, networks and checkpoints",
        (
            "acon_analysis.data.sources", "acon_analysis.data.preprocess",
            "acon_analysis.models.registry",
            "acon_analysis.models.checkpoints", "acon_analysis.errors",
            "acon_analysis.runs.verify", "acon_hooks.captures.plan",
            "acon_hooks.engine.feeding", "acon_hooks.engine.feed",
        ),
    ),
    ("paper", "paper: the printed tables", ("acon_analysis.paper",)),
)  # fmt: skip

HEAD = "..\n   Written at build time by docs/acon_docs/interface.py.\n"


def public_names(module: Any) -> list[str]:
    """Return the names of a module that belong to its reference, in order."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]
    return sorted(own)


def _identity(module: str, name: str, value: Any) -> str:
    if inspect.isfunction(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{module}.{name}"


def _entry(module: Any, name: str, value: Any) -> str:
    path = f"{module.__name__}.{name}"
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        lines = [f".. {kind}:: {path}", "   :members:"]
    elif inspect.isfunction(value):
        lines = [f".. autofunction:: {path}"]
    elif inspect.ismodule(value):
        return f".. py:data:: {path}\n\n   The module `{value.__name__}`.\n"
    else:
        lines = [f".. py:data:: {path}", "", *(f"   {line}" for line in _comment(module, name)), ""]
        if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            lines += [f"   - ``{key}``: {text}" for key, text in value.items()]
    return "\n".join(lines) + "\n"


def _comment(module: Any, name: str) -> list[str]:
    """Return what ``#:`` or a docstring says of a constant, where it was written."""
    room, value = module.__name__.partition(".")[0], getattr(module, name)
    homes = [module.__name__, *(one for one in sorted(sys.modules) if one.startswith(f"{room}."))]
    for home in homes:
        if vars(sys.modules[home]).get(name) is value:
            docs = ModuleAnalyzer.for_module(home).find_attr_docs()
            if ("", name) in docs:
                return docs["", name]
    return []


def _module(name: str, seen: dict[str, str]) -> str:
    module = importlib.import_module(name)
    title = f"``{name}``"
    parts = [title, "-" * len(title), "", f".. py:module:: {name}", "   :no-index-entry:", ""]
    text = inspect.getdoc(module)
    if text:
        parts += [f".. automodule:: {name}", "   :no-index:", ""]
    same = []
    for one in public_names(module):
        value = getattr(module, one)
        identity = _identity(name, one, value)
        if identity in seen:
            same.append(f"``{one}`` is `{seen[identity]}`")
            continue
        seen[identity] = f"{name}.{one}"
        parts.append(_entry(module, one, value))
    if same:
        parts += ["Described elsewhere: " + "; ".join(same) + ".", ""]
    return "\n".join(parts)


def commands() -> dict[str, str]:
    """Return the help text of every command, the group's own under the empty name."""
    import typer
    from typer.testing import CliRunner

    from acon_analysis.cli import app

    group: Any = typer.main.get_command(app)
    runner = CliRunner(env={"COLUMNS": "96", "NO_COLOR": "1"})
    texts = {}
    for name in ("", *group.commands):
        arguments = [name, "--help"] if name else ["--help"]
        result = runner.invoke(app, arguments, prog_name="acon", terminal_width=96)
        if result.exit_code:
            raise RuntimeError(f"acon {' '.join(arguments)} failed: {result.output}")
        texts[name] = result.output
    return texts


def write(folder: "Folder") -> None:
    """Write the pages of the public names and of the command line."""
    seen: dict[str, str] = {}
    for file, title, modules in PAGES:
        body = "\n".join(_module(name, seen) for name in modules)
        folder.page(f"reference/{file}.rst", f"{HEAD}\n{title}\n{'=' * len(title)}\n\n{body}")
    parts = [
        "# The command line",
        "Exit status: 0, 1 (failed) or 2 (wrong usage). An error is one readable line; "
        "`acon --debug COMMAND` shows its traceback.",
    ]
    for name, text in commands().items():
        parts += [f"## `acon {name}`" if name else "## `acon`"]
        parts += [f"```text\n{text.strip()}\n```"]
    folder.page("reference/commands.md", "\n\n".join(parts))
    listed = "\n".join(file for file, *_ in PAGES)
    folder.page(
        "reference/index.md",
        "# Reference\n\nWritten from the docstrings, the column tables and the commands at build "
        "time.\n\n```{toctree}\n:maxdepth: 1\n\ncommands\ncolumns\nactivations\n" + listed
        + "\n```\n",
    )  # fmt: skip
