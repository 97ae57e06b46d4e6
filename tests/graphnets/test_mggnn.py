"""MG-GNN: its parts against dense formulas, and what renumbering does to it."""

from dataclasses import replace

import pytest
import torch

from graphnets import MGGNN, TwoLevelGraph
from graphnets.mggnn import by_blocks, mlp
from graphnets.two_level import mean_edges
from sparsetorch import CSRTensor, Pattern


def random_pattern(rows: int, cols: int, seed: int, share: float = 0.4) -> Pattern:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, cols, generator=generator) < share
    return CSRTensor.from_dense(mask.double()).pattern


def random_graph(n: int = 9, n_coarse: int = 4, seed: int = 0) -> TwoLevelGraph:
    fine, coarse = random_pattern(n, n, seed), random_pattern(n_coarse, n_coarse, seed + 1)
    cross = random_pattern(n, n_coarse, seed + 2)
    generator = torch.Generator().manual_seed(seed)

    def features(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    return TwoLevelGraph(
        fine=fine,
        coarse=coarse,
        cross=cross,
        fine_nodes=features(n, 2),
        coarse_nodes=features(n_coarse, 3),
        fine_edges=features(fine.nnz, 2),
        coarse_edges=features(coarse.nnz, 1),
        cross_edges=features(cross.nnz, 2),
    )


def network(width: int = 8) -> MGGNN:
    torch.manual_seed(0)
    return MGGNN(2, 3, 2, 1, 2, width=width, layers=2).double()


def renumbered(pattern: Pattern, edges, rows, cols):
    """The pattern with row rows[i] as its new row i, and its edge features in the new order."""
    place = torch.full(pattern.shape, -1)
    place[pattern.row.long(), pattern.col.long()] = torch.arange(pattern.nnz)
    order = place[rows][:, cols].reshape(-1)
    order = order[order >= 0]
    mask = (place[rows][:, cols] >= 0).double()
    return CSRTensor.from_dense(mask).pattern, edges[order]


@pytest.mark.parametrize("towards", ["fine", "coarse"])
def test_mean_edges_is_the_mean_of_each_node_s_edges(towards):
    graph = random_graph(seed=3)
    messages = torch.randn(graph.cross.nnz, 2, dtype=torch.float64, requires_grad=True)
    dense = torch.zeros(*graph.cross.shape, 2, dtype=torch.float64)
    dense = dense.index_put((graph.cross.row.long(), graph.cross.col.long()), messages)
    mask = CSRTensor(graph.cross, torch.ones(graph.cross.nnz, dtype=torch.float64)).to_dense()
    axis = 1 if towards == "fine" else 0
    expected = dense.sum(axis) / mask.sum(axis).clamp(min=1)[:, None]
    incidence = graph.to_fine if towards == "fine" else graph.to_coarse
    torch.testing.assert_close(mean_edges(incidence, messages), expected)
    assert torch.autograd.gradcheck(lambda m: mean_edges(incidence, m), messages)
    assert torch.autograd.gradgradcheck(lambda m: mean_edges(incidence, m), messages)


def test_nodes_without_edges_receive_zero():
    empty = Pattern(torch.tensor([0, 0, 1]), torch.tensor([0]), (2, 1))
    graph = random_graph()
    incidence = replace(
        graph,
        fine=random_pattern(2, 2, 0),
        coarse=random_pattern(1, 1, 0, 2.0),
        cross=empty,
        fine_nodes=torch.zeros(2, 1),
        coarse_nodes=torch.zeros(1, 1),
        fine_edges=torch.zeros(random_pattern(2, 2, 0).nnz, 1),
        coarse_edges=torch.zeros(1, 1),
        cross_edges=torch.zeros(1, 1),
    ).to_fine
    assert mean_edges(incidence, torch.ones(1, 1)).tolist() == [[0.0], [1.0]]


def test_renumbering_either_level_renumbers_the_embeddings():
    graph, net = random_graph(), network()
    x, y = net(graph)
    p, q = torch.randperm(9), torch.randperm(4)
    fine, fine_edges = renumbered(graph.fine, graph.fine_edges, p, p)
    coarse, coarse_edges = renumbered(graph.coarse, graph.coarse_edges, q, q)
    cross, cross_edges = renumbered(graph.cross, graph.cross_edges, p, q)
    x2, y2 = net(
        TwoLevelGraph(
            fine=fine,
            coarse=coarse,
            cross=cross,
            fine_nodes=graph.fine_nodes[p],
            coarse_nodes=graph.coarse_nodes[q],
            fine_edges=fine_edges,
            coarse_edges=coarse_edges,
            cross_edges=cross_edges,
        )
    )
    torch.testing.assert_close(x2, x[p])
    torch.testing.assert_close(y2, y[q])


def test_every_parameter_and_feature_gets_a_gradient():
    graph, net = random_graph(), network()
    features = ("fine_nodes", "coarse_nodes", "fine_edges", "coarse_edges", "cross_edges")
    leaves = {name: getattr(graph, name).clone().requires_grad_() for name in features}
    x, y = net(replace(graph, **leaves))
    (x.square().sum() + y.square().sum()).backward()
    for name, leaf in [*leaves.items(), *net.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.abs().max() > 0, name


def test_a_graph_has_the_same_embeddings_alone_and_in_a_batch():
    net = network()
    graphs = [random_graph(seed=5), random_graph(1, 1, seed=9), random_graph(6, 3, seed=13)]
    x, y = net(TwoLevelGraph.batch(graphs))
    alone = [net(graph) for graph in graphs]
    torch.testing.assert_close(x, torch.cat([one for one, _ in alone]))
    torch.testing.assert_close(y, torch.cat([other for _, other in alone]))
    with pytest.raises(ValueError, match="graphs: expected at least one"):
        TwoLevelGraph.batch([])
    wider = replace(graphs[0], coarse_nodes=torch.zeros(4, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"coarse_nodes: expected one number of .* got \[3, 5\]"):
        TwoLevelGraph.batch([graphs[1], wider])
    half = replace(graphs[0], fine_edges=graphs[0].fine_edges.float())
    with pytest.raises(TypeError, match="fine_edges: expected one dtype"):
        TwoLevelGraph.batch([graphs[1], half])


def test_shapes_that_do_not_fit():
    graph = random_graph()
    with pytest.raises(ValueError, match=r"fine_nodes: expected \(9, features\), got \(8, 2\)"):
        replace(graph, fine_nodes=graph.fine_nodes[:8])
    with pytest.raises(ValueError, match="patterns do not fit"):
        replace(graph, coarse=graph.fine)


def test_to_keeps_patterns_and_features():
    graph = random_graph()
    moved = graph.to("cpu")
    assert moved.fine is graph.fine
    assert torch.equal(moved.cross_edges, graph.cross_edges)


def test_blocks_of_rows_give_what_all_rows_do(monkeypatch):
    monkeypatch.setattr("graphnets.mggnn.BLOCK", 7)
    torch.manual_seed(0)
    module, x = mlp(3, 8, 2), torch.randn(30, 3)
    whole = by_blocks(module, x)
    assert whole.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(by_blocks(module, x), whole)
        assert by_blocks(module, x[:0]).shape == (0, 2)


@torch.no_grad()
def test_blocks_overwrite_what_fits_and_nothing_else(monkeypatch):
    monkeypatch.setattr("graphnets.mggnn.BLOCK", 7)
    x, y = torch.randn(30, 3), torch.randn(30, 3)
    added = x + y
    for other in (torch.zeros(30, 2), torch.zeros(30, 3, dtype=torch.float64)):
        assert torch.equal(by_blocks(torch.add, x, y, over=other), added)
        assert not other.any()
    given = y.clone()
    assert by_blocks(torch.add, x, given, over=given) is given
    assert torch.equal(given, added)


def test_inference_by_blocks_gives_what_training_does(monkeypatch):
    graph, net = random_graph(40, 6), network()
    given = [getattr(graph, name).clone() for name in ("fine_nodes", "cross_edges")]
    expected = net(graph)
    monkeypatch.setattr("graphnets.mggnn.BLOCK", 7)
    with torch.no_grad():
        for found, wanted in zip(net(graph), expected, strict=True):
            torch.testing.assert_close(found, wanted)
    assert torch.equal(graph.fine_nodes, given[0])
    assert torch.equal(graph.cross_edges, given[1])
