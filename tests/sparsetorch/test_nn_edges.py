"""Layers on PyG's edges: as on the matrix of them, and as PyG's own layers."""

from typing import Any

import pytest
import torch
from layers import IN, LAYERS, OUT, N, make

from sparsetorch import CSRTensor, TypedCSR
from sparsetorch.nn import GATConv, GCNConv, RGCNConv, TAGConv, gcn_normalize, rgcn_normalize

GENERATOR = torch.Generator().manual_seed(3)
F64 = torch.float64


def edges(n_edges: int = 12) -> torch.Tensor:
    """Different edges, a self-loop among them; the last node has none."""
    place = torch.randperm((N - 1) ** 2 - 1, generator=GENERATOR)[: n_edges - 1] + 1
    place = torch.cat([torch.zeros(1, dtype=torch.int64), place])
    return torch.stack([place % (N - 1), place // (N - 1)])


def features(n: int = N) -> torch.Tensor:
    return torch.randn(n, IN, generator=GENERATOR, dtype=F64)


ON_GRAPHS = [name for name in LAYERS if name.startswith(("gcn", "tag", "gat"))]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("name", ON_GRAPHS)
def test_edges_patterns_and_matrices_are_one_graph(name, dtype):
    layer, edge_index, x = make(name), edges(), features()
    A = CSRTensor.from_edge_index(edge_index, torch.ones(12, dtype=F64), N)
    expected = layer(A, x)
    torch.testing.assert_close(layer(A.pattern, x), expected, rtol=0, atol=0)
    torch.testing.assert_close(layer(edge_index.to(dtype), x), expected, rtol=0, atol=0)
    none = torch.empty(2, 0, dtype=dtype)
    alone = layer(CSRTensor.from_edge_index(none, torch.ones(0, dtype=F64), N), x)
    torch.testing.assert_close(layer(none, x), alone)
    assert layer(none, x[:0]).shape == (0, expected.shape[1])


def test_directed_edges_go_from_source_to_target():
    layer = GCNConv(1, 1, bias=False, dtype=F64)
    x = torch.tensor([[1.0], [0.0], [0.0]], dtype=F64)
    got = layer(torch.tensor([[0], [2]]), x)
    assert got.flatten().tolist() == [0, 0, layer.weight.item()]


def test_parallel_edges_are_summed_or_refused():
    twice, x = torch.tensor([[0, 0], [1, 1]]), features()
    layer = GCNConv(IN, OUT, dtype=F64)
    torch.testing.assert_close(
        layer(twice, x) - layer.bias, 2 * (layer(twice[:, :1], x) - layer.bias)
    )
    with pytest.raises(ValueError, match="edge_index: 1 edges are given more than once"):
        GATConv(IN, OUT, dtype=F64)(twice, x)


def test_bad_graphs_are_refused():
    x = features()
    for layer in (GCNConv(IN, OUT, dtype=F64), TAGConv(IN, OUT, dtype=F64), GATConv(IN, OUT)):
        with pytest.raises(
            ValueError, match=r"edge_index: expected shape \(2, n_edges\), .* \(12, 2\)"
        ):
            layer(edges().T, x)
        with pytest.raises(ValueError, match=r"edge_index: expected nodes 0 to 2, .* got 0 to"):
            layer(edges(), x[:3])
        with pytest.raises(ValueError, match="got -1 to 1"):
            layer(torch.tensor([[-1], [1]]), x)
        with pytest.raises(TypeError, match=r"graph: expected a CSRTensor, .* got list"):
            layer([[0], [1]], x)
        with pytest.raises(TypeError, match=r"got torch\.bool"):
            layer(torch.ones(2, 3, dtype=torch.bool), x)
    with pytest.raises(TypeError, match=r"graph: .* got torch\.float64"):
        GATConv(IN, OUT, dtype=F64)(torch.eye(N, dtype=F64), x)
    relations = RGCNConv(IN, OUT, [("a", "to", "b")], dtype=F64)
    with pytest.raises(ValueError, match="x: expected features of type 'b'"):
        relations({("a", "to", "b"): edges()}, {"a": x})
    with pytest.raises(TypeError, match="A: expected a TypedCSR or an edge_index_dict, got Tensor"):
        relations(edges(), {"a": x})


def test_relations_by_their_edges():
    types = [("a", "to", "b"), ("b", "of", "a")]
    there = torch.tensor([[0, 4, 4], [1, 1, 0]])
    graph = {types[0]: there, types[1]: there.flip(0)}
    x = {"a": features(5), "b": features(2)}
    layer = RGCNConv(IN, OUT, types, dtype=F64)
    A = TypedCSR.from_edge_index_dict(
        graph, {"a": 5, "b": 2}, {t: torch.ones(3, dtype=F64) for t in types}
    )
    for node_type, expected in layer(A, x).items():
        torch.testing.assert_close(layer(graph, x)[node_type], expected, rtol=0, atol=0)


# Beside PyG


@pytest.fixture(scope="module")
def pyg():
    return pytest.importorskip("torch_geometric.nn", reason="needs sparsetorch[graph]")


def same(ours: Any, theirs: Any, parameters: list[tuple[Any, Any]], x: torch.Tensor) -> None:
    """Equal outputs, and equal gradients of inputs and weights."""
    x, y = (x.clone().requires_grad_() for _ in range(2))
    for mine, its in parameters:
        with torch.no_grad():
            its.copy_(mine.reshape(its.shape))
    a, b = ours(x), theirs(y)
    torch.testing.assert_close(a, b)
    weights = torch.randn(a.shape, dtype=F64)
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for mine, its in parameters:
        torch.testing.assert_close(mine.grad, its.grad.reshape(mine.shape))


class Bound(torch.nn.Module):
    """A layer of PyG on its edges, as a function of the features."""

    def __init__(self, layer: torch.nn.Module, *edges: torch.Tensor):
        super().__init__()
        self.layer, self.edges = layer.double(), edges

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, *self.edges)


def test_gcn_is_pyg_s(pyg):
    edge_index = edges()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]  # PyG replaces self-loops
    weight = torch.rand(edge_index.shape[1], generator=GENERATOR, dtype=F64) + 0.5
    ours, theirs = GCNConv(IN, OUT, dtype=F64), pyg.GCNConv(IN, OUT).double()
    pairs = [(ours.weight, theirs.lin.weight), (ours.bias, theirs.bias)]
    A = gcn_normalize(CSRTensor.from_edge_index(edge_index, weight, N))
    same(lambda x: ours(A, x), Bound(theirs, edge_index, weight), pairs, features())
    raw, plain = GCNConv(IN, OUT, dtype=F64), pyg.GCNConv(IN, OUT, normalize=False).double()
    pairs = [(raw.weight, plain.lin.weight), (raw.bias, plain.bias)]
    twice = torch.cat([edges(), edge_index[:, :3]], 1)
    same(lambda x: raw(twice, x), Bound(plain, twice), pairs, features())


def test_tag_is_pyg_s(pyg):
    ours = TAGConv(IN, OUT, hops=2, dtype=F64)
    theirs = pyg.TAGConv(IN, OUT, K=2, normalize=False).double()
    weights = ours.linear.weight.detach().chunk(3, 1)
    with torch.no_grad():
        for weight, lin in zip(weights, theirs.lins):
            lin.weight.copy_(weight)
    edge_index, bias = edges(), [(ours.linear.bias, theirs.bias)]
    same(lambda x: ours(edge_index, x), Bound(theirs, edge_index), bias, features())
    gradient = torch.cat([lin.weight.grad for lin in theirs.lins], 1)
    torch.testing.assert_close(ours.linear.weight.grad, gradient)


@pytest.mark.parametrize("concat", [True, False])
def test_gat_is_pyg_s(pyg, concat):
    ours = GATConv(IN, OUT, heads=2, concat=concat, dtype=F64)
    theirs = pyg.GATConv(IN, OUT, heads=2, concat=concat, add_self_loops=False).double()
    pairs = [
        (ours.weight, theirs.lin.weight),
        (ours.target, theirs.att_dst),
        (ours.source, theirs.att_src),
        (ours.bias, theirs.bias),
    ]
    edge_index = edges()
    same(lambda x: ours(edge_index, x), Bound(theirs, edge_index), pairs, features())


def test_rgcn_with_means_is_pyg_s(pyg):
    types = [("n", "r", "n"), ("n", "s", "n")]
    ours: Any = RGCNConv(IN, OUT, types, dtype=F64)
    theirs = pyg.RGCNConv(IN, OUT, num_relations=2).double()
    with torch.no_grad():
        theirs.weight.copy_(ours.bases.mT)
        theirs.root.copy_(ours.root.T)
        theirs.bias.copy_(ours.bias)
    first, second = edges(), edges(8)
    kinds = torch.tensor([0] * 12 + [1] * 8)
    ones = {t: torch.ones(e.shape[1], dtype=F64) for t, e in zip(types, (first, second))}
    A = TypedCSR.from_edge_index_dict(dict(zip(types, (first, second))), {"n": N}, ones)
    x = features()
    expected = theirs(x, torch.cat([first, second], 1), kinds)
    torch.testing.assert_close(ours(rgcn_normalize(A), {"n": x})["n"], expected)
