"""Networks of transformers (configurations only, random weights), with padding and without."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
import acon_hooks
from acon_analysis.errors import UsageError
from network_oracle import assert_measured, captured, linearity, seen
from networks import Network

transformers = pytest.importorskip("transformers", reason="extra text")

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 24}
WORDS = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
T5: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=2, n_head=2, **WORDS)
    ),
    "bert": lambda: transformers.BertForSequenceClassification(
        transformers.BertConfig(num_labels=3, **SMALL, **WORDS)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(num_key_value_heads=2, **SMALL, **WORDS)
    ),
}


def network(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network whose activations are bent: with larger weights than they begin with."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.mul_(8)
    return model


def batches(sizes: tuple[tuple[int, ...], ...] = ((7, 3, 5), (9, 4))) -> list[dict[str, Tensor]]:
    """Tokens padded on the right to the longest sentence of a batch."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for lengths in sizes:
        ids, mask = torch.zeros(2, len(lengths), max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            ids[row, :length] = torch.randint(3, 50, (length,), generator=generator)
            mask[row, :length] = 1
        made.append({"input_ids": ids, "attention_mask": mask})
    return made


def activations(model: nn.Module) -> list[str]:
    """Return the paths of activation modules by their place in the architecture."""
    return [
        name for name, module in model.named_modules()
        if name.endswith((".act", ".act_fn", ".intermediate_act_fn", ".activation_fn",
                          "pooler.activation"))
    ]  # fmt: skip


def by_name(model: nn.Module, batch: Any) -> Any:
    return model(**batch)


def without_padding(given: list[dict[str, Tensor]], key: str) -> Callable[[int, Tensor], Any]:
    """Return what cuts (N, T, C) or (N, C) of a batch into samples."""

    def parts(number: int, value: Tensor) -> list[Tensor]:
        valid = given[number][key].bool()
        return [(v if value.ndim == 2 else v[m])[None] for v, m in zip(value, valid, strict=True)]

    return parts


@pytest.mark.parametrize("name", list(NETWORKS))
def test_text_with_padding(name: str, tmp_path: Path) -> None:
    model, given = network(NETWORKS[name]), batches()
    found = activations(model)
    assert len(found) == (3 if name == "bert" else 2)
    run = captured(model, given, tmp_path / "run", mask="attention_mask", kinds=("activation",))
    axes = {layer: 1 if "pooler" in layer else 2 for layer in found}
    parts = without_padding(given, "attention_mask")
    assert_measured(run, model, given, axes, forward=by_name, tolerance=1e-6, parts=parts)
    L = run.linearity()["L"]
    assert ((L > 0.05) & (L < 0.999)).all()
    single = [{k: v[i : i + 1, : int(b["attention_mask"][i].sum())] for k, v in b.items()}
              for b in given for i in range(len(b["input_ids"]))]  # fmt: skip
    alone = captured(model, single, tmp_path / "alone", kinds=("activation",))
    for by in ("layer", "channel", "sample"):
        one, two = run.linearity(by=by)["L"], alone.linearity(by=by)["L"]
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


def test_images(tmp_path: Path) -> None:
    """As a tensor, and as a dict with labels that the network also takes."""
    config = transformers.ViTConfig(image_size=16, patch_size=4, num_labels=3, **SMALL)
    model = network(lambda: transformers.ViTForImageClassification(config))
    images, labels = torch.randn(5, 3, 16, 16), torch.tensor([0, 2, 1, 0, 1])
    run = captured(model, [images], tmp_path / "run", kinds=("activation",))
    axes = dict.fromkeys(activations(model), 2)
    assert len(axes) == 2
    assert_measured(run, model, [images], axes, tolerance=1e-6)
    named = [{"pixel_values": images, "labels": labels}]
    both = captured(model, named, tmp_path / "both", kinds=("activation",))
    np.testing.assert_array_equal(run.linearity()["L"], both.linearity()["L"])
    assert [int(label) for label in both.samples["label"]] == labels.tolist()


def test_gated_products_without_padding(tmp_path: Path) -> None:
    """SwiGLU of Llama: the product of two linear layers' outputs, called as a function."""
    model, given = network(NETWORKS["llama"]), batches()
    single = [{k: v[i : i + 1, : int(b["attention_mask"][i].sum())] for k, v in b.items()}
              for b in given for i in range(len(b["input_ids"]))]  # fmt: skip
    kinds = ("activation", "product")
    run = captured(model, given, tmp_path / "run", mask="attention_mask", kinds=kinds)
    alone = captured(model, single, tmp_path / "alone", kinds=kinds)
    assert list(run.layers["kind"]).count("product") == 2
    for by in ("layer", "channel", "sample"):
        one, two = run.linearity(by=by)["L"], alone.linearity(by=by)["L"]
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


def test_conductance_of_a_network_that_returns_more_than_scores() -> None:
    def scores(inner: nn.Module) -> Network:
        return Network(lambda n, x: n.inner(pixel_values=x).logits, inner=inner)

    config = transformers.ViTConfig(image_size=16, patch_size=4, num_labels=3, **SMALL)
    model = network(lambda: transformers.ViTForImageClassification(config))
    images = torch.randn(2, 3, 16, 16)
    options: dict[str, Any] = {"kinds": ("activation",), "steps": 4}
    want = acon_hooks.conductance(scores(model).eval(), images, **options)
    for more in (
        {},
        {"output": "logits"},
        {"forward": lambda model, batch: model(pixel_values=batch, return_dict=False), "output": 0},
    ):
        found = acon_hooks.conductance(model, images, **options, **more)
        assert [f"inner.{name}" for name in found["layer"]] == list(want["layer"])
        for column in ("conductance", "L"):
            np.testing.assert_allclose(found[column], want[column], rtol=1e-6)


@pytest.mark.parametrize("gate", ["relu", "gated-gelu"])
def test_an_encoder_and_a_decoder_with_masks_of_their_own(gate: str, tmp_path: Path) -> None:
    """Even where both have as many positions."""
    config = transformers.T5Config(decoder_start_token_id=0, feed_forward_proj=gate, **T5, **WORDS)
    model = network(lambda: transformers.T5ForConditionalGeneration(config))
    given = batches()
    for batch, other in zip(given, batches(((5, 7, 2), (3, 6))), strict=True):
        batch |= {f"decoder_{key}": value for key, value in other.items()}
    masks = {"encoder": "attention_mask", "decoder": "decoder_attention_mask"}
    run = captured(model, given, tmp_path / "run", mask=masks, kinds=("activation",))
    assert run.manifest["identity"]["mask"] == masks
    channels, layers = run.linearity(by="channel"), run.linearity().set_index("layer")["L"]
    assert len(layers) == 4
    for part, key in masks.items():
        names, parts = [n for n in layers.index if n.startswith(part)], without_padding(given, key)
        assert len(names) == 2
        for (name, _), found in seen(model, given, names, by_name).items():
            cut = [
                pair
                for number, (x, y) in enumerate(found)
                for pair in zip(parts(number, x), parts(number, y), strict=True)
            ]
            want = linearity(cut, 2)
            got = channels[channels["layer"] == name]["L"]
            np.testing.assert_allclose(got, want.channel, rtol=0, atol=1e-6)
            assert layers[name] == pytest.approx(want.layer, abs=1e-6)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_function_takes_the_arguments_by_name(name: str) -> None:
    """Replacement by lines: padded positions count neither in the fit nor in the measurement."""
    model, given = network(NETWORKS[name]), batches()
    layers = acon.find_layers(model, ("activation",), given[0])
    assert [layer.name for layer in layers] == activations(model)
    encoding = transformers.BatchEncoding(given[0])
    again = acon.find_layers(model, ("activation",), encoding)
    assert [(layer.name, layer.axis) for layer in again] == [
        (layer.name, layer.axis) for layer in layers
    ]
    options: dict[str, Any] = {"mask": "attention_mask"}
    fit = acon_hooks.fit_units(model, given, **options)
    plan = fit.plan(budget=0.3)
    report = acon_hooks.verify_plan(model, plan, given, **options)
    single = [{k: v[i : i + 1, : int(b["attention_mask"][i].sum())] for k, v in b.items()}
              for b in given for i in range(len(b["input_ids"]))]  # fmt: skip
    alone = acon_hooks.fit_units(model, single)
    np.testing.assert_allclose(fit.table["slope"], alone.table["slope"], rtol=0, atol=1e-5)
    other = acon_hooks.verify_plan(model, plan, single)
    assert set(other.summary) == set(report.summary)
    for key, value in other.summary.items():
        assert report.summary[key] == pytest.approx(value, rel=2e-3, abs=2e-5), key
    for column in ("predicted", "measured"):
        np.testing.assert_allclose(
            report.layers[column], other.layers[column], rtol=1e-3, atol=1e-6
        )
    whole = acon_hooks.verify_plan(model, plan, given)
    assert whole.layers["measured"].to_numpy() != pytest.approx(report.layers["measured"], rel=1e-3)
    with pytest.raises(UsageError, match="mask: batch 0 has no key"):
        acon_hooks.fit_units(model, given, mask="mask")
