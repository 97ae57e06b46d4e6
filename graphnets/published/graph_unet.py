"""The Graph U-Net that MG-GNN is compared with: the levels one after another, in the shape of a V.

Taghibakhshi et al., ICML 2023 (arXiv:2301.11378), section 5; details are those of the authors'
code: the coarse nodes are the subdomains, unlike in Gao and Ji's Graph U-Nets (arXiv:1905.05178),
which keep the nodes with the largest scores. Messages replace a node's embedding, which they depend
on; there is no ReLU but in the message MLPs.
"""

from __future__ import annotations

from torch import Tensor, nn

from graphnets.published.layers import CrossMessages, convolution, instance_norm
from graphnets.published.network import TwoLevelNet
from graphnets.two_level import TwoLevelGraph
from sparsetorch import CSRTensor


class VLayer(nn.Module):
    """Convolve, pool, convolve the coarse level, normalise, unpool, convolve."""

    def __init__(self, width: int, hops: int, features: int = 0) -> None:
        super().__init__()
        self.before = convolution(width, width, hops)
        self.pool = CrossMessages(width, features)
        self.coarse = convolution(width, width, hops)
        self.unpool = CrossMessages(width, features)
        self.after = convolution(width, width, hops)

    def forward(
        self, graph: TwoLevelGraph, x: Tensor, y: Tensor, fine: Tensor, coarse: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fine x (n, width) and coarse y (S, width) -> the same shapes."""
        A = CSRTensor(graph.fine, fine)
        x = self.before(A, x)
        y = self.coarse(CSRTensor(graph.coarse, coarse), self.pool.to_coarse(graph, x, y))
        x, y = instance_norm(x), instance_norm(y)
        return self.after(A, self.unpool.to_fine(graph, x, y)), y


class GraphUNet(TwoLevelNet):
    """Graph U-Net on two levels: 1,184,196 parameters with the published sizes, the defaults.

    Args:
        width: of the embeddings.
        layers: number of V's.
        hops: K of TAGConv.
        features: of the edges between levels, see `TwoLevelNet`; not published.
    """

    def __init__(self, width: int = 128, layers: int = 4, hops: int = 2, features: int = 0) -> None:
        stack = [VLayer(width, hops, features) for _ in range(layers)]
        super().__init__(stack, width, features)


def graph_unet(width: int = 128, layers: int = 4, hops: int = 2, features: int = 0) -> GraphUNet:
    """A `GraphUNet`, made as `mggnn` makes the network that it is compared with."""
    return GraphUNet(width, layers, hops, features)
