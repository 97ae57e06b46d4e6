"""Parts that MG-GNN and Graph U-Net share: messages between levels, convolution, norm, edge head.

The first linear layer of an MLP on two concatenated embeddings is applied node by node, and the
last one of a message after its sum: the same function for an eighth of the work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphnets.two_level import Incidence, TwoLevelGraph
from sparsetorch.nn import TAGConv
from sparsetorch_kernels import spmm


class PairLinear(nn.Linear):
    """A linear layer on the concatenation (a_i, b_k, f_ik) of two embeddings and features of pairs.

    The published networks have no features there.
    """

    def __init__(self, width: int, width_out: int, features: int = 0) -> None:
        super().__init__(2 * width + features, width_out)
        self.parts = (width, width, features)
        if features:  # a few numbers beside two embeddings would hardly count
            nn.init.uniform_(self.weight[:, 2 * width :], -(features**-0.5), features**-0.5)

    def pairs(
        self, a: Tensor, b: Tensor, row: Tensor, col: Tensor, f: Tensor | None = None
    ) -> Tensor:
        """Hidden values of p pairs (row, col).

        Args:
            a, b: (n, width) and (m, width) embeddings.
            row, col: (p,) indices into a and b.
            f: (p, k) features, of which those that the layer was made for, the first, are used.

        Returns:
            (p, width_out).
        """
        first, second, third = self.weight.split(self.parts, dim=1)
        left, right = F.linear(a, first, self.bias), F.linear(b, second)
        hidden = left.index_select(0, row) + right.index_select(0, col)
        if self.parts[2]:
            assert f is not None
            hidden = hidden + F.linear(f[:, : self.parts[2]], third)
        return hidden


class CrossMessages(nn.Module):
    """`sum_k MLP(x_i, y_k)` over the edges between levels: not normalised by their number.

    With `features` the MLP also sees so many features of the edge.
    """

    def __init__(self, width: int, features: int = 0) -> None:
        super().__init__()
        self.first = PairLinear(width, width, features)
        self.second = nn.Linear(width, width)

    def to_fine(self, graph: TwoLevelGraph, x: Tensor, y: Tensor) -> Tensor:
        """Messages of coarse nodes y (S, width) at fine nodes x (n, width): (n, width)."""
        hidden = self.first.pairs(x, y, graph.cross.row, graph.cross.col, graph.cross_edges)
        return self._summed(graph.to_fine, hidden.relu_())

    def to_coarse(self, graph: TwoLevelGraph, x: Tensor, y: Tensor) -> Tensor:
        """Messages of fine nodes x (n, width) at coarse nodes y (S, width): (S, width)."""
        hidden = self.first.pairs(y, x, graph.cross.col, graph.cross.row, graph.cross_edges)
        return self._summed(graph.to_coarse, hidden.relu_())

    def _summed(self, incidence: Incidence, hidden: Tensor) -> Tensor:
        sums = spmm(
            incidence.layout, torch.ones_like(incidence.weights, dtype=hidden.dtype), hidden
        )
        count = incidence.layout.crow.diff().to(hidden.dtype)
        return F.linear(sums, self.second.weight) + count[:, None] * self.second.bias


def convolution(width_in: int, width: int, hops: int) -> TAGConv:
    """TAGConv that starts as PyG's does: each hop's weights by its own width, the bias at zero."""
    layer = TAGConv(width_in, width, hops)
    nn.init.uniform_(layer.linear.weight, -(width_in**-0.5), width_in**-0.5)
    nn.init.zeros_(layer.linear.bias)
    return layer


def instance_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Each feature with mean 0 and variance 1 over the nodes of the graph, x (n, width).

    Equivalent to PyG's `InstanceNorm` of one graph.
    """
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    return (x - mean) * (variance + eps).rsqrt()


def halves(width_in: int, width: int) -> nn.Sequential:
    """Two linear layers with ReLU between and LayerNorm after, then ReLU."""
    inner = nn.Linear(width_in, width), nn.ReLU(), nn.Linear(width, width)
    return nn.Sequential(*inner, nn.LayerNorm(width), nn.ReLU())


class EdgeModel(nn.Module):
    """One number for each pair of embeddings: 2 width -> width -> width/2 -> width/4 -> 1."""

    def __init__(self, width: int, features: int = 0) -> None:
        super().__init__()
        self.first = PairLinear(width, width, features)
        self.rest = nn.Sequential(
            halves(width, width // 2),
            halves(width // 2, width // 4),
            nn.Linear(width // 4, 1),
        )

    def forward(
        self, a: Tensor, b: Tensor, row: Tensor, col: Tensor, f: Tensor | None = None
    ) -> Tensor:
        """Arguments as those of `PairLinear.pairs` -> (p,)."""
        return self.rest(self.first.pairs(a, b, row, col, f).relu()).squeeze(-1)
