"""Commands that are asked to end: one line, an exit status that says why, nothing lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import acon_analysis
import captures
import forks
from acon_analysis.cli import main
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from captures import contents, images
from commands import status

SIGNALS = [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")]


def wait(*_: object) -> None:
    time.sleep(60)


@pytest.mark.parametrize("turned_into", [None, ImportError, SystemError, EOFError])
@pytest.mark.parametrize(("number", "word"), SIGNALS)
def test_a_signal_is_one_line_and_an_status(
    number: signal.Signals,
    word: str,
    turned_into: type[Exception] | None,
    digits_run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where the code that is interrupted makes something else of it, as imports do."""

    def interrupted(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt as error:
            if turned_into is None:
                raise
            raise turned_into("initialization failed") from error

    monkeypatch.setattr("acon_analysis.runs.verify.verify_run", interrupted)
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the signal is ignored, as under nohup, and stays so")
    before = signal.getsignal(number)
    assert status("verify", digits_run.path) == 128 + number
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert line.endswith("what is finished stays, the same command continues")
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "word"), SIGNALS)
def test_a_signal_while_arguments_are_read(
    number: signal.Signals,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr("typer.core.TyperGroup.make_context", interrupted)
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the signal is ignored, as under nohup, and stays so")
    assert status("models") == 128 + number
    assert word in capsys.readouterr().err


def test_an_ignored_signal_stays_ignored(digits_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ``nohup``."""

    def hang_up(path: Path) -> object:
        os.kill(os.getpid(), signal.SIGHUP)
        return verify_run(path)

    monkeypatch.setattr("acon_analysis.runs.verify.verify_run", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert status("verify", digits_run.path) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_file_that_ends_early_is_not_aborted(
    digits_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*_: object) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr("acon_analysis.runs.verify.verify_run", ends)
    assert status("verify", digits_run.path) == 1
    said = capsys.readouterr().err
    assert "Aborted" not in said
    assert "EOFError: Ran out of input" in said


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def test_an_interruption_of_the_first_imports(tmp_path: Path) -> None:
    (tmp_path / "typer").mkdir()
    (tmp_path / "typer" / "__init__.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "acon_analysis", "--help"], cwd=tmp_path, check=False,
        capture_output=True, text=True, env=environment(PYTHONPATH=path),
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr == "acon: interrupted; nothing was begun\n"


def images_captured() -> object:
    """The images of every capture."""
    return images(61)


def capture(out: Path, delay: float = 60, number: int = signal.SIGKILL) -> tuple[int, str]:
    """Run ``acon capture``, with a signal after a delay; return its status and what it said."""
    process = forks.start(
        main, ["capture", f"{captures.__file__}:tiny", "--data", f"{__file__}:images_captured",
        "--out", str(out), "--unit", "8", "--batch-size", "4", "--threads", "1"],
        folder=out.parent,
    )  # fmt: skip
    process.join(delay)
    if process.is_alive() and process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
    process.join()
    return process.exitcode or 0, (out.parent / "err").read_text()


@pytest.mark.slow
def test_captures_interrupted_at_random_moments_continue(tmp_path: Path) -> None:
    chance, codes, runs = random.Random(0), list[int](), list[Path]()
    for out in (tmp_path / "first", tmp_path / "whole"):  # with the first the server starts
        start = time.perf_counter()
        assert capture(out)[0] == 0
        whole = time.perf_counter() - start
    while len(codes) < 12:
        out = tmp_path / f"run{len(runs)}"
        runs.append(out)
        while len(codes) < 12:
            number = SIGNALS[len(codes) % 3][0]
            code, said = capture(out, chance.uniform(0.01, whole), number)
            if code == 0:
                break
            codes.append(code)
            assert code == 128 + number, said
            assert "Traceback" not in said
            assert said.splitlines()[-1].endswith("the same command continues")
        assert capture(out)[0] == 0
    assert len(set(codes)) == 3
    for out in runs:
        assert verify_run(out).sound
        assert contents(out) == contents(tmp_path / "whole")
        assert not (out / "tmp").exists()


def test_an_interrupt_within_a_finaliser_is_not_lost(tmp_path: Path) -> None:
    """Python drops what is raised there; a network's own finaliser stands for those of torch."""
    (tmp_path / "net.py").write_text(
        "import os, signal, time\n"
        "class Left:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.01)\n"
        "def make():\n"
        "    Left()\n"
        "    time.sleep(60)\n"
    )
    done = forks.run(main, ["layers", "net.py:make"], cwd=tmp_path, timeout=50)
    assert done.returncode == 128 + signal.SIGTERM
    said = "acon: ended by SIGTERM; what is finished stays, the same command continues\n"
    assert done.stderr == said


def test_names_that_the_locale_has_no_letters_for(tmp_path: Path) -> None:
    """Under a C locale without UTF-8, and with a name that is not UTF-8."""
    script = (
        "import os, sys; from acon_analysis.cli import main\n"
        "for name in ('gr\\xf6\\xdfe \\U0001f600', 'b\\udcff'):\n"
        "    out = os.fsencode(sys.argv[1]) + b'/' + name.encode('utf-8', 'surrogateescape')\n"
        "    for command in (['capture', 'digits_relu', '--data', 'digits', '--limit', '8',\n"
        "                     '--out', os.fsdecode(out)], ['verify', os.fsdecode(out)],\n"
        "                    ['summary', os.fsdecode(out)]):\n"
        "        try: main(command)\n"
        "        except SystemExit as ended: assert not ended.code, command\n"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True, text=True,
        errors="replace", env=environment(**locale),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sound") == 2
    assert acon_analysis.open_run(tmp_path / "größe 😀").complete
