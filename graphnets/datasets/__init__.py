"""Readers of public benchmark graphs, from files that the user has.

No library is needed to read them, and nothing is downloaded. All graphs are undirected: entry
(i, j) of a matrix is an edge from j to i, and its mirror is there too.
"""

from graphnets.datasets.folds import Fold, stratified_fold
from graphnets.datasets.heterophilous import load_heterophilous
from graphnets.datasets.node_graph import NodeGraph
from graphnets.datasets.planetoid import load_planetoid
from graphnets.datasets.tu import load_tu

__all__ = [
    "Fold",
    "NodeGraph",
    "load_heterophilous",
    "load_planetoid",
    "load_tu",
    "stratified_fold",
]
