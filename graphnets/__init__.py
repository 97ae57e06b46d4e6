"""Graph networks on `sparsetorch`: two-level graphs, MG-GNN and Graph U-Net, batches of graphs."""

from graphnets.graph_batch import GraphBatch
from graphnets.mggnn import MGGNN
from graphnets.published.graph_unet import GraphUNet
from graphnets.readout import readout
from graphnets.two_level import TwoLevelGraph

__all__ = ["MGGNN", "GraphBatch", "GraphUNet", "TwoLevelGraph", "readout"]
