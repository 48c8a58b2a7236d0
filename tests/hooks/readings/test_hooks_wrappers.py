"""Wrapped, compiled, traced and distributed models are looked through, or refused."""

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import acon_analysis as acon
from acon_hooks import HookError, ProofError, Tap, find_layers, record
from support_variants import Detector, Net, Official, Outer, Static, hooks_left, shaken, tensor

C = 8
trace: Any = torch.jit.trace
script: Any = torch.jit.script


def reset() -> None:
    forget: Any = torch._dynamo.reset
    forget()


@pytest.fixture
def net() -> Any:
    torch.manual_seed(3)
    return shaken(Net())


@pytest.fixture
def images() -> Tensor:
    return tensor("map", 4, 3)


def test_data_parallel_is_refused(net: Any) -> None:
    parallel = nn.DataParallel(net).eval()
    assert len(find_layers(parallel)) == 2
    with pytest.raises(HookError, match=r"once per device.*model\.module"), record(parallel):
        pass


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    if not dist.is_available():
        pytest.skip("no torch.distributed")
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_data_parallel_is_looked_through(net: Any, images: Tensor) -> None:
    wrapped = nn.parallel.DistributedDataParallel(net).eval()
    with torch.no_grad(), record(wrapped) as recording:
        wrapped(images)
    assert [layer.name for layer in recording.layers] == ["acts.0", "acts.1"]


@pytest.mark.parametrize("how", ["wrapper", "in place", "part"])
def test_compiled_models_run_eagerly_inside_and_compiled_again_after(
    net: Any, images: Tensor, how: str
) -> None:
    graphs = 0

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> torch.fx.GraphModule:
        nonlocal graphs
        graphs += 1
        return graph

    reset()
    model: Any = net
    if how == "wrapper":
        model = torch.compile(net, backend=backend)
    elif how == "in place":
        net.compile(backend=backend)
    else:
        net.acts[0] = torch.compile(net.acts[0], backend=backend)
    with torch.no_grad():
        bare = model(images)
        compiled = graphs
        assert compiled > 0
        with record(model) as recording:
            assert torch.equal(model(images), bare)
            assert torch.equal(model(images), bare)
        assert graphs == compiled
        assert recording.samples == 8
        assert len(recording.reports) == 2
        reset()
        model(images)
    assert graphs > compiled
    assert hooks_left(net) == 0


def test_a_compiled_wrapper_of_the_watched_model_is_read(net: Any, images: Tensor) -> None:
    reset()
    compiled: Any = torch.compile(net, backend="eager")
    with torch.no_grad():
        bare = compiled(images)
        with record(net) as recording:
            assert torch.equal(compiled(images), bare)
    assert recording.samples == 4


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
def test_a_model_compiled_only_inside_the_context_is_loud(
    net: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a process where nothing had been compiled before the context began.
    monkeypatch.setattr("acon_hooks.engine.visiting.eager", nullcontext)
    reset()
    with torch.no_grad(), record(net) as recording:
        compiled: Any = torch.compile(net, backend="eager")
        with pytest.raises(HookError, match="compiled while it was being watched"):
            compiled(images)
        net(images)
    assert recording.samples == 4


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_traced_layer_with_a_network_inside_is_refused() -> None:
    x = tensor("map", 4, C)
    model = Outer(trace(Detector(C).eval(), x)).eval()
    with torch.no_grad(), record(model), pytest.raises(ProofError, match="layer is TorchScript"):
        model(x)


def test_graph_that_inlines_the_layers_is_refused_and_one_that_calls_them_is_read(
    net: Any, images: Tensor
) -> None:
    flat = torch.fx.symbolic_trace(net, concrete_args={"fail": None})
    with pytest.raises(HookError, match=r"'acts.0' lies inside the traced graph"), record(flat):
        pass

    class Leaves(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, Detector) or super().is_leaf_module(m, module_qualified_name)

    graph = Leaves().trace(net, concrete_args={"fail": None})
    module = torch.fx.GraphModule(net, graph).eval()
    with torch.no_grad(), record(module) as recording:
        module(images)
    assert len(recording.reports) == 2


@pytest.mark.filterwarnings("ignore:.torch.jit", "ignore::torch.jit.TracerWarning")
def test_torchscript_is_refused(net: Any, images: Tensor) -> None:
    traced = trace(net, images)
    for use in (find_layers, lambda model: acon.nonlinearities(model, images), Tap):
        with pytest.raises(HookError, match=r"TorchScript module \(.*from"):
            use(traced)
    net.part = traced
    with pytest.raises(HookError, match=r"'part.acts.0' lies inside the TorchScript module 'part'"):
        Tap(net).__enter__()
    assert hooks_left(net) == 0


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_scripted_static_layer_in_a_python_model_is_read() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p1 = nn.Parameter(torch.randn(1, C, 1, 1))
            self.p2 = nn.Parameter(torch.randn(1, C, 1, 1))
            self.beta = nn.Parameter(torch.randn(1, C, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            d = (self.p1 - self.p2) * x
            return d * torch.sigmoid(self.beta * d) + self.p2 * x

    model = Outer(script(Plain())).eval()
    with torch.no_grad(), record(model) as recording:
        model(tensor("map", 4, C))
    assert recording.reports[0].status == "proved"
    assert recording.layers[0].kind == "acon"


def test_exported_program_is_refused(net: Any, images: Tensor) -> None:
    program: Any = torch.export.export(net, (images,))
    for form in (program, program.module(), torch.export.unflatten(program)):
        with pytest.raises(HookError, match=r"an exported program \(.*Python module that it was"):
            find_layers(form)


def test_cuda_graph_is_refused(net: Any, images: Tensor) -> None:
    def replay(*args: Tensor) -> Tensor:
        return args[0]

    replay.__module__ = "torch.cuda.graphs"  # as that of torch.cuda.make_graphed_callables
    with pytest.raises(HookError, match="a CUDA graph"):
        find_layers(replay)  # type: ignore[arg-type]
    net.forward = replay
    with pytest.raises(HookError, match="a CUDA graph"):
        acon.nonlinearities(net, images)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graphed_network_is_refused() -> None:
    device = torch.device("cuda")
    x = torch.randn(4, 3, device=device)
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).to(device).eval()
    graphed: Any = torch.cuda.make_graphed_callables(network, (x,))
    with pytest.raises(HookError, match="a CUDA graph"):
        find_layers(graphed)


@pytest.mark.usefixtures("process_group")
def test_sharded_parameters_are_read_whole(images: Tensor) -> None:
    from torch.distributed.fsdp import fully_shard

    model = shaken(nn.Sequential(nn.Conv2d(3, C, 3), Official(C), Static(C)))
    plain = copy.deepcopy(model)
    fully_shard(model[1])
    fully_shard(model)
    with torch.no_grad(), record(model) as recording, record(plain) as expected:
        model(images)
        plain(images)
    for name in ("1", "2"):
        assert (recording.beta_matrix(name) == expected.beta_matrix(name)).all()
