"""What can be reached from where: components, levels of a breadth-first search, neighbourhoods."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.csgraph import connected_components as scipy_connected_components
from torch import Tensor

from sparsetorch.checks import check_count, check_index
from sparsetorch.graph.adjacency import check_square, host_graph, neighbours
from sparsetorch.pattern import Pattern
from sparsetorch.structure import finding_structure


class Components(NamedTuple):
    """The parts of a graph between which no entry is stored."""

    count: int
    labels: Tensor  # (n,) int64, from 0 to count - 1


@finding_structure("connected_components")
def connected_components(pattern: Pattern) -> Components:
    """The connected components of the graph of A + A^T: how many, and that of each node.

    Components are numbered by their first nodes. Computed on the host by
    `scipy.sparse.csgraph.connected_components(directed=False)`.

    Raises:
        TypeError, ValueError: not a square pattern, or one too large for int32 indices.
    """
    if check_square(pattern) == 0:
        return Components(0, torch.zeros(0, dtype=torch.int64, device=pattern.device))
    count, labels = scipy_connected_components(host_graph(pattern), directed=False)
    return Components(int(count), torch.from_numpy(labels.astype(np.int64)).to(pattern.device))


@finding_structure("breadth_first_levels")
def breadth_first_levels(pattern: Pattern, sources: Tensor) -> Tensor:
    """Number of edges on a shortest path from any source, (n,) int64; -1 where there is none.

    sources: (k,) int32 or int64, in any order. Edges run from row to column. On the CPU by
    SciPy's compiled `breadth_first_order`; on other devices level by level, which is slow for
    graphs as deep as a path. Equivalent to `scipy.sparse.csgraph.dijkstra(unweighted=True,
    indices=sources, min_only=True)`.

    Raises:
        TypeError: not a Pattern.
        ValueError: it is not square, or a source is not one of its nodes.
    """
    check_index("sources", sources, check_square(pattern))
    sources = sources.to(pattern.device, torch.int64)
    on_host = pattern.device.type == "cpu"
    return (levels_by_scipy if on_host else levels_by_frontiers)(pattern, sources)


def levels_by_frontiers(pattern: Pattern, sources: Tensor) -> Tensor:
    """`breadth_first_levels`, one round of PyTorch calls per level."""
    levels = torch.full((pattern.shape[0],), -1, device=pattern.device)
    for level, nodes in enumerate(_frontiers(pattern, sources)):
        levels[nodes] = level
    return levels


def levels_by_scipy(pattern: Pattern, sources: Tensor) -> Tensor:
    """`breadth_first_levels` from one more node, whose neighbours are the sources."""
    n, graph = pattern.shape[0], host_graph(pattern)
    first = torch.unique(sources).numpy()
    indices = np.concatenate([graph.indices, first]).astype(np.int32)
    pointers = np.append(graph.indptr, len(indices)).astype(np.int32)
    joined = csr_array((np.ones(len(indices)), indices, pointers), shape=(n + 1, n + 1))
    order, parents = breadth_first_order(joined, n, directed=True)
    reached = torch.from_numpy(order.astype(np.int64))
    parent = torch.full((n + 1,), n)
    parent[reached[1:]] = torch.from_numpy(parents.astype(np.int64))[reached[1:]]
    # Each round doubles the number of ancestors that `depth` counts and `parent` jumps over.
    depth = torch.ones(n + 1, dtype=torch.int64)
    depth[n] = 0
    while bool((parent != n).any()):
        depth += depth[parent]
        parent = parent[parent]
    levels = torch.full((n,), -1)
    levels[reached[1:]] = depth[reached[1:]] - 1
    return levels


@finding_structure("k_hop")
def k_hop(pattern: Pattern, nodes: Tensor, k: int) -> Tensor:
    """The nodes within k edges of some nodes, which they include: sorted, int64, pattern's device.

    nodes: (m,) int32 or int64. Edges run from row to column, so that rows `nodes` of `A^k x` depend
    on no other entries of x: `A.submatrix(found, found)` is the induced subgraph, and
    `torch.searchsorted(found, nodes)` the place of the nodes in it. The neighbourhoods of
    W. L. Hamilton, R. Ying, J. Leskovec, NeurIPS 2017, without sampling.

    Raises:
        TypeError: not a Pattern, or k is no number.
        ValueError: it is not square, a node is not one of its nodes, or k is negative.
    """
    check_index("nodes", nodes, check_square(pattern))
    k = check_count("k", k, "edges", least=0)
    nodes = nodes.to(pattern.device, torch.int64)
    found = torch.cat([nodes[:0], *islice(_frontiers(pattern, nodes), k + 1)])
    return torch.sort(found).values


def _frontiers(pattern: Pattern, sources: Tensor) -> Iterator[Tensor]:
    """The nodes at distance 0, 1, 2, ... from the sources, each set sorted and not empty."""
    unseen = torch.ones(pattern.shape[0], dtype=torch.bool, device=pattern.device)
    frontier = torch.unique(sources)
    while frontier.numel():
        unseen[frontier] = False
        yield frontier
        _, reached = neighbours(pattern, frontier)
        frontier = torch.unique(reached[unseen[reached]])
