"""What MG-GNN and Graph U-Net have in common: their inputs and their outputs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from graphnets.mggnn import mlp
from graphnets.published.layers import EdgeModel
from graphnets.two_level import TwoLevelGraph


class TwoLevelNet(nn.Module):
    """Encoders, layers on two levels, and the heads for ring edges and for edges between levels.

    A fine edge's two features become one number, which a second MLP, shared with the coarse edges,
    turns into its weight in every convolution. Node features of both levels go through one MLP.
    Made by `mggnn` and `graph_unet`; equivariant to renumbering either level.

    Args:
        layers: modules that map (graph, x, y, fine weights, coarse weights) to new (x, y).
        width: of the embeddings.
        features: how many features of the edges between levels the layers and the head of the
            prolongation see; none as published.
    """

    def __init__(self, layers: Iterable[nn.Module], width: int, features: int = 0) -> None:
        super().__init__()
        self.fine_edge = mlp(2, width, width, 1)
        self.edge = mlp(1, width, width, 1)
        self.node = mlp(1, width, width, width)
        self.layers = nn.ModuleList(layers)
        self.fine_out = nn.Linear(width, width)
        self.coarse_out = nn.Linear(width, width)
        self.ring_head = EdgeModel(width)
        self.cross_head = EdgeModel(width, features)

    @torch.no_grad()
    def start_plain(self) -> None:
        """Set the heads' last layers so that values are 0 at ring edges and 1 between the levels.

        Not published: there both are random at first, and what they make of a method can diverge.
        """
        for head, value in ((self.ring_head, 0.0), (self.cross_head, 1.0)):
            last = head.rest[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, value)

    def forward(self, graph: TwoLevelGraph, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
        """Values at ring edges and at the edges between the levels.

        Args:
            graph: with 1 feature at each node, 2 at fine edges, 1 at coarse edges, and at least
                `features` at the edges between the levels.
            row, col: (R,) fine nodes, the ends of each directed ring edge.

        Returns:
            (R,), and (nnz of graph.cross,).
        """
        fine = self.edge(self.fine_edge(graph.fine_edges)).squeeze(-1)
        coarse = self.edge(graph.coarse_edges).squeeze(-1)
        x, y = self.node(graph.fine_nodes), self.node(graph.coarse_nodes)
        for layer in self.layers:
            x, y = layer(graph, x, y, fine, coarse)
        x, y = self.fine_out(x), self.coarse_out(y)
        # The head of the prolongation takes the coarse embedding first.
        cross = self.cross_head(y, x, graph.cross.col, graph.cross.row, graph.cross_edges)
        return self.ring_head(x, x, row, col), cross
