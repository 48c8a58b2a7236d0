"""The typer application, and how errors leave it: one line and an exit status."""

import contextlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from acon_analysis.errors import AconError, UsageError
from acon_analysis.files import spelled


class _Group(typer.core.TyperGroup):
    """Passes on what typer would end with a word of its own, "Aborted!" or "Value error,"."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise
        except (KeyboardInterrupt, EOFError) as error:
            raise _PassedOnError from error


class _PassedOnError(Exception):
    """Stands for its cause."""


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
    """Run the command; errors are one line, the status 0, 1, 2 or 128 and a signal's number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the locale may lack a name's letters
    with _stopping() as signals:
        try:
            _refuse_empty(sys.argv[1:] if arguments is None else arguments)
            with _leaving_out_the_working_folder(), _printing_warnings():
                app(args=arguments, standalone_mode=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except SystemExit as ended:
            if signals:  # while the arguments were read, which typer ends with 130 and no word
                _fail(ended, *_stopped(signals[0]))
            raise
        except (Exception, KeyboardInterrupt) as error:
            cause = error.__cause__ if isinstance(error, _PassedOnError) else error
            if signals or isinstance(cause, KeyboardInterrupt):
                _fail(error, *_stopped(next(iter(signals), signal.SIGINT)))
            _fail(error, *_words(cause))


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt for signals that ask to end, and list them.

    Code that is interrupted may raise something else, as imports of compiled modules do; the list
    says why. In a finaliser Python drops the exception: it is raised again soon. Signals that are
    ignored (``nohup``) stay so.
    """
    seen: list[int] = []
    process, before, printing = os.getpid(), {}, sys.unraisablehook
    timers: list[threading.Timer] = []

    def again(dropped: Any) -> None:
        if not seen or dropped.exc_type is not KeyboardInterrupt:
            printing(dropped)
            return
        timers.append(threading.Timer(0.05, os.kill, (process, seen[0])))
        timers[-1].start()

    def stop(number: int, _: Any) -> None:
        if os.getpid() == process:
            seen.append(number)
            raise KeyboardInterrupt
        if number == signal.SIGTERM:  # in a worker process; the end of this one ends it, too
            os._exit(128 + number)

    names = ("SIGINT", "SIGTERM", "SIGHUP") if threading.current_thread() is _MAIN else ()
    for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, stop)
    sys.unraisablehook = again
    try:
        yield seen
    finally:
        sys.unraisablehook = printing
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


_MAIN = threading.main_thread()


def _stopped(number: int) -> tuple[str, int]:
    """Return what is said of a signal, and the exit status."""
    name = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{name}; what is finished stays, the same command continues", 128 + number


def _words(error: BaseException | None) -> tuple[str, int]:
    """Return what is said of an error, and the exit status."""
    if isinstance(error, AconError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        file = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{file}{error.strerror or error}", 1
    return _blamed(error), 1


#: Functions of ours that run a torch function of the network's, and nothing else that can fail.
_LISTENERS = frozenset({"__torch_function__", "_follow", "_run", "function", "listen"})


#: Functions of PyTorch in which a module runs, not those that load or move it.
_CALLS = frozenset({"_call_impl", "_wrapped_call_impl", "inner"})


def _blamed(error: BaseException | None) -> str:
    """Say whose code has raised an error: a network's, that of a user's file, or ours."""
    text = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    for frame, line in reversed(list(traceback.walk_tb(getattr(error, "__traceback__", None)))):
        module, function = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if function == "forward" or (module == "torch.nn.modules.module" and function in _CALLS):
            part = type(frame.f_locals.get("self")).__name__
            return f"the network failed, in its {part}: {text}"
        if module.startswith("_acon_user_"):
            return f"{frame.f_code.co_filename}, line {line}: {text}"
        if module.startswith("acon_") and function not in _LISTENERS:
            break
    return f"{text} (an error of acon itself; see --debug)"


@contextlib.contextmanager
def _leaving_out_the_working_folder() -> Iterator[None]:
    """Keep libraries from reading code and settings of the folder that the command runs in.

    Worker processes would look there for modules first, and matplotlib, which reads a file of
    settings when it is imported, for that file: it can name a module, and expressions.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        if os.path.lexists("matplotlibrc") and "matplotlib" not in sys.modules:
            with contextlib.chdir(Path(__file__).parent):
                import matplotlib as _  # noqa: F401, ICN001
        yield
    finally:
        _set("PYTHONSAFEPATH", before)


@contextlib.contextmanager
def _printing_warnings() -> Iterator[None]:
    """Print warnings, in worker processes too, where the settings of Python make errors of them."""
    options, variable = list(sys.warnoptions), os.environ.get("PYTHONWARNINGS")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        if any(option.strip().startswith("e") for option in options):
            warnings.simplefilter("default")
            sys.warnoptions[:] = ["default"]
            os.environ["PYTHONWARNINGS"] = "default"
        try:
            yield
        finally:
            sys.warnoptions[:] = options
            _set("PYTHONWARNINGS", variable)


def _set(name: str, value: str | None) -> None:
    """Set an environment variable; None unsets it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _refuse_empty(arguments: list[str]) -> None:
    """Raise for an empty argument, as an unset variable gives: a path, it is this folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if option.startswith("-") and equals and not value.strip():
            raise UsageError(f"{option} is empty")
        if not argument.strip():
            what = before if before.startswith("-") else f"the argument after {before!r}"
            raise UsageError(f"{what if before else 'the first argument'} is empty")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"acon: warning: {spelled(str(message))}", err=True)


def _fail(error: BaseException, text: str, code: int) -> None:
    if _state["debug"]:
        raise error
    typer.echo(f"acon: {spelled(' '.join(text.split()))}", err=True)
    raise SystemExit(code) from None
