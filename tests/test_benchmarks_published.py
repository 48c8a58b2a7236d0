"""Networks trained by others, as the benchmarks fetch and feed them, tried small."""

import importlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import acon_analysis as acon

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a script by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize(
    ("metadata", "changed", "words"),
    [
        ("License: MIT", {}, ""),
        ("Classifier: License :: OSI Approved :: MIT License", {}, ""),
        ("License: Proprietary", {}, "is under 'Proprietary', not 'MIT'"),
        ("License: MIT", {"sha256": "0" * 64}, "has another SHA-256"),
        ("License: MIT", {"megabytes": 0}, "MB, more than 0"),
    ],
)
def test_a_package_that_is_not_what_it_was_is_gone(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str,
    changed: dict[str, Any], words: str,
) -> None:  # fmt: skip
    packages = script("published.packages")
    monkeypatch.setattr(packages, "FOLDER", tmp_path)
    package = replace(packages.Package("some-net", "1.0", "MIT", 1), **changed)
    monkeypatch.setattr(packages, "PACKAGES", {"some-net": package})
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "some_net-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_net.py", "import not_there\nanswer = 42\n")
        wheel.writestr("some_net-1.0.dist-info/METADATA", f"Name: some-net\n{metadata}\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    if words:
        with pytest.raises(packages.GoneError, match=f"some_net-1.0.* {words}"):
            packages.importable("some-net")
        return
    packages.importable("some-net", "not_there:function")
    found = importlib.import_module("some_net")
    assert found.answer == 42
    with pytest.raises(ImportError, match="without what it needs"):
        found.not_there.function()
    for name in ("some_net", "not_there"):
        sys.modules.pop(name, None)


def test_tones_have_the_pitch_that_they_are_said_to_have(script: Any) -> None:
    inputs = script("published.inputs")
    waves, pitch = inputs.tones(4, 0.5, 0)
    for wave, truth in zip(waves, pitch, strict=True):
        power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
        at = np.fft.rfftfreq(len(wave), 1 / inputs.RATE)
        near = (at > truth.min() - 5) & (at < truth.max() + 5)
        below = (at > 20) & (at < truth.min() - 12)
        assert power[near].max() > 100 * power[below].max()


def test_a_foreign_meta_acon_is_found_and_its_variants_begin_alike(script: Any) -> None:
    signals = script("published.signals")
    x, y = signals.signals(8, 0)
    assert x.shape == (8, 1, signals.LENGTH)
    assert set(y.tolist()) <= set(range(len(signals.CLASSES)))
    meta = signals.build("meta", 0).eval()
    assert [layer.kind for layer in acon.find_layers(meta, example=x)] == ["meta_acon"] * 7
    for variant, learned in (("parameter", 7), ("frozen", 0)):
        other = signals.build(variant, 0)
        own = dict(meta.named_parameters())
        assert all(torch.equal(v, own[k]) for k, v in other.named_parameters() if "beta" not in k)
        betas = [v for k, v in other.named_parameters() if "beta" in k and v.requires_grad]
        assert len(betas) == learned
