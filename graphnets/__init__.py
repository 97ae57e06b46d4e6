"""Graph networks on `sparsetorch`: two-level graphs and MG-GNN."""

from graphnets.mggnn import MGGNN
from graphnets.two_level import TwoLevelGraph

__all__ = ["MGGNN", "TwoLevelGraph"]
