"""Everything that makes hooks silent or wrong is loud, and leaves nothing behind."""

import copy
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from acon_analysis.layers import MetaAconC
from acon_hooks import HookError, Tap, UnusedLayerWarning, find_layers, record
from networks import Network
from support_variants import Detector, LayerWise, Net, Outer, Slopes, hooks_left, shaken, tensor

C = 8
function_mode: Any = torch.overrides._get_current_function_mode


@pytest.fixture
def net() -> Any:
    torch.manual_seed(3)
    return shaken(Net())


@pytest.fixture
def images() -> Tensor:
    return tensor("map", 4, 3)


def test_training_mode_is_refused_naming_the_modules(net: Any, images: Tensor) -> None:
    net.norm.train()
    with pytest.raises(HookError, match=r"'norm'.*call model.eval\(\)"), record(net):
        pass
    assert hooks_left(net) == 0
    net.eval()
    with record(net):
        net.train()
        with pytest.raises(HookError, match="training mode"):
            net(images)
    assert hooks_left(net) == 0


class Fragile(nn.Module):
    """Fails on demand inside the layer."""

    fault: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.fault is not None:
            raise self.fault
        return x


@pytest.mark.parametrize("make", [Detector, LayerWise])
@pytest.mark.parametrize("fault", [ValueError("broken"), KeyboardInterrupt()])
def test_recording_goes_on_after_a_failed_forward(
    make: Callable[[int], Slopes], fault: BaseException
) -> None:
    act: Any = make(C)
    use = act.use
    act.breaker = Fragile()
    act.use = lambda x, beta: act.breaker(use(x, beta))
    model = shaken(Outer(act))
    x = tensor("map", 4, C)
    with torch.no_grad(), record(model) as recording:
        for _ in range(2):  # fails in the first batch, then in a later one
            model.act.breaker.fault = fault
            with pytest.raises(type(fault)):
                model(x)
            model.act.breaker.fault = None
            model(x)
    assert recording.samples == 8
    assert len(recording.reports) == 1
    assert function_mode() is None
    assert hooks_left(model) == 0


def test_code_that_bypasses_the_hooks_is_loud_at_that_batch(net: Any, images: Tensor) -> None:
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = Detector(C)
            self.direct = True

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act.forward(x) if self.direct else self.act(x)
            return out

    model = shaken(Bypass())
    x = tensor("map", 4, C)
    with torch.no_grad(), pytest.raises(HookError, match="none of 1 layer ran"), record(model):
        model(x)
    model.direct = False
    with torch.no_grad(), record(model) as recording:
        model(x)
        model.direct = True
        with pytest.raises(HookError, match="'act' ran 0 times in batch 1, but 1 time"):
            model(x)
    assert recording.samples == 4


def test_a_layer_of_another_dtype_is_loud(images: Tensor) -> None:
    model = shaken(nn.Sequential(Detector(3)))
    with torch.no_grad(), record(model) as recording:
        model(images)
        model(images[:, :, :5])  # maps of another size have the same channels
        with pytest.raises(HookError, match=r"float64, but .*float32"):
            model.double()(images.double())
        model.float()(images[:1])
    assert recording.samples == 9


def test_unused_layer_warns_or_raises_if_named(net: Any, images: Tensor) -> None:
    net.spare = Detector(C).eval()
    with torch.no_grad(), pytest.warns(UnusedLayerWarning, match="spare"), Tap(net) as tap:  # noqa: PT031
        net(images)
        assert tap.unused == ["spare"]
        assert len(tap.take()) == 2
    names = ["acts.0", "spare"]
    with torch.no_grad(), pytest.raises(HookError, match="spare; leave"), record(net, names):
        net(images)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_is_read_once(images: Tensor, reentrant: bool) -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor, fail: BaseException | None = None) -> Tensor:
            out: Tensor = checkpoint(super().forward, x, use_reentrant=reentrant)
            return out

    model = shaken(Checkpointed())
    with record(model) as recording:
        for _ in range(2):
            model(images.requires_grad_()).sum().backward()
    assert recording.samples == 8
    assert not recording.betas().duplicated(["sample", "layer", "call", "channel"]).any()


def test_autocast_that_changes_is_loud(net: Any, images: Tensor) -> None:
    with torch.no_grad(), record(net, allow_autocast=True):
        net(images)
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(HookError, match="autocast was"):
            net(images)


def test_other_threads_neither_disturb_nor_are_disturbed(net: Any, images: Tensor) -> None:
    outputs: list[Tensor] = []

    def work() -> None:
        with torch.no_grad():
            outputs.extend(net(2 * images) for _ in range(20))

    with torch.no_grad():
        bare = net(2 * images)
        alone = Recorder(net, images)
        with record(net) as recording:
            thread = threading.Thread(target=work)
            thread.start()
            for _ in range(20):
                net(images)
            thread.join()
    assert recording.samples == 80
    matrix = torch.from_numpy(recording.beta_matrix("acts.1")).reshape(20, 4, C)
    assert torch.equal(matrix, alone.beta.expand(20, 4, C))
    assert all(torch.equal(output, bare) for output in outputs)


class Recorder:
    """What one recording of a model gives."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        with torch.no_grad(), record(model) as recording:
            model(images)
        self.beta = torch.from_numpy(recording.beta_matrix("acts.1"))


def test_two_threads_recording_one_model_take_turns(net: Any, images: Tensor) -> None:
    found: list[Recorder] = []
    threads = [
        threading.Thread(target=lambda: found.append(Recorder(net, images))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert all(torch.equal(one.beta, found[0].beta) for one in found)


def test_a_tap_serves_one_context(net: Any) -> None:
    tap = Tap(net)
    with tap:
        pass
    with pytest.raises(HookError, match="make a new one"), tap:
        pass


def test_the_same_thread_cannot_watch_a_model_twice(net: Any, images: Tensor) -> None:
    with record(net) as recording:
        with pytest.raises(HookError, match="watched already"), record(net):
            pass
        with torch.no_grad():
            net(images)
    assert recording.samples == 4


def test_a_tap_left_open_is_silent_when_the_interpreter_ends() -> None:
    script = """
import torch
from acon_hooks import Tap
from acon_analysis.layers import MetaAconC
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), MetaAconC(8)).eval()
tap = Tap(model)
tap.__enter__()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_running_in_another_thread_only_is_loud(net: Any, images: Tensor) -> None:
    with record(net) as recording:
        thread = threading.Thread(target=net, args=(images,))
        thread.start()
        thread.join()
    with pytest.raises(HookError, match="in the same thread"):
        recording.betas()


def test_deep_copy_of_a_watched_model_carries_only_dead_hooks(net: Any, images: Tensor) -> None:
    with torch.no_grad(), record(net) as recording:
        net(images)
        twin = copy.deepcopy(net)
        assert torch.equal(twin(images), net(images))
    assert torch.equal(twin(images), net(images))
    assert recording.samples == 8


def test_model_not_run_since_the_last_take_and_run_twice(net: Any, images: Tensor) -> None:
    with torch.no_grad(), Tap(net) as tap:
        with pytest.raises(HookError, match="no forward pass"):
            tap.take()
        net(images)
        with pytest.raises(HookError, match="called a second time in one batch"):
            net(images)
        tap.take()
        net(images)
        assert tap.take().samples == 4


def test_layers_that_see_different_numbers_of_samples_are_loud() -> None:
    crops = Network(lambda n, x: n.b(torch.cat([n.a(x), x])), a=Detector(C), b=Detector(C))
    model = shaken(crops)
    with torch.no_grad(), pytest.raises(HookError, match="'a' 4, 'b' 8"), record(model):
        model(tensor("map", 4, C))


def test_not_a_module_is_refused() -> None:
    model: Any = len
    with pytest.raises(HookError, match="cannot watch an object of type builtin_function"):
        find_layers(model)


def test_another_thread_inside_a_watched_call_is_not_counted(net: Any, images: Tensor) -> None:
    """Of all moments the worst: it runs the model while the first batch is inside a layer."""
    ran: list[bool] = []

    def meddle(*_: Any) -> None:
        if threading.current_thread() is threading.main_thread() and not ran:
            ran.append(True)
            thread = threading.Thread(target=lambda: net(3 * images))
            thread.start()
            thread.join()

    with torch.no_grad():
        alone = Recorder(net, images)
        handle = net.acts[1].fc1.register_forward_hook(meddle)
        with record(net) as recording:
            for _ in range(2):
                net(images)
        handle.remove()
    assert ran
    beta = torch.from_numpy(recording.beta_matrix("acts.1"))
    assert torch.equal(beta, torch.cat([alone.beta, alone.beta]))


@pytest.mark.parametrize("name", ["a\ud800", "b\udcff"])
def test_a_name_that_no_table_can_hold(name: str) -> None:
    model = nn.Sequential()
    model.add_module(name, nn.ReLU())
    with pytest.raises(HookError, match="its name holds half of a character"):
        find_layers(model, example=torch.zeros(1, 3))


def test_autocast_is_refused_unless_it_is_allowed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), MetaAconC(4)).eval()
    x = torch.randn(6, 3, 9, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(HookError, match="leave autocast, or pass allow"), record(model):
            model(x)
        with record(model, allow_autocast=True) as recording:
            model(x)
    assert [report.dtype for report in recording.reports] == ["bfloat16"]
    with torch.no_grad(), record(model) as exact:
        model(x)
    gap = np.abs(recording.beta_matrix("1") - exact.beta_matrix("1"))
    assert 0 < gap.max() < 1e-2
