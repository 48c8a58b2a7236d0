"""Compiled models and the encoder's fast path: watched on the slower path, said once, put back."""

import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acon_hooks import Tap, guards
from acon_hooks.errors import SlowerModelWarning


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "_said", set())


def encoder(**options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation=nn.GELU(), batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2).eval()


def seen(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}

    def observe(layer: Any, call: int, x: Tensor, y: Tensor, beta: Any) -> None:
        values[layer.name] = x.clone()

    with torch.no_grad(), Tap(model, kinds=("activation",), observe=observe) as tap:
        model(*args, **kwargs)
        tap.take()
    return values


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("masked", [False, True])
def test_activations_of_encoders_are_seen_with_and_without_a_mask(masked: bool) -> None:
    model, x = encoder(), torch.randn(4, 6, 16)
    mask = torch.arange(6) >= torch.tensor([6, 5, 4, 3])[:, None] if masked else None
    with pytest.warns(SlowerModelWarning, match="module by module"):
        found = seen(model, x, src_key_padding_mask=mask)
    assert list(found) == ["layers.0.activation", "layers.1.activation"]
    first: Any = model.layers[0]
    with torch.no_grad():  # the first layer by hand
        attended = first.self_attn(x, x, x, key_padding_mask=mask, need_weights=False)[0]
        expected = first.linear1(first.norm1(x + attended))
    real = torch.ones(4, 6, dtype=torch.bool) if mask is None else ~mask
    torch.testing.assert_close(found["layers.0.activation"][real], expected[real])


def test_the_fast_path_is_back_afterwards_whatever_happened() -> None:
    model = encoder()
    assert torch.backends.mha.get_fastpath_enabled()
    with Tap(model, kinds=("activation",)):
        assert not torch.backends.mha.get_fastpath_enabled()
        with pytest.raises((RuntimeError, AssertionError)):
            model(torch.randn(2, 3))
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        seen(model, torch.randn(2, 3, 16))  # off already: nothing to say
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_two_threads_put_the_setting_back_when_the_last_one_is_done() -> None:
    inside, leave, states = threading.Barrier(2, timeout=20), threading.Event(), []

    def watch(wait: bool) -> None:
        with Tap(encoder(), kinds=("activation",)):
            inside.wait()
            if wait:
                leave.wait(20)
            states.append(torch.backends.mha.get_fastpath_enabled())

    threads = [threading.Thread(target=watch, args=(wait,)) for wait in (True, False)]
    for thread in threads:
        thread.start()
    threads[1].join()
    assert not torch.backends.mha.get_fastpath_enabled()
    leave.set()
    threads[0].join()
    assert states == [False, False]
    assert torch.backends.mha.get_fastpath_enabled()


def test_it_is_said_once() -> None:
    with pytest.warns(SlowerModelWarning):
        seen(encoder(), torch.randn(2, 3, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen(encoder(), torch.randn(2, 3, 16))
