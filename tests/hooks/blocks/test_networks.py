"""Blocks of real networks: every way to differentiate, tokens, states, and what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_hooks.blocks import gathering, triples
from acon_hooks.blocks.finding import repeated_blocks
from affine_oracle import nested_r2
from networks import Network

pytestmark = pytest.mark.filterwarnings("ignore:the activations inside say little")


def tokens(count: int = 64, length: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return list(torch.split(torch.randint(0, 50, (count, length), generator=generator), 16))


def images(count: int = 48, side: int = 32) -> list[Tensor]:
    return list(
        torch.split(
            torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(4)), 16
        )
    )


def llama() -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    network: nn.Module = LlamaForCausalLM(config)
    return network.eval()


def dense() -> Network:
    """A shortcut around two layers with tanh between them."""
    return Network(
        lambda n, x: x + n.second(n.act(n.first(x))),
        first=nn.Linear(5, 7),
        act=nn.Tanh(),
        second=nn.Linear(7, 5),
    )


def test_numbers_are_those_of_a_dense_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triples, "ERROR", 0.0)
    monkeypatch.setattr(triples, "MOST_ROUNDS", 1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 5), dense(), nn.Tanh()).double().eval()
    x = torch.randn(60, 5, dtype=torch.float64)
    row = acon.block_linearity(network, list(torch.split(x, 6)), ["1"], seed=7).iloc[0]

    with torch.no_grad():
        inputs = network[0](x)
        outputs = network[1](inputs)
    generator = np.random.default_rng(7)
    order = np.argsort(generator.permutation(10))
    above, below = np.zeros((2, 10, 6))
    for batch in range(10):
        for k in range(6):
            at, first, second = (6 * order[(batch - step) % 10] + k for step in range(3))
            jacobian = torch.func.jacrev(network[1])(inputs[at]).detach()
            above[batch, k] = float((jacobian @ (inputs[first] - inputs[second])).square().sum())
            below[batch, k] = float((outputs[first] - outputs[second]).square().sum())
    ratio = above.sum() / below.sum()
    rest = above - ratio * below
    spreads = [np.square(rest.sum(i)).sum() * n / (n - 1) for i, n in ((0, 6), (1, 10))]
    error = np.sqrt(max(spreads)) / below.sum() / (2 * np.sqrt(ratio))
    assert row["nlc"] == pytest.approx(np.sqrt(ratio), abs=1e-9)
    assert row["nlc_error"] == pytest.approx(error, rel=1e-9)

    folds = [np.concatenate([generator.permutation(5) for _ in range(2)])[:6] for _ in range(10)]
    expected = nested_r2(inputs.numpy(), outputs.numpy(), np.concatenate(folds))
    assert (row["r2"], row["r2_without_residual"]) == pytest.approx(expected, abs=1e-6)
    assert (row["n"], row["dimension"], row["vectors"]) == (60, 5, "samples")


def test_l_inside_is_that_of_a_fit_by_hand() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 5), dense(), nn.Tanh()).eval()
    x = torch.randn(200, 5)
    row = acon.block_linearity(network, list(torch.split(x, 20)), ["1"]).iloc[0]
    with torch.no_grad():
        before = network[1].first(network[0](x)).double().numpy()  # type: ignore[operator]
    after = np.tanh(before)
    line = [np.polyfit(a, b, 1) for a, b in zip(before.T, after.T, strict=True)]
    rest = sum(
        np.square(b - np.polyval(f, a)).sum()
        for a, b, f in zip(before.T, after.T, line, strict=True)
    )
    assert row["elementwise_L"] == pytest.approx(
        1 - rest / np.square(after - after.mean(0)).sum(), abs=1e-6
    )


def planted(network: nn.Module, path: str, block: nn.Module, data: list[Tensor]) -> pd.Series:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, block.eval())
    return acon.block_linearity(network, data, [path]).iloc[0]


def test_a_linear_block_planted_in_a_resnet() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=5).eval()
    convolutions = nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3, padding=1)
    )
    row = planted(network, "layer1.1", convolutions, images())
    assert row["nlc"] == pytest.approx(1, abs=1e-5)
    assert row["vectors"] == "mixes positions"
    relu = planted(network, "layer1.1", nn.ReLU(inplace=True), images())
    assert relu["vectors"] == "positions"
    assert relu["activation"] == "layer1.1"
    assert relu["nlc"] + relu["nlc_change"] == pytest.approx(1, abs=0.05)


class Mean(nn.Module):
    """Every token gets the mean of all, mapped: attention with fixed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(192, 192)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        out: Tensor = x + self.value(x).mean(1, keepdim=True)
        return out


def test_fixed_attention_planted_in_a_vit() -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=5).eval()
    row = planted(network, "blocks.1", Mean(), images())
    assert row["nlc"] == pytest.approx(1, abs=1e-5)
    assert row["vectors"] == "mixes positions"


def test_a_network_of_tokens_is_a_function_of_its_embeddings() -> None:
    network = llama()
    table = acon.block_linearity(network, tokens())
    assert list(table["block"]) == ["model.layers.0", "model.layers.1", "whole network"]
    assert (table["nlc_error"] < 0.2 * table["nlc"]).all()
    mlp = acon.block_linearity(
        network, tokens(), ["model.layers.0.mlp", "model.layers.0.self_attn"]
    )
    assert list(mlp["vectors"]) == ["mixes positions", "positions"]  # attention ends first
    assert list(mlp["block"]) == ["model.layers.0.self_attn", "model.layers.0.mlp"]
    assert list(mlp["activation"]) == ["", "model.layers.0.mlp.act_fn"]

    class FromEmbeddings(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: Tensor) -> Any:
            return self.inner(inputs_embeds=x, use_cache=False)

    with torch.no_grad():
        embedded = [network.get_input_embeddings()(ids) for ids in tokens()]  # type: ignore[operator]
    direct = acon.block_linearity(FromEmbeddings().eval(), embedded, ["whole network"]).iloc[0]
    whole = table.iloc[2]
    for name in ("nlc", "nlc_error", "r2", "dimension"):
        assert direct[name] == pytest.approx(whole[name], rel=1e-5)


def test_masks_stay_with_their_samples() -> None:
    """With a mask of each sample's own, x' and x'' have other masks than x."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=24)  # fmt: skip
    network: nn.Module = BertModel(config)
    network.eval()

    def forward(model: nn.Module, ids: Tensor) -> Any:
        return model(ids, attention_mask=(ids < 40).long())

    table = acon.block_linearity(network, tokens(), forward=forward)
    assert list(table["block"]) == ["encoder.layer.0", "encoder.layer.1", "whole network"]
    assert table["nlc"].between(0.3, 3).all()


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layers_are_measured_on_the_slow_path(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    network = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    data = list(torch.split(torch.randn(64, 5, 16), 16))
    table = acon.block_linearity(network, data)
    assert list(table["block"]) == ["layers.0", "layers.1", "whole network"]
    assert table["nlc"].notna().all()
    assert torch.backends.mha.get_fastpath_enabled()


def test_recurrent_layers_are_differentiated_backwards_twice() -> None:
    torch.manual_seed(0)
    network = Network(
        lambda n, x: n.head(n.lstm(x)[0][:, -1]),
        lstm=nn.LSTM(6, 8, batch_first=True),
        head=nn.Linear(8, 3),
    ).eval()
    with torch.no_grad():
        for value in network.lstm.parameters():
            value.mul_(0.01)  # nearly linear
    table = acon.block_linearity(network, list(torch.split(torch.randn(96, 4, 6), 16)), ["lstm"])
    assert table["nlc"].iloc[0] == pytest.approx(1, abs=1e-3)
    assert table["vectors"].iloc[0] == "mixes positions"


def test_uses_of_one_block_have_rows_of_their_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.act = nn.Linear(6, 6), nn.ReLU()
            self.all = nn.Sequential(self.block, self.act)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.all(self.all(x) + 100)
            return out

    torch.manual_seed(0)
    table = acon.block_linearity(
        Twice().eval(), list(torch.split(torch.randn(400, 6), 40)), ["all"]
    )
    assert list(table["block"]) == ["all (call 0)", "all (call 1)"]
    assert list(table["n"]) == [400, 400]
    assert table["inside"].iloc[0] != table["inside"].iloc[1]
    assert (table["nlc"] + table["nlc_change"]).to_numpy() == pytest.approx(1, abs=0.15)


def test_samples_in_order_of_their_classes_are_mixed() -> None:
    """Batches of one class each; pairs within a batch would miss how classes differ."""
    torch.manual_seed(0)
    classes = torch.arange(16).repeat_interleave(64)
    x = torch.randn(1024, 4) * 0.1 + torch.randn(16, 4)[classes]
    network = nn.Sequential(
        Network(lambda n, x: torch.relu(n.linear(3 * x)), linear=nn.Linear(4, 12)), nn.Tanh()
    ).eval()
    ordered = acon.block_linearity(network, list(torch.split(x, 32)), ["0"]).iloc[0]
    mixed = acon.block_linearity(
        network, list(torch.split(x[torch.randperm(1024)], 32)), ["0"]
    ).iloc[0]
    error = np.hypot(ordered["nlc_error"], mixed["nlc_error"])
    assert ordered["nlc"] == pytest.approx(mixed["nlc"], abs=4 * error)
    assert ordered["r2"] == pytest.approx(mixed["r2"], abs=0.05)


def test_memory_is_announced_capped_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(dense(), dense(), nn.Tanh()).eval()
    data = list(torch.split(torch.randn(400, 5), 40))
    said: list[str] = []
    full = acon.block_linearity(network, data, announce=said.append)
    assert said == [
        "3 blocks measured with up to 0 MB for sums and 0 MB for the inputs of 40 batches of 10, "
        "whatever the number of samples"
    ]
    monkeypatch.setattr(gathering, "SUM_BYTES", 0)
    monkeypatch.setattr(gathering, "KEPT_BYTES", 3 * 4 * 10 * 5 * 5)
    capped = acon.block_linearity(network, data, announce=said.append)
    assert "of 5 batches of 10" in said[1]
    assert said[1].endswith("too large for r2: 0, 1, whole network")
    assert capped["r2"].isna().all()
    error = np.hypot(capped["nlc_error"], full["nlc_error"])
    assert ((capped["nlc"] - full["nlc"]).abs() < 4 * error).all()
    monkeypatch.setattr(gathering, "KEPT_BYTES", 1000)
    with pytest.raises(AconError, match=r"3 blocks need 3 batches .* measure fewer blocks"):
        acon.block_linearity(network, data)


def test_the_seed_decides() -> None:
    torch.manual_seed(0)
    network, data = (
        nn.Sequential(dense(), nn.Tanh()).eval(),
        list(torch.split(torch.randn(200, 5), 20)),
    )
    first, again, other = (acon.block_linearity(network, data, ["0"], seed=s) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["r2"].iloc[0] != other["r2"].iloc[0]


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("resnet18", 8, "layer1.0", "layer4.1"),
        ("convnext_atto", 12, "stages.0.blocks.0", "stages.3.blocks.1"),
        ("swin_tiny_patch4_window7_224", 12, "layers.0.blocks.0", "layers.3.blocks.1"),
        ("mixer_s32_224", 8, "blocks.0", "blocks.7"),
        ("efficientnet_b0", 14, "blocks.1.0", "blocks.5.3"),
        ("vit_tiny_patch16_224", 12, "blocks.0", "blocks.11"),
        ("inception_v3", 16, "Conv2d_1a_3x3", "Mixed_7c"),
    ],
)
def test_blocks_are_found_by_structure(name: str, count: int, first: str, last: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    found = list(repeated_blocks(network))
    assert (len(found), found[0], found[-1]) == (count, first, last)


def test_a_network_without_repeated_blocks_has_its_largest_parts() -> None:
    def part() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    network = nn.Sequential(nn.Sequential(part(), part(), nn.Linear(3, 2)))
    assert list(repeated_blocks(network)) == ["0.0", "0.1"]
    assert list(repeated_blocks(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))) == []
