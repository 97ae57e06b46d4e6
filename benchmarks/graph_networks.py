"""One architecture with the layers of sparsetorch and with those of PyG, from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from graphnets.published.layers import convolution
from graphnets.readout import readout
from sparsetorch import CSRTensor, Pattern
from sparsetorch.nn import GATConv, GCNConv, gcn_normalize

OURS, EDGES, CSR = "sparsetorch", "PyG", "PyG, torch.sparse"
MODELS = ("GCN", "TAG", "GAT")
HOPS, HEADS = 2, 8


def contenders(model: str) -> tuple[str, ...]:
    """Who can run it: PyG's attention takes edge lists only."""
    return (OURS, EDGES) if model == "GAT" else (OURS, EDGES, CSR)


@dataclass(frozen=True)
class Shape:
    """Sizes of a network.

    plain: two convolutions with ReLU between and dropout before each, as in Kipf and Welling's GCN;
    else an encoder, residual blocks `x + dropout(relu(conv(norm(x))))`, and a linear head, after a
    mean over the nodes of each graph where there are many.
    """

    width: int
    layers: int
    dropout: float
    plain: bool = False


def propagation(model: str, A: CSRTensor) -> CSRTensor:
    """What the model multiplies by: found once, the same for all contenders."""
    if model == "GCN":
        return gcn_normalize(A)
    if model == "GAT":  # values are not used
        looped = A.pattern.with_diagonal.pattern
        return CSRTensor(looped, A.values.new_ones(looped.nnz))
    degrees = A.sum(-1).clamp(min=1).rsqrt()
    return A.scale_rows(degrees).scale_cols(degrees)


def given(who: str, model: str, A: CSRTensor) -> Any:
    """The matrix in the form that the contender's layers take."""
    if who == OURS:
        return A.pattern if model == "GAT" else A
    if who == CSR:
        return (A.to_torch(),)
    edges, weights = A.to_edge_index()
    return (edges,) if model == "GAT" else (edges, weights)


def our_layer(model: str, width_in: int, width_out: int, heads: int) -> nn.Module:
    if model == "GCN":
        return GCNConv(width_in, width_out)
    if model == "TAG":
        return convolution(width_in, width_out, HOPS)
    return GATConv(width_in, width_out // heads, heads)


class PeerLayer(nn.Module):
    """PyG's layer, called as ours is, with the weights of ours."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        import torch_geometric.nn as pyg

        self.layer: Any

        if isinstance(ours, GCNConv):
            width_out, width_in = ours.weight.shape
            self.layer = pyg.GCNConv(width_in, width_out, normalize=False)
            pairs: list[tuple[Any, Tensor]] = [(self.layer.lin.weight, ours.weight)]
        elif isinstance(ours, GATConv):
            width_in, width = ours.weight.shape[1], ours.target.shape[1]
            self.layer = pyg.GATConv(width_in, width, ours.heads, add_self_loops=False)
            pairs = [
                (self.layer.lin.weight, ours.weight),
                (self.layer.att_dst, ours.target[None]),
                (self.layer.att_src, ours.source[None]),
            ]
        else:
            linear = ours.linear
            weights = linear.weight.chunk(HOPS + 1, 1)
            width_out, width_in = weights[0].shape
            self.layer = pyg.TAGConv(width_in, width_out, HOPS, normalize=False)
            pairs = [(lin.weight, w) for lin, w in zip(self.layer.lins, weights)]
            ours = linear
        with torch.no_grad():
            for mine, theirs in [*pairs, (self.layer.bias, ours.bias)]:
                mine.copy_(theirs)

    def forward(self, graph: tuple[Tensor, ...], x: Tensor) -> Tensor:
        return self.layer(x, *graph)


Pool = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """The network of a `Shape`; `seed` draws the same weights for every contender."""

    def __init__(
        self, who: str, model: str, shape: Shape, width_in: int, classes: int, seed: int
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shape, width = shape, shape.width
        if shape.plain:
            layers = [
                our_layer(model, width_in, width, HEADS),
                our_layer(model, width, classes, 1),
            ]
        else:
            self.encoder, self.head = nn.Linear(width_in, width), nn.Linear(width, classes)
            layers = [our_layer(model, width, width, HEADS) for _ in range(shape.layers)]
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(shape.layers + 1))
        self.layers = nn.ModuleList(layers if who == OURS else map(PeerLayer, layers))

    def forward(self, graph: Any, x: Tensor | CSRTensor, pool: Pool | None = None) -> Tensor:
        """Logits of nodes, or of graphs where there is a `pool`."""

        def drop(x: Tensor) -> Tensor:
            return dropout(x, self.shape.dropout, self.training)

        if self.shape.plain:
            first, second = self.layers
            # Of words few are not zero: only those need to be dropped.
            words = x.map(drop).to_dense() if isinstance(x, CSRTensor) else drop(x)
            return second(graph, drop(first(graph, words).relu()))
        hidden = self.encoder(x)
        for layer, norm in zip(self.layers, self.norms):
            hidden = hidden + drop(layer(graph, norm(hidden)).relu())
        hidden = self.norms[-1](hidden)
        return self.head(hidden if pool is None else pool(hidden))


def mean_pool(who: str, graphs: Pattern, batch: Tensor) -> Pool:
    """The contender's own mean over the nodes of each graph; batch: the graph of each node."""
    if who == OURS:
        return lambda x: readout(graphs, x, "mean")
    from torch_geometric.nn import global_mean_pool

    return lambda x: global_mean_pool(x, batch, graphs.shape[0])
