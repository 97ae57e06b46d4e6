"""MG-GNN's learned Schwarz method as published: parametrisation, features, losses, data, training.

Taghibakhshi et al., ICML 2023 (arXiv:2301.11378), with the settings of the authors' code; the
networks are in `graphnets.published`. `ddm.learned` is this project's own method.

    grids -> inputs -> setup                a grid made ready, what a network sees, its operator
    losses, lightning                       training
    counts                                  iterations as the paper counts them
"""

from ddm.published.grids import Grid, GridDataset, GridRecipe
from ddm.published.inputs import PublishedGraph, published_graph
from ddm.published.setup import PublishedSetup

__all__ = [
    "Grid",
    "GridDataset",
    "GridRecipe",
    "PublishedGraph",
    "PublishedSetup",
    "published_graph",
]
