"""Networks on graphs: message passing over edges, batches whose rows are nodes."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from model_facts import warned
from network_oracle import assert_measured, captured, every_function, measured, settled

NODES, FEATURES = 7, 5


def graphs(count: int = 9) -> Tensor:
    """Features (graphs, nodes, features) of graphs of different sizes of their values."""
    return torch.randn(count, NODES, FEATURES) * torch.rand(count, 1, 1).mul(3).add(0.2)


def ring() -> Tensor:
    """Edges (2, E) of a ring, both ways."""
    index = torch.arange(NODES)
    there = torch.stack([index, index.roll(-1)])
    return torch.cat([there, there.flip(0)], 1)


class MessagePassing(nn.Module):
    """Messages of edges, added up at the nodes by index_add; one graph structure for all."""

    edges: Tensor

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.register_buffer("edges", ring())
        self.embed = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU())
        self.message = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU())
        self.update, self.head = nn.GRUCell(width, width), nn.Linear(width, 3)
        self.out = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        source, target = self.edges
        for _ in range(2):
            message = self.message(torch.cat([h[:, source], h[:, target]], -1))
            summed = torch.zeros_like(h).index_add(1, target, message)
            h = self.update(summed.flatten(0, 1), h.flatten(0, 1)).view_as(h)
        out: Tensor = self.head(self.out(h).mean(1))
        return out


def test_messages_over_edges_added_at_the_nodes(tmp_path: Path) -> None:
    model, x = settled(MessagePassing()), [graphs(), graphs(4) * 2]
    measured(model, x, tmp_path, {"embed.1": 2, "message.1": 2, "out": 2})


class Attention(nn.Module):
    """Graph attention: scores of edges through LeakyReLU, a softmax by scatter_reduce."""

    edges: Tensor

    def __init__(self, heads: int = 3) -> None:
        super().__init__()
        self.register_buffer("edges", ring())
        self.fc, self.score = nn.Linear(FEATURES, heads * 4), nn.Parameter(torch.randn(heads, 4))
        self.leaky, self.act, self.heads = nn.LeakyReLU(0.2), nn.Softplus(), heads

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x).unflatten(-1, (self.heads, 4))
        source, target = self.edges
        score = self.leaky(((h[:, source] + h[:, target]) * self.score).sum(-1))
        weight = (score - score.amax()).exp()
        index = target[None, :, None].expand_as(weight)
        total = weight.new_zeros(len(x), NODES, self.heads)
        total = total.scatter_reduce(1, index, weight, "sum")
        h = (weight / total.gather(1, index))[..., None] * h[:, source]
        out = x.new_zeros(len(x), NODES, self.heads, 4).index_add(1, target, h)
        return self.act(out.flatten(2)).mean(1)


def test_graph_attention(tmp_path: Path) -> None:
    model, x = settled(Attention()), [graphs(), graphs(4)]
    with warned("values of layer ':exp#0' depend on the other samples of the batch"):
        run = captured(model, x, tmp_path / "run")  # the largest score of the batch
    assert_measured(run, model, x, {"leaky": 2, "act": 2, ":exp#0": 2})
    every_function(model, x[0])


class NodesAsRows(nn.Module):
    """Graphs in, nodes as rows inside: (graphs, nodes, features) -> (graphs·nodes, features)."""

    edges: Tensor

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.register_buffer("edges", ring())
        self.fc, self.norm = nn.Linear(FEATURES, 4), nn.BatchNorm1d(4)
        self.act, self.head = act, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.fc(x.flatten(0, 1))))
        out: Tensor = self.head(h.view(len(x), NODES, 4).mean(1))
        return out


def test_rows_that_are_nodes_are_measured_by_layer_and_channel(tmp_path: Path) -> None:
    model, x = settled(NodesAsRows(nn.GELU())), [graphs(), graphs(4)]
    with warned("'act'.*63 rows for a batch of 9", "rows of layer 'act' belong to other samples"):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"act": 1}, rowless=["act"])
    every_function(model, x[0])


def test_beta_of_nodes_is_refused(tmp_path: Path) -> None:
    model = settled(NodesAsRows(MetaAconC(4)))
    with pytest.raises(AconError, match=r"β cannot be assigned to samples.*'act'"):
        captured(model, [graphs()], tmp_path / "run")
    every_function(model, graphs())


class OneGraph(nn.Module):
    """The whole batch is one graph, whose adjacency the network holds."""

    adjacency: Tensor

    def __init__(self) -> None:
        super().__init__()
        a = torch.eye(NODES).index_put(tuple(ring()), torch.tensor(1.0))
        self.register_buffer("adjacency", a / a.sum(1, keepdim=True))
        self.fc, self.act = nn.Linear(FEATURES, 4), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.adjacency @ self.fc(x))


def test_one_graph_as_the_batch_is_measured_and_not_proved(tmp_path: Path) -> None:
    model, x = settled(OneGraph()), [torch.randn(NODES, FEATURES)]
    run = captured(model, x, tmp_path / "run")
    assert run.manifest["rows"]["status"] == "skipped"
    assert "does not take a part of its first batch" in run.manifest["rows"]["text"]
    assert_measured(run, model, x, {"act": 1})
    every_function(model, x[0])
