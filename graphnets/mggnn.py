"""MG-GNN: message passing on two levels of a graph at once.

Taghibakhshi, Nytko, Zaman, MacLachlan, Olson, West, "MG-GNN: Multigrid Graph Neural Networks for
Learning Multilevel Domain Decomposition Methods", ICML 2023, section 4 (arXiv:2301.11378).
Differences, for transfer between sizes and for speed: edges between levels carry features; messages
are averaged, not summed, and both directions share their hidden layer; what arrives is added to a
node's own embedding, not appended; LayerNorm replaces InstanceNorm, which ties a node's output to
the size of its graph; layers are residual.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from graphnets.two_level import TwoLevelGraph, mean_edges
from sparsetorch import CSRTensor
from sparsetorch.nn import TAGConv

BLOCK = 8192  # rows


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def by_blocks(function: Callable[..., Tensor], *args: Tensor, over: Tensor | None = None) -> Tensor:
    """`function(*args)` of rows that do not know of each other, (n, ...) -> (n, width).

    On the CPU, where no gradient is recorded, by blocks that stay in cache: in half the time. The
    result then overwrites `over`, an argument that is not needed any more, if it fits: large arrays
    are slow to get from the system.
    """
    n = len(args[0])
    if torch.is_grad_enabled() or args[0].device.type != "cpu" or n <= BLOCK:
        return function(*args)
    first, *blocks = zip(*(x.split(BLOCK) for x in args), strict=True)
    head = function(*first)
    shape = (n, *head.shape[1:])
    if over is None or over.shape != shape or over.dtype != head.dtype:
        over = head.new_empty(shape)
    over[:BLOCK] = head
    for i, block in enumerate(blocks, start=1):
        over[i * BLOCK : (i + 1) * BLOCK] = function(*block)
    return over


class CrossEdges(nn.Module):
    """Embedding of each edge between the levels, `relu(U x_i + V y_k + Q e_ik)`."""

    def __init__(self, width: int, edge_features: int) -> None:
        super().__init__()
        self.fine = nn.Linear(width, width)
        self.coarse = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(edge_features, width, bias=False)

    def forward(
        self,
        graph: TwoLevelGraph,
        x: Tensor,
        y: Tensor,
        head: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Fine x (n, width) and coarse y (S, width) -> (nnz of cross, width), or a head of that."""
        # The first layer of an MLP on (x_i, y_k, e_ik), with its products taken node by node.
        fine, coarse = self.fine(x), self.coarse(y)

        def embedded(row: Tensor, col: Tensor, features: Tensor) -> Tensor:
            edges = fine.index_select(0, row)
            edges += coarse.index_select(0, col)
            edges = torch.addmm(edges, features, self.edge.weight.T).relu_()  # heeds autocast
            return edges if head is None else head(edges)

        return by_blocks(embedded, graph.cross.row, graph.cross.col, graph.cross_edges)


class MGGNNLayer(nn.Module):
    """One layer: messages between the levels, then TAGConv within each, in parallel."""

    def __init__(self, width: int, cross_features: int, hops: int) -> None:
        super().__init__()
        self.cross = CrossEdges(width, cross_features)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        self.fine = TAGConv(width, width, hops)
        self.coarse = TAGConv(width, width, hops)
        self.fine_norm = nn.LayerNorm(width)
        self.coarse_norm = nn.LayerNorm(width)

    def forward(
        self,
        graph: TwoLevelGraph,
        x: Tensor,
        y: Tensor,
        fine_weights: Tensor,
        coarse_weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Fine x (n, width) and coarse y (S, width) -> the same shapes."""
        messages = self.cross(graph, x, y)
        # The second layer of the message MLP is linear, so it acts after the mean: once a node.
        up, down = (mean_edges(to, messages) for to in (graph.to_fine, graph.to_coarse))
        del messages  # as large as all that follows
        x_sum = by_blocks(lambda x, mean: x + self.up(mean), x, up, over=up)
        y_sum = y + self.down(down)
        powers = list(self.fine.powers(CSRTensor(graph.fine, fine_weights), x_sum))
        coarse = self.coarse(CSRTensor(graph.coarse, coarse_weights), y_sum)

        def fine(x: Tensor, *powers: Tensor) -> Tensor:
            return x + self.fine_norm(self.fine.mix(powers)).relu_()

        return by_blocks(fine, x, *powers, over=powers[-1]), y + self.coarse_norm(coarse).relu_()


class MGGNN(nn.Module):
    """Embeddings of both levels of a two-level graph; equivariant to renumbering either level.

    Args:
        fine_nodes, coarse_nodes, fine_edges, coarse_edges, cross_edges: numbers of features.
        width: of the embeddings.
        layers: number of `MGGNNLayer`s.
        hops: K of TAGConv.
    """

    def __init__(
        self,
        fine_nodes: int,
        coarse_nodes: int,
        fine_edges: int,
        coarse_edges: int,
        cross_edges: int,
        width: int = 64,
        layers: int = 4,
        hops: int = 2,
    ) -> None:
        super().__init__()
        self.fine_in = mlp(fine_nodes, width, width)
        self.coarse_in = mlp(coarse_nodes, width, width)
        self.fine_weights = mlp(fine_edges, width, layers)
        self.coarse_weights = mlp(coarse_edges, width, layers)
        self.layers = nn.ModuleList(MGGNNLayer(width, cross_edges, hops) for _ in range(layers))

    def forward(self, graph: TwoLevelGraph) -> tuple[Tensor, Tensor]:
        """Return the fine (n, width) and the coarse (S, width) embeddings."""
        x, y = by_blocks(self.fine_in, graph.fine_nodes), self.coarse_in(graph.coarse_nodes)
        # (layers, nnz)
        fine_weights = by_blocks(self.fine_weights, graph.fine_edges).T.contiguous()
        coarse_weights = self.coarse_weights(graph.coarse_edges).T.contiguous()
        for layer, fine, coarse in zip(self.layers, fine_weights, coarse_weights):
            x, y = layer(graph, x, y, fine, coarse)
        return x, y
