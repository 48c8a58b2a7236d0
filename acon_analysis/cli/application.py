"""The typer application, and how errors leave it: one line and an exit status."""

import os
import sys
import warnings
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


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
) -> None:
    _state["debug"] = debug


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
        _fail(error, f"{type(error).__name__}: {error} (an error of acon itself; see --debug)", 1)


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
