"""The typer application, and how errors leave it: one line and an exit status."""

import os
import sys
import traceback
import warnings
from importlib import metadata
from typing import Annotated, Any

import typer
import typer.core

from acon_analysis.errors import AconError, UsageError


class _InterruptedError(AconError):
    """Ctrl-C, said in one line."""

    exit_code = 130


class _Group(typer.core.TyperGroup):
    """Says what an interruption leaves; typer would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _InterruptedError(
                "interrupted; what is finished stays, the same command continues"
            ) from None


app = typer.Typer(
    cls=_Group,
    help="See how linear or nonlinear a trained network is.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_state = {"debug": False}


@app.callback(invoke_without_command=True)
def _options(
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
    version: Annotated[bool, typer.Option("--version", help="show the version and stop")] = False,
) -> None:
    _state["debug"] = debug
    if version:
        typer.echo(f"acon {metadata.version('acon-analysis')}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors are one line, the exit status is 0, 1 (failed) or 2 (wrong usage)."""
    warnings.showwarning = _show_warning
    try:
        _refuse_empty(sys.argv[1:] if arguments is None else arguments)
        app(args=arguments, standalone_mode=True)
    except AconError as error:
        _fail(error, str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(error, f"{place}{error.strerror or error}", 1)
    except Exception as error:
        _fail(error, _blamed(error), 1)


#: Functions of ours that run a torch function of the network's, and nothing else that can fail.
_LISTENERS = frozenset({"__torch_function__", "_follow", "_run", "function"})


def _blamed(error: Exception) -> str:
    """Say whose code has raised an error: a network's, that of a user's file, or ours."""
    text = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module, function = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if function == "forward" or module == "torch.nn.modules.module":
            part = type(frame.f_locals.get("self")).__name__
            return f"the network failed, in its {part}: {text}"
        if module.startswith("_acon_user_"):
            return f"{frame.f_code.co_filename}, line {line}: {text}"
        if module.startswith("acon_") and function not in _LISTENERS:
            break
    return f"{text} (an error of acon itself; see --debug)"


def _refuse_empty(arguments: list[str]) -> None:
    """Raise for an empty argument, most often a variable without a value in a script.

    As a path it would be the current folder.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if option.startswith("-") and equals and not value.strip():
            raise UsageError(f"{option} is empty")
        if not argument.strip():
            what = before if before.startswith("-") else f"the argument after {before!r}"
            raise UsageError(f"{what if before else 'the first argument'} is empty")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"acon: warning: {message}", err=True)


def _fail(error: BaseException, text: str, code: int) -> None:
    if _state["debug"]:
        raise error
    typer.echo(f"acon: {' '.join(text.split())}", err=True)
    raise SystemExit(code) from None
