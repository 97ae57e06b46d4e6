"""To and from the graphs of PyG: `Data`, `Batch` and `HeteroData`.

Entry (i, j) of a matrix is an edge from node j to node i, so that `A @ x` sums over incoming edges,
as PyG's layers do with `edge_index[0]` as sources and `edge_index[1]` as targets. Nodes keep their
numbers. The entries of a matrix are sorted by target, then by source; `order` says which edge each
of them was, so that `data.edge_attr[order]` is in the pattern's order, and on the way back edges
return to where they were. Edges that occur twice are refused: their attributes would have nowhere
to go. `CSRTensor.from_edge_index` and `TypedCSR.from_edge_index_dict` sum them instead.

From PyG only attributes are read: it need not be installed for the `from_` functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphnets.extras import extra
from graphnets.graph_batch import GraphBatch
from graphnets.ragged import Ragged
from sparsetorch import CSRTensor, TypedCSR, assembly
from sparsetorch.typed import EdgeType


class Graph(NamedTuple):
    """A graph as a matrix.

    adjacency: (n, n), the edges' weights; ones where there are none.
    order: (nnz,) int64; entry k of the values is edge `order[k]` of PyG's.
    """

    adjacency: CSRTensor
    order: Tensor


class TypedGraph(NamedTuple):
    """A graph with several kinds of nodes and edges: as `Graph`, by (source, relation, target)."""

    adjacency: TypedCSR
    order: dict[EdgeType, Tensor]


def from_data(data: Any) -> Graph:
    """From a PyG `Data`, or a `Batch` as one graph; weights are `edge_weight`, differentiably.

    Isolated nodes count: there are `data.num_nodes`. Features and labels stay where they are,
    `data.x` fits the matrix.

    Raises:
        TypeError: not a Data with an edge_index.
        ValueError: an edge twice, a node that there is not, or weights that do not fit.
    """
    edge_index = getattr(data, "edge_index", None)
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"data: expected a Data with edge_index, got {type(data).__name__}")
    n = int(data.num_nodes)
    return _matrix("edge_index", edge_index, getattr(data, "edge_weight", None), (n, n))


def to_data(adjacency: CSRTensor, order: Tensor | None = None, **attributes: Any) -> Any:
    """A PyG `Data` with `edge_index`, `edge_weight` (the values, shared) and the attributes given.

    order: that of `from_data`, which puts the edges back as they were; by default they are sorted
    by target. attributes: `x`, `y`, `edge_attr` (in the order of the edges), ...

    Raises:
        ImportError: PyG is not installed.
        ValueError: a matrix that is not square, a batch of them, or another number of edges.
    """
    n = adjacency.shape[-1]
    if adjacency.shape != (n, n):
        raise ValueError(f"adjacency: expected (n, n), got {tuple(adjacency.shape)}")
    edge_index, weight = _edges(adjacency, order)
    Data = extra("torch_geometric.data").Data
    return Data(edge_index=edge_index, edge_weight=weight, num_nodes=n, **attributes)


def from_hetero_data(data: Any) -> TypedGraph:
    """From a PyG `HeteroData`: a matrix (targets, sources) for each kind of edge.

    Weights are `edge_weight` of the kinds that have it, differentiably, ones for the others. Types
    of nodes without edges are in `adjacency.n_nodes` too.

    Raises:
        TypeError: not a HeteroData.
        ValueError: as `from_data`, or a type whose number of nodes nothing tells.
    """
    if not (hasattr(data, "edge_types") and hasattr(data, "node_types")):
        raise TypeError(f"data: expected a HeteroData, got {type(data).__name__}")
    n_nodes = {}
    for node_type in data.node_types:
        if data[node_type].num_nodes is None:
            raise ValueError(
                f"data: the number of nodes of type {node_type!r} is unknown; set "
                f"data[{node_type!r}].num_nodes"
            )
        n_nodes[node_type] = int(data[node_type].num_nodes)
    weights = {t: getattr(data[t], "edge_weight", None) for t in data.edge_types}
    given = next((weight for weight in weights.values() if weight is not None), None)
    matrices, order = {}, {}
    for edge_type in data.edge_types:
        edge_index, (source, _, target) = data[edge_type].edge_index, edge_type
        weight = weights[edge_type]
        if weight is None and given is not None:
            weight = given.new_ones(edge_index.shape[-1])
        shape = (n_nodes[target], n_nodes[source])
        matrices[edge_type], order[edge_type] = _matrix(str(edge_type), edge_index, weight, shape)
    return TypedGraph(TypedCSR(matrices, n_nodes), order)


def to_hetero_data(adjacency: TypedCSR, order: Mapping[EdgeType, Tensor] | None = None) -> Any:
    """A PyG `HeteroData`: `edge_index` and `edge_weight` of each kind, `num_nodes` of each type.

    order: that of `from_hetero_data`, for some kinds or all, see `to_data`.

    Raises:
        ImportError: PyG is not installed.
        ValueError: batches of matrices, or another number of edges.
    """
    data = extra("torch_geometric.data").HeteroData()
    for node_type, n in adjacency.n_nodes.items():
        data[node_type].num_nodes = n
    for edge_type, matrix in adjacency.items():
        edge_index, weight = _edges(matrix, (order or {}).get(edge_type))
        data[edge_type].edge_index, data[edge_type].edge_weight = edge_index, weight
    return data


def from_batch(batch: Any) -> GraphBatch:
    """From a PyG `Batch`: features `x`, labels `y`, `edge_weight`, `edge_attr`, where it has them.

    Graphs without nodes or edges stay. Of nodes without `x` the features are (N, 0).

    Raises:
        TypeError: not a Batch; `Batch.from_data_list` makes one of a list of Data.
        ValueError: as `from_data`, or edges from one graph to another.
    """
    ptr = getattr(batch, "ptr", None)
    if not isinstance(ptr, Tensor):
        raise TypeError(
            f"batch: expected a Batch, got {type(batch).__name__}; make one with "
            "Batch.from_data_list"
        )
    adjacency, order = from_data(batch)
    x = getattr(batch, "x", None)
    if x is None:
        x = torch.empty(int(ptr[-1]), 0, device=ptr.device)
    edge_attr = getattr(batch, "edge_attr", None)
    edges = None if edge_attr is None else edge_attr[order]
    return GraphBatch(adjacency, Ragged(ptr, x), getattr(batch, "y", None), edges)


def to_batch(graphs: GraphBatch) -> Any:
    """A PyG `Batch` of the graphs, with `x`, `y`, `edge_weight` and `edge_attr`.

    Raises:
        ImportError: PyG is not installed.
        ValueError: no graphs, of which PyG has no batch.
    """
    data = extra("torch_geometric.data")
    if not len(graphs):
        raise ValueError("graphs: expected at least one, PyG has no batch of none")
    edge_index, weight = graphs.adjacency.to_edge_index()
    starts, lengths = graphs.nodes.ptr[:-1], graphs.nodes.lengths
    ends = graphs.adjacency.pattern.crow.long()[graphs.nodes.ptr].tolist()
    found = []
    for i, (x, start) in enumerate(zip(graphs.nodes.values.split(lengths.tolist()), starts)):
        edges = slice(ends[i], ends[i + 1])
        one = data.Data(x=x, edge_index=edge_index[:, edges] - start, edge_weight=weight[edges])
        if graphs.edges is not None:
            one.edge_attr = graphs.edges[edges]
        if graphs.labels is not None:
            one.y = graphs.labels[i : i + 1]
        found.append(one)
    return data.Batch.from_data_list(found)


def _matrix(name: str, edges: Tensor, weight: Tensor | None, shape: tuple[int, int]) -> Graph:
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(f"{name}: expected shape (2, n_edges), got {tuple(edges.shape)}")
    source, target = edges[0].contiguous(), edges[1].contiguous()
    for end, nodes, n in (("targets", target, shape[0]), ("sources", source, shape[1])):
        if len(nodes) and (int(nodes.min()) < 0 or int(nodes.max()) >= n):
            raise ValueError(
                f"{name}: expected {end} 0 to {n - 1}, got {int(nodes.min())} to {int(nodes.max())}"
            )
    plan = assembly(target, source, shape)
    if plan.groups is not None:
        raise ValueError(
            f"{name}: {edges.shape[1] - plan.pattern.nnz} edges occur more than once; merge them "
            "with torch_geometric.utils.coalesce(edge_index, edge_attr), or sum their weights with "
            "CSRTensor.from_edge_index"
        )
    if weight is None:
        weight = torch.ones(edges.shape[1], device=edges.device)
    if weight.shape != (edges.shape[1],):
        raise ValueError(
            f"edge_weight: expected ({edges.shape[1]},), one number an edge, got "
            f"{tuple(weight.shape)}"
        )
    return Graph(CSRTensor(plan.pattern, plan.sum(weight)), plan.order.long())


def _edges(matrix: CSRTensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """edge_index and weights, sorted by target, or put back where `order` says they were."""
    if matrix.values.ndim != 1:
        raise ValueError(f"adjacency: expected one matrix, got a batch {tuple(matrix.shape)}")
    edge_index, weight = matrix.to_edge_index()
    if order is None:
        return edge_index, weight
    if order.shape != weight.shape:
        raise ValueError(f"order: expected {weight.shape[0]} edges, got {tuple(order.shape)}")
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return edge_index[:, place], weight[place]
