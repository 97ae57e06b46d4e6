"""Layers with sparse matrices in them: plain `nn.Module`s, for any optimizer and trainer."""

from sparsetorch.nn.attention import GATConv
from sparsetorch.nn.convolution import GCNConv, TAGConv, gcn_normalize
from sparsetorch.nn.linear import SparseLinear
from sparsetorch.nn.relational import RGCNConv, rgcn_normalize

__all__ = [
    "GATConv",
    "GCNConv",
    "RGCNConv",
    "SparseLinear",
    "TAGConv",
    "gcn_normalize",
    "rgcn_normalize",
]
