"""Layers with sparse matrices in them: plain `nn.Module`s, for any optimizer and trainer."""

from sparsetorch.nn.attention import GATConv
from sparsetorch.nn.convolution import GCNConv, TAGConv, gcn_normalize
from sparsetorch.nn.linear import SparseLinear

__all__ = ["GATConv", "GCNConv", "SparseLinear", "TAGConv", "gcn_normalize"]
