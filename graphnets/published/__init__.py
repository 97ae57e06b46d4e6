"""MG-GNN as published, and the Graph U-Net that it is compared with.

Taghibakhshi, Nytko, Zaman, MacLachlan, Olson, West, "MG-GNN: Multigrid Graph Neural Networks for
Learning Multilevel Domain Decomposition Methods", ICML 2023 (arXiv:2301.11378), with the sizes and
settings of the authors' code. `graphnets.MGGNN` is this project's own network.
"""

from graphnets.published.graph_unet import GraphUNet, graph_unet
from graphnets.published.mggnn import mggnn
from graphnets.published.network import TwoLevelNet

__all__ = ["GraphUNet", "TwoLevelNet", "graph_unet", "mggnn"]
