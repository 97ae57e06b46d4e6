"""HGNN: a graph of what was visited and a coarse graph of when, for logs that are long.

A. Taghibakhshi, M. Ma, A. Aithal, O. Yilmaz, H. Maron, M. West, "Hierarchical Graph Neural Network
with Cross-Attention for Cross-Device User Matching", DaWaK 2023 (arXiv:2304.03215), section 3. The
paper's code is not public; what its text leaves open is said here. Differences: dot products in the
attention of fine nodes to coarse ones are scaled by the width's root, and the last update, whose
form is not given, is a residual one with LayerNorm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphnets.ordered_gru import OrderedGRUConv, ordered_neighbours
from graphnets.ragged import Ragged
from graphnets.two_level import TwoLevelGraph, mean_edges
from sparsetorch import CSRTensor


class HGNNLayer(nn.Module):
    """One layer: a GRU over the neighbours in time, then down to the chunks and back by attention.

    Tier 1: m_i = GRU(x_j1, ..., x_jk, x_i), x_i <- (x_i + m_i) / 2. Tier 2: chunks take the mean of
    their nodes, y_j = mean W_1 x_i; nodes average their chunks by attention,
    alpha_ij = softmax_j of W_2 x_i . W_3 y_j, and x_i <- x_i + norm(relu(U x_i + V sum alpha y)).

    Args:
        width: of the nodes' embeddings.
        attention: width of the products that weigh chunks.
    """

    def __init__(self, width: int, attention: int = 16) -> None:
        super().__init__()
        self.read = OrderedGRUConv(width, width, with_self=True)
        self.down = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, attention, bias=False)
        self.key = nn.Linear(width, attention, bias=False)
        self.own = nn.Linear(width, width)
        self.up = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, graph: TwoLevelGraph, neighbours: Ragged, x: Tensor) -> Tensor:
        """Nodes x (n, width), and the neighbours of each in order -> (n, width)."""
        x = (x + self.read(neighbours, x)) / 2
        cross = graph.cross
        y = mean_edges(graph.to_coarse, self.down(x).index_select(0, cross.row))
        # The products of stored entries alone: (queries keys^T) on the pattern.
        queries, keys = self.query(x), self.key(y) / self.key.out_features**0.5
        scores = (queries.index_select(0, cross.row) * keys.index_select(0, cross.col)).sum(1)
        alpha = CSRTensor(cross, scores).softmax(-1)
        far = alpha.matmul(y)
        return x + self.norm(torch.relu(self.own(x) + self.up(far)))


class HGNN(nn.Module):
    """Embeddings of the fine nodes of two-level graphs; the same alone and in any batch.

    Args:
        width: of the embeddings.
        layers: number of `HGNNLayer`s.
        attention: of each layer.
    """

    def __init__(self, width: int, layers: int = 1, attention: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HGNNLayer(width, attention) for _ in range(layers))

    def forward(self, graph: TwoLevelGraph, x: Tensor) -> Tensor:
        """Nodes x (n, width) -> (n, width); neighbours come by the first feature of fine edges.

        Raises:
            ValueError: fine edges have no feature.
        """
        if not graph.fine_edges.shape[1]:
            raise ValueError(
                "graph: expected fine_edges (nnz, features) with at least one, when an edge was "
                "made, by which neighbours come in order, got none"
            )
        order = CSRTensor(graph.fine, graph.fine_edges[:, 0])
        neighbours = ordered_neighbours(order, len(x))
        for layer in self.layers:
            x = layer(graph, neighbours, x)
        return x
