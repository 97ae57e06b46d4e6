"""Many graphs as one: a block-diagonal matrix, and where the nodes of each graph begin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from graphnets.ragged import Ragged
from graphnets.readout import membership
from sparsetorch import CSRTensor, Pattern


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs one after another, as in PyG's `Batch`; no edge leads from one to another.

    Attributes:
        adjacency: (N, N), block-diagonal; entry (i, j) is an edge from j to i.
        nodes: G rows, the features (N, m) of each graph's nodes; `nodes.row` is PyG's vector
            `batch`, `nodes.ptr` its `ptr`.
        labels: (G, *), one for each graph, or None.
        edges: (nnz, k) features of edges in the pattern's order, or None.
    """

    adjacency: CSRTensor
    nodes: Ragged
    labels: Tensor | None = None
    edges: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not fit, and edges between graphs."""
        n, row = len(self.nodes.values), self.nodes.row
        pattern = self.adjacency.pattern
        if self.adjacency.shape != (n, n):
            raise ValueError(
                f"adjacency: expected ({n}, {n}) for {n} nodes, got {tuple(self.adjacency.shape)}"
            )
        if not torch.equal(row[pattern.row.long()], row[pattern.col.long()]):
            raise ValueError("adjacency: an edge leads from one graph to another")
        if self.labels is not None and len(self.labels) != len(self):
            raise ValueError(f"labels: expected {len(self)}, one a graph, got {len(self.labels)}")
        if self.edges is not None and len(self.edges) != pattern.nnz:
            raise ValueError(f"edges: expected {pattern.nnz}, one an edge, got {len(self.edges)}")

    def __len__(self) -> int:
        """The number of graphs."""
        return len(self.nodes)

    @cached_property
    def membership(self) -> Pattern:
        """(G, N), for `readout`."""
        return membership(self.nodes.ptr)

    @cached_property
    def _entries(self) -> Ragged:
        """Where the matrix entries of each graph are."""
        ptr = self.adjacency.pattern.crow.long()[self.nodes.ptr]
        return Ragged(ptr, torch.arange(self.adjacency.pattern.nnz, device=ptr.device))

    def select(self, graphs: Tensor) -> Self:
        """Some graphs (k,) int64, in that order, as a batch; in time linear in their sizes.

        Raises:
            ValueError: a graph does not exist.
        """
        nodes, places = self.nodes.select(graphs)
        entries, positions = self._entries.select(graphs)
        pattern = self.adjacency.pattern
        shift = (nodes.ptr[:-1] - self.nodes.ptr[graphs])[entries.row]
        lengths = pattern.crow.diff().long()[places]
        crow = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        col = pattern.col.long()[positions] + shift
        n = len(places)
        chosen = Pattern.trusted(crow.to(pattern.crow.dtype), col.to(pattern.dtype), (n, n))
        values = self.adjacency.values.index_select(-1, positions)
        return type(self)(
            CSRTensor(chosen, values),
            nodes,
            None if self.labels is None else self.labels[graphs],
            None if self.edges is None else self.edges[positions],
        )
