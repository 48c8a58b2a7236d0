"""Errors of users: one sentence, in notebooks too."""

import pytest


def test_a_notebook_shows_the_sentence_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell.instance()
    try:
        shell.run_cell("import acon_analysis as acon; acon.build_model('digits_rel')")
    finally:
        shell.clear_instance()
    said = capsys.readouterr().out.strip()
    assert said.startswith(
        "UsageError: model: there is no 'digits_rel'; did you mean 'digits_relu'"
    )
    assert "\n" not in said
