"""MG-GNN as published: both levels at once in every layer.

Taghibakhshi et al., ICML 2023 (arXiv:2301.11378), section 4.2; details are those of the authors'
code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphnets.published.layers import CrossMessages, convolution, instance_norm
from graphnets.published.network import TwoLevelNet
from graphnets.two_level import TwoLevelGraph
from sparsetorch import CSRTensor


class MultigridLayer(nn.Module):
    """Messages both ways at once, appended to each node's own embedding, then a convolution.

    `x <- norm(relu(TAGConv(x, relu(messages from coarse))))`, and the same for y.
    """

    def __init__(self, width: int, hops: int, features: int = 0) -> None:
        super().__init__()
        self.up = CrossMessages(width, features)
        self.down = CrossMessages(width, features)
        self.fine = convolution(2 * width, width, hops)
        self.coarse = convolution(2 * width, width, hops)

    def forward(
        self, graph: TwoLevelGraph, x: Tensor, y: Tensor, fine: Tensor, coarse: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fine x (n, width) and coarse y (S, width) -> the same shapes."""
        up = self.up.to_fine(graph, x, y).relu()
        down = self.down.to_coarse(graph, x, y).relu()
        x = self.fine(CSRTensor(graph.fine, fine), torch.cat([x, up], -1))
        y = self.coarse(CSRTensor(graph.coarse, coarse), torch.cat([y, down], -1))
        return instance_norm(x.relu()), instance_norm(y.relu())


def mggnn(width: int = 128, layers: int = 4, hops: int = 2, features: int = 0) -> TwoLevelNet:
    """MG-GNN on two levels; 1,380,292 parameters with the published sizes, the defaults.

    `features` of the edges between levels, see `TwoLevelNet`, are not published.
    """
    stack = [MultigridLayer(width, hops, features) for _ in range(layers)]
    return TwoLevelNet(stack, width, features)
