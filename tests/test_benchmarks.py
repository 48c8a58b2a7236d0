"""The scripts of the benchmarks, tried small: what they write, not how fast anything is."""

import argparse
import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from acon_analysis import results
from acon_analysis.data import digits
from acon_analysis.models.bottleneck import BottleneckResNet
from acon_analysis.models.release import wilson_interval
from acon_analysis.recipes import RECIPES

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a script by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def tiny(seed: int) -> BottleneckResNet:
    torch.manual_seed(seed)
    return BottleneckResNet("metaacon", input_shape=(1, 8, 8), widths=(4,), blocks=(1,))


def test_a_snapshot_missed_by_a_killed_training_comes_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    beta = script("beta_learning")
    recipe = replace(RECIPES["digits"], epochs=3, batch_size=50)
    monkeypatch.setattr(beta, "VARIANTS", {"tiny": SimpleNamespace(build=tiny, recipe=recipe)})
    monkeypatch.setattr(beta, "open_data", lambda name: digits(name.partition(":")[2]).head(50))
    save = beta.save

    def killed(model: torch.nn.Module, stem: Path, epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        save(model, stem, epoch)

    options = argparse.Namespace(seeds=[0], variants=["tiny"], work=tmp_path / "work")
    with monkeypatch.context() as patched:
        patched.setattr(beta, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            beta.train(options)
    beta.train(options)
    found = sorted(path.name for path in options.work.iterdir())
    epochs = [f"tiny-seed0.epoch{epoch:03d}.safetensors" for epoch in (0, 1, 3)]
    assert found == ["tiny-seed0.csv", *epochs]
    untrained, first, _ = (load_file(options.work / name) for name in epochs)
    assert torch.equal(untrained["fc.weight"], tiny(0).state_dict()["fc.weight"])
    assert not torch.equal(untrained["fc.weight"], first["fc.weight"])


def test_accuracies_of_the_page_on_beta_have_the_interval_of_the_test_images(script: Any) -> None:
    beta = script("beta_learning")
    table = pd.concat([results.table("beta_over_epochs"), results.table("beta_of_long")])
    last = results.table("beta_variants")
    page = beta.text_of(table, last)
    for variant, seed, accuracy in zip(
        last["variant"], last["seed"], last["test_accuracy"], strict=True
    ):
        section = page.partition(f"## {variant}: ")[2].partition("\n## ")[0]
        low, high = wilson_interval(round(10_000 * accuracy), 10_000)
        assert f"seed {seed} {accuracy:.4f} ({low:.4f} to {high:.4f})" in section
    assert "what another seed would change is not in it" in page
    assert "## long: `cifar10_metaacon` by its own recipe (seed 0 is shipped)" in page


def test_networks_of_the_long_training_stand_apart_from_the_variants() -> None:
    long = results.table("beta_of_long")
    assert set(long["variant"]) == {"long"}
    assert "long" not in set(results.table("beta_over_epochs")["variant"])
    assert "seed 0 is shipped" in results.provenance("beta_of_long")
