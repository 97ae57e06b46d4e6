"""MG-GNN and Graph U-Net as published: sizes, the layers against dense formulas, renumbering."""

from typing import Any

import pytest
import torch
from test_mggnn import random_graph, renumbered

import graphnets
from graphnets import TwoLevelGraph
from graphnets.published import graph_unet, mggnn
from graphnets.published.layers import CrossMessages, EdgeModel, instance_norm

NETWORKS = {"mggnn": mggnn, "graph_unet": graph_unet}


def published_graph(seed: int = 0) -> TwoLevelGraph:
    """A random graph with the published numbers of features."""
    graph = random_graph(seed=seed)
    return TwoLevelGraph(
        fine=graph.fine,
        coarse=graph.coarse,
        cross=graph.cross,
        fine_nodes=graph.fine_nodes[:, :1],
        coarse_nodes=graph.coarse_nodes[:, :1],
        fine_edges=graph.fine_edges,
        coarse_edges=graph.coarse_edges,
        cross_edges=graph.cross_edges,
    )


def network(name: str, features: int = 0) -> Any:
    torch.manual_seed(0)
    return NETWORKS[name](width=8, layers=2, features=features).double()


def mask(pattern) -> torch.Tensor:
    dense = torch.zeros(pattern.shape, dtype=torch.bool)
    dense[pattern.row.long(), pattern.col.long()] = True
    return dense


def dense(pattern, values) -> torch.Tensor:
    full = torch.zeros(pattern.shape, dtype=values.dtype)
    return full.index_put((pattern.row.long(), pattern.col.long()), values)


def test_graph_unet_is_a_class_too():
    torch.manual_seed(0)
    net, made = graphnets.GraphUNet(width=8, layers=2).double(), network("graph_unet")
    assert isinstance(made, graphnets.GraphUNet)
    assert net.load_state_dict(made.state_dict(), strict=True)
    graph, ends = published_graph(), (torch.arange(9), torch.arange(9).flip(0))
    for got, expected in zip(net(graph, *ends), made(graph, *ends)):
        assert torch.equal(got, expected)
    assert sum(p.numel() for p in graphnets.GraphUNet().parameters()) == 1_184_196


@pytest.mark.parametrize(("name", "count"), [("mggnn", 1_380_292), ("graph_unet", 1_184_196)])
def test_the_published_sizes(name, count):
    assert sum(p.numel() for p in NETWORKS[name]().parameters()) == count


def messages(module: CrossMessages, target, source, edges, f) -> torch.Tensor:
    """The sum over edges of an MLP on the concatenation, one edge at a time; f (n, m, features)."""
    result = torch.zeros_like(target)
    for i, k in edges.nonzero().tolist():
        both = torch.cat([target[i], source[k], f[i, k]])
        hidden = (module.first.weight @ both + module.first.bias).relu()
        result[i] += module.second.weight @ hidden + module.second.bias
    return result


def tag(layer, A, x) -> torch.Tensor:
    """TAGConv with a dense matrix."""
    powers = torch.cat([x, A @ x, A @ A @ x], dim=1)
    return powers @ layer.linear.weight.T + layer.linear.bias


def normalised(x) -> torch.Tensor:
    return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()


def edge_model(model: EdgeModel, first, second, f) -> torch.Tensor:
    x = (torch.cat([first, second, f]) @ model.first.weight.T + model.first.bias).relu()
    return model.rest(x)[0]


@pytest.mark.parametrize("features", [0, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_its_dense_formula(name, features):
    graph, net = published_graph(), network(name, features)
    given = graph.cross_edges[:, :features]
    f = torch.stack([dense(graph.cross, column) for column in given.T], -1) if features else None
    f = torch.zeros(*graph.cross.shape, 0).double() if f is None else f
    with torch.no_grad():
        weights = net.edge(net.fine_edge(graph.fine_edges)).squeeze(1)
        A = dense(graph.fine, weights)
        C = dense(graph.coarse, net.edge(graph.coarse_edges).squeeze(1))
        edges = mask(graph.cross)
        x, y = net.node(graph.fine_nodes), net.node(graph.coarse_nodes)
        for layer in net.layers:
            if name == "mggnn":
                up = messages(layer.up, x, y, edges, f).relu()
                down = messages(layer.down, y, x, edges.T, f.transpose(0, 1)).relu()
                x, y = (
                    normalised(tag(layer.fine, A, torch.cat([x, up], 1)).relu()),
                    normalised(tag(layer.coarse, C, torch.cat([y, down], 1)).relu()),
                )
            else:
                x = tag(layer.before, A, x)
                y = tag(layer.coarse, C, messages(layer.pool, y, x, edges.T, f.transpose(0, 1)))
                x, y = normalised(x), normalised(y)
                x = tag(layer.after, A, messages(layer.unpool, x, y, edges, f))
        x, y = net.fine_out(x), net.coarse_out(y)
        row, col = torch.tensor([0, 3, 5, 5]), torch.tensor([1, 3, 8, 2])
        ring, cross = net(graph, row, col)
        for got, i, j in zip(ring, row, col):
            torch.testing.assert_close(got, edge_model(net.ring_head, x[i], x[j], given[0, :0]))
        for got, i, k in zip(cross, graph.cross.row.long(), graph.cross.col.long()):
            torch.testing.assert_close(got, edge_model(net.cross_head, y[k], x[i], f[i, k]))


@pytest.mark.parametrize("name", NETWORKS)
def test_renumbering_either_level_renumbers_the_outputs(name):
    graph, net = published_graph(), network(name)
    p, q = torch.randperm(9), torch.randperm(4)
    fine, fine_edges = renumbered(graph.fine, graph.fine_edges, p, p)
    coarse, coarse_edges = renumbered(graph.coarse, graph.coarse_edges, q, q)
    cross, order = renumbered(graph.cross, torch.arange(graph.cross.nnz), p, q)
    other = TwoLevelGraph(
        fine=fine,
        coarse=coarse,
        cross=cross,
        fine_nodes=graph.fine_nodes[p],
        coarse_nodes=graph.coarse_nodes[q],
        fine_edges=fine_edges,
        coarse_edges=coarse_edges,
        cross_edges=graph.cross_edges,
    )
    row, col, place = torch.tensor([0, 3, 5]), torch.tensor([1, 3, 8]), torch.argsort(p)
    ring, values = net(graph, row, col)
    ring_of_other, values_of_other = net(other, place[row], place[col])
    torch.testing.assert_close(ring_of_other, ring)
    torch.testing.assert_close(values_of_other, values[order])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name):
    graph, net = published_graph(), network(name)
    ring, cross = net(graph, torch.arange(9), torch.arange(9).flip(0))
    (ring.square().sum() + cross.square().sum()).backward()
    for label, parameter in net.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().max() > 0, label


def test_instance_norm_is_torch_s_of_one_graph():
    x = torch.randn(7, 3, dtype=torch.float64) * 4 + 1
    expected = torch.nn.functional.instance_norm(x.T[None])[0].T
    torch.testing.assert_close(instance_norm(x), expected)
    assert torch.equal(instance_norm(torch.ones(4, 2)), torch.zeros(4, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plain_start_gives_zero_at_ring_edges_and_one_between_the_levels(name):
    graph, net = published_graph(), network(name, features=2)
    net.start_plain()
    ring, cross = net(graph, torch.arange(9), torch.arange(9).flip(0))
    assert torch.equal(ring, torch.zeros_like(ring))
    assert torch.equal(cross, torch.ones_like(cross))
    (ring.sum() + cross.sum()).backward()
    assert net.ring_head.rest[-1].weight.grad.abs().max() > 0
