"""Colourings: sets of rows or columns that do not touch each other."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.checks import check_index
from sparsetorch.graph.adjacency import check_square, neighbours, symmetrized
from sparsetorch.graph.traversal import breadth_first_levels, connected_components
from sparsetorch.pattern import Pattern
from sparsetorch.structure import finding_structure


@finding_structure("coloring")
def coloring(pattern: Pattern, distance: int = 1, order: Tensor | None = None) -> Tensor:
    """Colours 0, 1, ... of the columns, (n_cols,) int64: equal ones are not neighbours.

    distance 1: no entry (i, j) or (j, i) is stored between different nodes of one colour, so that a
    Gauss-Seidel sweep may update a colour at once; square patterns. distance 2: no row holds two
    columns of one colour, so that one product with the sum of their unit vectors gives all of them:
    a Jacobian of any shape from as many products as there are colours.

    Two colours where two are enough ("red-black"); otherwise those of the greedy colouring in the
    order of decreasing degree, with ties in an order that is random but always the same, found
    in few parallel rounds, on the pattern's device. order: (n_cols,) integers, a permutation to
    colour greedily in instead. The natural one, `torch.arange(n_cols)`, needs fewer colours on
    banded matrices, but as many rounds as its longest chain of neighbours has links. distance 2
    makes the pattern of A^T A.

    D. J. A. Welsh, M. B. Powell, Comput. J. 10 (1967); M. T. Jones, P. E. Plassmann, SIAM J. Sci.
    Comput. 14 (1993); A. R. Curtis, M. J. D. Powell, J. K. Reid, IMA J. Appl. Math. 13 (1974).

    Raises:
        TypeError: not a Pattern.
        ValueError: another distance, a pattern that is not square for distance 1, or an order that
            is not a permutation.
    """
    if distance not in (1, 2):
        raise ValueError(f"distance: expected 1 or 2, got {distance}")
    if distance == 1:
        check_square(pattern)
        graph, longest = symmetrized(pattern), 2
    else:
        graph = pattern.T.matmul(pattern)
        longest = int(pattern.crow.diff().amax()) if pattern.shape[0] else 0
    if order is not None:
        return _greedy(graph, _inverse(order, graph))
    # Three columns of a row are neighbours of each other.
    red_black = _red_black(graph) if longest <= 2 else None
    return _greedy(graph, _largest_first(graph)) if red_black is None else red_black


def _inverse(order: Tensor, graph: Pattern) -> Tensor:
    """The rank of each node in a permutation."""
    n = graph.shape[0]
    check_index("order", order, n)
    counts = torch.bincount(order, minlength=n)
    if order.numel() != n or bool((counts != 1).any()):
        raise ValueError(f"order: expected each of 0 to {n - 1} once, got {order.numel()} indices")
    return torch.argsort(order.to(graph.device))


def _red_black(graph: Pattern) -> Tensor | None:
    """The parity of breadth-first levels, if it colours the graph."""
    nodes = torch.arange(graph.shape[0], device=graph.device)
    count, labels = connected_components(graph)
    first = nodes.new_full((count,), len(nodes)).scatter_reduce(0, labels, nodes, "amin")
    colors = breadth_first_levels(graph, first) % 2
    clashes = (colors[graph.row] == colors[graph.col]) & (graph.row != graph.col)
    return None if bool(clashes.any()) else colors


def _greedy(graph: Pattern, rank: Tensor) -> Tensor:
    """Each node, in the order of its rank, gets the smallest colour that no neighbour has.

    A node waits for its neighbours of lower rank alone, so each round colours all nodes that wait
    for nobody.
    """
    n = graph.shape[0]
    row, col = graph.row, graph.col
    waits = torch.bincount(row[rank[col] < rank[row]], minlength=n)
    colors = torch.full((n,), -1, device=graph.device)
    ready = torch.nonzero(waits == 0)[:, 0]
    while ready.numel():
        owner, neighbour = neighbours(graph, ready)
        colors[ready] = _smallest_missing(owner, colors[neighbour], ready.numel())
        later = neighbour[rank[neighbour] > rank[ready][owner]]
        waits.index_add_(0, later, torch.full_like(later, -1))
        ready = torch.unique(later[waits[later] == 0])
    return colors


def _largest_first(graph: Pattern) -> Tensor:
    """Rank of each node, (n,): by decreasing degree, then in a fixed random order."""
    n = graph.shape[0]
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0)).to(graph.device)
    by_degree = torch.sort(graph.crow.diff()[shuffled], descending=True, stable=True).indices
    rank = torch.empty_like(shuffled)
    rank[shuffled[by_degree]] = torch.arange(n, device=graph.device)
    return rank


def _smallest_missing(owner: Tensor, colors: Tensor, n_owners: int) -> Tensor:
    """The smallest number from 0 on that is not among the colours of each owner; -1 is no colour.

    owner: (m,), increasing. colors: (m,).
    """
    counts = torch.bincount(owner, minlength=n_owners)
    # An owner of d colours misses one of 0 .. d: it has d + 1 marks, one after another.
    first = (counts + 1).cumsum(0) - counts - 1
    used = torch.zeros(len(owner) + n_owners, dtype=torch.bool, device=owner.device)
    relevant = (colors >= 0) & (colors <= counts[owner])
    used[first[owner[relevant]] + colors[relevant]] = True
    unused = torch.nonzero(~used)[:, 0]
    return unused[torch.searchsorted(unused, first)] - first
