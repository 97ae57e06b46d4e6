"""Graph algorithms on sparsity patterns: orderings, colourings, components and neighbourhoods.

Entry (i, j) is an edge from i to j, as in `scipy.sparse.csgraph`. So the nodes within k steps of i
are those that row i of `A^k` depends on.
"""

from sparsetorch.graph.coloring import coloring
from sparsetorch.graph.ordering import minimum_degree, reverse_cuthill_mckee
from sparsetorch.graph.traversal import (
    Components,
    breadth_first_levels,
    connected_components,
    k_hop,
)

__all__ = [
    "Components",
    "breadth_first_levels",
    "coloring",
    "connected_components",
    "k_hop",
    "minimum_degree",
    "reverse_cuthill_mckee",
]
