"""PyG's graphs as matrices and back: the same edges, weights and attributes, in the same order."""

import sys
from typing import Any

import pytest
import torch

from graphnets import pyg
from graphnets.graph_batch import GraphBatch
from graphnets.ragged import Ragged
from sparsetorch import CSRTensor, TypedCSR


@pytest.fixture(scope="module")
def data() -> Any:
    return pytest.importorskip("torch_geometric.data", reason="needs sparsetorch[graph]")


EDGES = torch.tensor([[3, 0, 0, 2, 1], [1, 2, 1, 2, 0]])  # sources above targets, a self-loop


def test_edges_lead_from_columns_to_rows(data):
    weight = torch.arange(1.0, 6.0, dtype=torch.float64, requires_grad=True)
    graph = pyg.from_data(data.Data(edge_index=EDGES, edge_weight=weight, num_nodes=6))
    expected = torch.zeros(6, 6, dtype=torch.float64)  # nodes 4 and 5 are isolated
    for (source, target), w in zip(EDGES.T.tolist(), weight.tolist()):
        expected[target, source] = w
    assert torch.equal(graph.adjacency.to_dense(), expected)
    assert torch.equal(weight[graph.order], graph.adjacency.values)
    (graph.adjacency.values * torch.arange(5)).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad[graph.order], torch.arange(5).double())


def test_a_graph_comes_back_as_it_was(data):
    attr, x = torch.randn(5, 2), torch.randn(6, 3)
    given = data.Data(x=x, edge_index=EDGES, edge_weight=torch.rand(5), edge_attr=attr)
    A, order = pyg.from_data(given)
    back = pyg.to_data(A, order, x=x, edge_attr=attr[order][order.argsort()])
    back.validate()
    for name in ("x", "edge_index", "edge_weight", "edge_attr"):
        assert torch.equal(back[name], given[name]), name
    assert back.num_nodes == 6
    in_order = pyg.to_data(A, edge_attr=attr[order])
    assert torch.equal(in_order.edge_index, EDGES[:, order])
    assert torch.equal(pyg.from_data(in_order).order, torch.arange(5))  # sorted already


@pytest.mark.parametrize("n", [0, 3])
def test_graphs_without_edges(data, n):
    none = torch.empty(2, 0, dtype=torch.int64)
    A, order = pyg.from_data(data.Data(edge_index=none, num_nodes=n))
    assert (A.shape, A.nnz, len(order)) == ((n, n), 0, 0)
    back = pyg.to_data(A, order)
    assert torch.equal(back.edge_index, none)
    assert back.num_nodes == n


def test_bad_graphs_are_refused(data):
    twice = torch.cat([EDGES, EDGES[:, :2]], 1)
    with pytest.raises(ValueError, match="edge_index: 2 edges occur more than once"):
        pyg.from_data(data.Data(edge_index=twice, num_nodes=6))
    with pytest.raises(ValueError, match="edge_index: expected sources 0 to 1, got 0 to 3"):
        pyg.from_data(data.Data(edge_index=EDGES * torch.tensor([[1], [0]]), num_nodes=2))
    with pytest.raises(ValueError, match=r"edge_weight: expected \(5,\), .* got \(5, 2\)"):
        pyg.from_data(data.Data(edge_index=EDGES, edge_weight=torch.ones(5, 2), num_nodes=6))
    with pytest.raises(ValueError, match=r"edge_index: expected shape \(2, n_edges\)"):
        pyg.from_data(data.Data(edge_index=EDGES.T, num_nodes=6))
    with pytest.raises(TypeError, match="data: expected a Data with edge_index, got Data"):
        pyg.from_data(data.Data(x=torch.ones(2, 1)))
    A = CSRTensor.from_edge_index(EDGES)
    with pytest.raises(ValueError, match="order: expected 5 edges"):
        pyg.to_data(A, torch.arange(3))
    with pytest.raises(ValueError, match=r"adjacency: expected \(n, n\), got \(4, 3\)"):
        pyg.to_data(CSRTensor.from_edge_index(EDGES[:, :0], n_nodes=(3, 4)))
    with pytest.raises(ValueError, match="expected \\(n, n\\), got \\(2, 4, 4\\)"):
        pyg.to_data(A.with_values(torch.ones(2, 5)))
    with pytest.raises(TypeError, match=r"batch: expected a Batch, got Data"):
        pyg.from_batch(data.Data(edge_index=EDGES, num_nodes=4))
    with pytest.raises(TypeError, match=r"data: expected a HeteroData, got Data"):
        pyg.from_hetero_data(data.Data(edge_index=EDGES))
    unknown = data.HeteroData()
    unknown["a"].y = None
    with (
        pytest.warns(UserWarning, match="num_nodes"),
        pytest.raises(ValueError, match=r"the number of nodes of type 'a' is unknown"),
    ):
        pyg.from_hetero_data(unknown)


def graph_list(data: Any) -> list[Any]:
    """Graphs of 3, 0, 1 and 2 nodes; the third has no edges."""
    none = torch.empty(2, 0, dtype=torch.int64)
    edges = [torch.tensor([[2, 0, 1], [0, 1, 1]]), none, none, torch.tensor([[1], [0]])]
    generator = torch.Generator().manual_seed(0)
    return [
        data.Data(
            x=torch.randn(n, 2, generator=generator),
            edge_index=e,
            edge_weight=torch.rand(e.shape[1], generator=generator),
            edge_attr=torch.randn(e.shape[1], 3, generator=generator),
            y=torch.tensor([label]),
        )
        for label, (n, e) in enumerate(zip((3, 0, 1, 2), edges))
    ]


def test_batches(data):
    graphs = graph_list(data)
    batch = data.Batch.from_data_list(graphs)
    got = pyg.from_batch(batch)
    assert len(got) == 4
    assert torch.equal(got.nodes.row, batch.batch)
    assert torch.equal(got.nodes.ptr, batch.ptr)
    assert got.labels is not None
    assert got.labels.tolist() == [0, 1, 2, 3]
    for back, given in zip(pyg.to_batch(got).to_data_list(), graphs):
        order = pyg.from_data(given).order
        assert torch.equal(back.edge_index, given.edge_index[:, order])
        assert torch.equal(back.edge_weight, given.edge_weight[order])
        assert torch.equal(back.edge_attr, given.edge_attr[order])
        assert torch.equal(back.x, given.x)
        assert torch.equal(back.y, given.y)


def test_chosen_graphs_are_batched_as_pyg_does(data):
    graphs = graph_list(data)
    whole = pyg.from_batch(data.Batch.from_data_list(graphs))
    for chosen in ([2, 0], [1], [3, 3, 0], []):
        got = whole.select(torch.tensor(chosen, dtype=torch.int64))
        assert len(got) == len(chosen)
        if chosen:
            want = pyg.from_batch(data.Batch.from_data_list([graphs[i] for i in chosen]))
            for part in (got, want):
                assert part.edges is not None
                assert part.labels is not None
            assert torch.equal(got.adjacency.to_dense(), want.adjacency.to_dense())
            assert torch.equal(got.nodes.values, want.nodes.values)
            assert torch.equal(got.nodes.ptr, want.nodes.ptr)
            assert torch.equal(got.edges, want.edges)  # pyright: ignore[reportArgumentType]
            assert torch.equal(got.labels, want.labels)  # pyright: ignore[reportArgumentType]


def test_batches_whose_parts_do_not_fit():
    A = CSRTensor.from_edge_index(torch.tensor([[0, 2], [1, 1]]))
    nodes = Ragged(torch.tensor([0, 2, 3]), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="an edge leads from one graph to another"):
        GraphBatch(A, nodes)
    inside = CSRTensor.from_edge_index(torch.tensor([[0], [1]]), n_nodes=3)
    with pytest.raises(ValueError, match=r"adjacency: expected \(3, 3\) for 3 nodes"):
        GraphBatch(CSRTensor.eye(2), nodes)
    with pytest.raises(ValueError, match="labels: expected 2"):
        GraphBatch(inside, nodes, torch.zeros(3))
    with pytest.raises(ValueError, match="edges: expected 1"):
        GraphBatch(inside, nodes, None, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="rows: expected 0 to 1"):
        GraphBatch(inside, nodes).select(torch.tensor([2]))


def test_a_batch_of_no_graphs_is_refused(data):
    none = pyg.from_batch(data.Batch.from_data_list(graph_list(data))).select(torch.arange(0))
    with pytest.raises(ValueError, match="graphs: expected at least one"):
        pyg.to_batch(none)


def hetero(data: Any) -> Any:
    graph = data.HeteroData()
    graph["user"].x, graph["item"].x = torch.randn(4, 2), torch.randn(3, 5)
    graph["place"].num_nodes = 2  # no edges
    graph["user", "buys", "item"].edge_index = torch.tensor([[3, 0, 3], [0, 2, 2]])
    graph["user", "buys", "item"].edge_weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    graph["user", "knows", "user"].edge_index = torch.tensor([[1, 0], [0, 1]])
    return graph


def test_several_kinds_of_nodes_and_edges(data):
    given = hetero(data)
    A, order = pyg.from_hetero_data(given)
    assert A.n_nodes == {"user": 4, "item": 3, "place": 2}
    buys = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 3]], dtype=torch.float64)
    assert torch.equal(A["user", "buys", "item"].to_dense(), buys)
    assert A["user", "knows", "user"].dtype == torch.float64  # ones, as the other kind's weights
    back = pyg.to_hetero_data(A, order)
    back.validate()
    assert back.node_types == given.node_types
    assert back["place"].num_nodes == 2
    for edge_type in given.edge_types:
        assert torch.equal(back[edge_type].edge_index, given[edge_type].edge_index)
    weight = given["user", "buys", "item"].edge_weight
    assert torch.equal(back["user", "buys", "item"].edge_weight, weight)
    again, _ = pyg.from_hetero_data(pyg.to_hetero_data(A))
    assert torch.equal(again["user", "buys", "item"].to_dense(), buys)
    twice = hetero(data)
    twice["user", "knows", "user"].edge_index = torch.tensor([[1, 1], [0, 0]])
    with pytest.raises(ValueError, match=r"'knows', 'user'\): 1 edges occur more than once"):
        pyg.from_hetero_data(twice)
    nothing = pyg.from_hetero_data(data.HeteroData()).adjacency
    assert isinstance(nothing, TypedCSR)
    assert len(nothing) == 0


def test_without_pyg_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(ImportError, match=r"pip install 'sparsetorch\[graph\]'"):
        pyg.to_data(CSRTensor.eye(2))
