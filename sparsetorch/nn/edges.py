"""The graphs that layers take: a matrix, a pattern, or the edges of PyG."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.build import assembly
from sparsetorch.csr import CSRTensor
from sparsetorch.pattern import Pattern

Graph = CSRTensor | Pattern | Tensor


def as_matrix(graph: Graph, x: Tensor | CSRTensor) -> CSRTensor | Tensor:
    """The matrix that passes messages along the edges of a graph, for features x (*batch, n, k).

    graph: a CSRTensor, or a dense matrix of floating numbers, as it is; a Pattern, as ones; or
    PyG's edge_index (2, n_edges) int64 or int32, sources above targets, as ones (parallel edges
    are summed, as PyG sums their messages). Edges are sorted anew in each call: make a CSRTensor
    once, `CSRTensor.from_edge_index(edge_index, edge_weight, n)`, where a graph is used again.

    Raises:
        TypeError: something else.
        ValueError: edges of another shape, or of nodes that x does not have.
    """
    if isinstance(graph, CSRTensor) or (isinstance(graph, Tensor) and not _is_integer(graph)):
        return graph
    if isinstance(graph, Pattern):
        return CSRTensor(graph, torch.ones(graph.nnz, dtype=x.dtype, device=graph.device))
    n = _checked(graph, x)
    ones = torch.ones(graph.shape[1], dtype=x.dtype, device=graph.device)
    return CSRTensor.from_edge_index(graph, ones, n)


def as_pattern(graph: Graph, x: Tensor) -> Pattern:
    """The edges of a graph, for features x (n, k): of a CSRTensor its pattern, stored zeros too.

    graph: as in `as_matrix`, but no dense matrix.

    Raises:
        TypeError: something else.
        ValueError: as in `as_matrix`, or an edge that is given twice, which a pattern cannot be.
    """
    if isinstance(graph, Pattern):
        return graph
    if isinstance(graph, CSRTensor):
        return graph.pattern
    n = _checked(graph, x)
    plan = assembly(graph[1].contiguous(), graph[0].contiguous(), (n, n))
    if plan.groups is not None:
        raise ValueError(
            f"edge_index: {graph.shape[1] - plan.pattern.nnz} edges are given more than once; "
            "remove them with torch_geometric.utils.coalesce(edge_index)"
        )
    return plan.pattern


def _is_integer(graph: Tensor) -> bool:
    return not (graph.is_floating_point() or graph.is_complex())


def _checked(edges: Tensor, x: Tensor | CSRTensor) -> int:
    """The number of nodes of x, which the edges are between."""
    if not isinstance(edges, Tensor) or edges.dtype not in (torch.int64, torch.int32):
        what = edges.dtype if isinstance(edges, Tensor) else type(edges).__name__
        raise TypeError(
            "graph: expected a CSRTensor, a Pattern or an edge_index (2, n_edges) int64, got "
            f"{what}"
        )
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(
            f"edge_index: expected shape (2, n_edges), sources above targets, got "
            f"{tuple(edges.shape)}"
        )
    n = x.shape[-2]
    if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= n):
        raise ValueError(
            f"edge_index: expected nodes 0 to {n - 1}, as x of shape {tuple(x.shape)} has, got "
            f"{int(edges.min())} to {int(edges.max())}"
        )
    return n
