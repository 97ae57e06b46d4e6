"""Problems without a mesh: dots and lines, where their coordinates say, or their spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from matplotlib.collections import LineCollection
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from scipy.sparse.csgraph import connected_components

from ddm.pieces import node_graph
from ddm.problems import Problem

MOST_EDGES = 30_000  # more lines would hide the dots, and take long


def layout(problem: Problem) -> np.ndarray:
    """Places of the nodes, (nodes, 2) or (nodes, 3): their coordinates, or a spectral layout.

    The latter takes the two eigenvectors of the normalized graph Laplacian of A that follow the
    constant one: nodes that are coupled lie near one another. Hall (1970), Management Science 17.

    Raises:
        ValueError: coordinates that are neither (n, 2) nor (n, 3); none, and a graph in pieces, or
            with fewer than 3 nodes, which has no such layout.
    """
    if problem.positions is not None:
        places = problem.positions[:: problem.block_size]
        if places.shape[1] not in (2, 3):
            raise ValueError(f"problem: expected coordinates (n, 2) or (n, 3), got {places.shape}")
        return places
    graph = node_graph(problem.A, problem.block_size)
    n_parts, _ = connected_components(graph, directed=False)
    if n_parts > 1 or graph.shape[0] < 3:
        raise ValueError(
            f"problem: it has no coordinates, and its graph of {graph.shape[0]} nodes in {n_parts} "
            "pieces has no spectral layout; give coordinates= when you make it"
        )
    scale = sp.diags_array(1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    similar = sp.csr_array(scale @ graph @ scale)
    if graph.shape[0] < 200:
        vectors = np.linalg.eigh(similar.toarray())[1][:, ::-1]
    else:
        start = np.random.default_rng(0).standard_normal(graph.shape[0])
        shifted = similar + sp.eye_array(graph.shape[0])  # so that large ones lead
        values, vectors = sp.linalg.eigsh(shifted, k=3, which="LA", v0=start, tol=1e-4)
        vectors = vectors[:, np.argsort(-values)]
    places = scale @ vectors[:, 1:3]
    return places / abs(places).max(axis=0)


def draw_edges(ax: Any, problem: Problem, places: np.ndarray) -> None:
    """Faint lines for the couplings of A, where there are few enough to see something."""
    graph = sp.coo_array(sp.triu(node_graph(problem.A, problem.block_size), k=1))
    if graph.nnz > MOST_EDGES:
        return
    lines = list(places[np.stack([graph.row, graph.col], axis=1)])
    kind = LineCollection if places.shape[1] == 2 else Line3DCollection
    ax.add_collection(kind(lines, colors="#bbbbbb", linewidths=0.5, zorder=0))


def draw_dots(ax: Any, places: np.ndarray, **options: Any) -> Any:
    """A dot at each place, the smaller the more there are."""
    size = float(np.clip(4000 / max(1, len(places)), 3, 60))
    return ax.scatter(*places.T, s=size, linewidths=0, **options)
