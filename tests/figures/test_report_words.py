"""What the page of a run says: what to do next, and what its words mean."""

import contextlib
import html
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import reportpages
from acon_analysis.errors import UsageError
from acon_analysis.runs.run import Run, open_run
from acon_figures.report import rendering, words
from acon_hooks.captures.capturing import capture
from acon_hooks.replacement.gate_changes import gate_use
from captures import images, tiny
from networks import Network

pytestmark = pytest.mark.filterwarnings("ignore:.*untrained.*")


def test_meanings_name_what_is_missing_as_tables_show_it() -> None:
    assert "–" in words.HINTS["L_gate"]
    assert not [name for name, meaning in words.HINTS.items() if "NaN" in meaning]


def test_the_page_says_what_to_do_next_and_explains_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reportpages.captured(reportpages.Plain, images(1), tmp_path / "run one")
    text = html.unescape(rendering.render(run))
    assert "Too few samples for intervals" in text
    assert "– to –" not in text
    commands = re.findall(r"<dd><code>(acon .*?)</code>", re.sub(r"</?span>", "", text))
    assert commands[-1] == "acon report RUN OTHER_RUN --out compared.html"
    assert "RUN: the folder 'run one'." in text
    with contextlib.chdir(tmp_path):
        here = words.next_steps(open_run("run one"), run.linearity(columns="all"))
    assert here["steps"][-1][1] == "acon report 'run one' OTHER_RUN --out compared.html"
    assert "RUN:" not in here["note"].replace("_RUN:", "")
    assert any(command.startswith("acon replace MODEL --fit DATA ") for command in commands)
    assert not any("gates" in command for command in commands)  # the network has none
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text.partition('id="glossary"')[2]))
    assert {"L", "s_c", "channel", "Gaussian inputs"} <= shown.keys()
    assert not shown.keys() & {"p1≈p2", "constant gate", "κ", "call 0, call 1", "null"}
    gated = reportpages.captured(tiny, images(16), tmp_path / "gated")
    assert "acon gates" in rendering.render(gated)
    monkeypatch.setattr(Run, "model", "it's.py:net")
    monkeypatch.setattr(Run, "data_name", "my.py:batches")
    steps = words.next_steps(run, run.linearity(columns="all"))["steps"]
    assert steps[-2][1] == """acon blocks 'it'"'"'s.py:net' --data my.py:batches"""
    monkeypatch.setattr(Run, "model", "/home/her/it.py:net")
    steps = words.next_steps(run, run.linearity(columns="all"))["steps"]
    assert steps[-2][1] == "acon blocks MODEL --data my.py:batches"


def _gated(gate: nn.Module, *, squeezed: bool) -> nn.Module:
    """A product of two linear layers' outputs, one of them through an activation."""
    return Network(
        lambda n, x: (x if squeezed else n.a(x)) * n.act(n.b(x)),
        a=nn.Linear(4, 4), b=nn.Linear(4, 4), act=gate,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "offered"),
    [
        (_gated(nn.SiLU(), squeezed=False), False),
        (nn.Sequential(_gated(nn.Sigmoid(), squeezed=True)), True),
        (nn.Sequential(nn.Linear(4, 8), nn.GLU()), True),
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU()), False),
    ],
)
def test_gates_are_offered_where_they_can_be_held(
    network: nn.Module, offered: bool, tmp_path: Path
) -> None:
    data = [torch.randn(16, 4)]
    run = capture(network.eval(), data, tmp_path / "run", progress=False)
    steps = words.next_steps(run, run.linearity(columns="all"))["steps"]
    said = [what for what, command in steps if command.startswith("acon gates")]
    assert said == ["Ask whether the network uses its gates: hold or exchange them"] * offered
    if offered:
        assert len(gate_use(network, data, ["mean"]))
    else:
        with pytest.raises(UsageError, match="such as silu"):
            gate_use(network, data, ["mean"])
