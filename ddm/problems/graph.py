"""Graph Laplacians."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ddm.positions import positions_of
from ddm.problems.problem import Elements, Problem
from ddm.problems.singular import Singular, settle


def graph_laplacian(
    graph: Any,
    source: np.ndarray | None = None,
    *,
    coordinates: np.ndarray | None = None,
    singular: Singular = "ground",
) -> Problem:
    """`L = D - W` of a weighted undirected graph, singular: constants on each component are null.

    Args:
        graph: (n, n) SciPy sparse matrix W, symmetric, weights at least 0; its diagonal counts
            for nothing. NetworkX graphs: `networkx.to_scipy_sparse_array(graph)`.
        source: (n,) right-hand side; None draws normal numbers (seed 0) whose mean is zero on each
            component.
        coordinates: (n, d) positions of nodes, if there are any.
        singular: "ground" fixes one node of each component to zero; "nullspace" keeps L with its
            null space and takes that out of `source`; "refuse" raises.

    The element matrices are those of the edges, (m, 2, 2). Equivalent to
    `scipy.sparse.csgraph.laplacian`, which does not ground or check.

    Raises:
        TypeError: not a SciPy sparse matrix, or complex weights.
        ValueError: not square or symmetric, weights that are negative or not finite, nodes without
            edges, arrays that do not fit.
    """
    W = _checked(graph)
    n = W.shape[0]
    degree = np.asarray(W.sum(axis=1)).ravel()
    isolated = np.flatnonzero(degree == 0)
    if len(isolated):
        raise ValueError(
            f"graph: {len(isolated)} nodes have no edges, the first is {isolated[0]}; their values "
            "are not determined: drop them"
        )
    _, part = connected_components(W, directed=False)
    if source is None:
        b = np.random.default_rng(0).standard_normal(n)
        b -= (np.bincount(part, weights=b) / np.bincount(part))[part]
    else:
        b = vector(source, n, "source")
    A = sp.csr_array(sp.diags_array(degree) - W)
    A.sort_indices()
    upper = sp.coo_array(sp.triu(W, k=1))
    edges = np.stack([upper.row, upper.col], axis=1).astype(np.int64)
    matrices = upper.data[:, None, None] * np.array([[1.0, -1.0], [-1.0, 1.0]])
    problem = Problem(
        A,
        b,
        None,
        np.arange(n),
        positions=positions_of(coordinates, n),
        near_nullspace=np.ones((n, 1)),  # `settle` finds those of each component
        kind="spd",
        elements=Elements(edges, matrices),
    )
    return settle(problem, singular)


def _checked(graph: Any) -> sp.csr_array:
    if not sp.issparse(graph):
        raise TypeError(
            f"graph: expected a SciPy sparse matrix of weights, got {type(graph).__name__}"
        )
    if np.issubdtype(graph.dtype, np.complexfloating):
        raise TypeError(f"graph: expected real weights, got {graph.dtype}")
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1] or graph.shape[0] == 0:
        raise ValueError(f"graph: expected a square matrix of weights, got shape {graph.shape}")
    W = sp.csr_array(graph, dtype=np.float64)
    W.sum_duplicates()
    if not np.isfinite(W.data).all():
        raise ValueError("graph: some weights are not finite")
    if (W.data < 0).any():
        raise ValueError(f"graph: expected weights of at least 0, got {W.data.min():g}")
    W = sp.csr_array(W - sp.diags_array(W.diagonal()))
    W.eliminate_zeros()
    difference = abs(W - W.T)
    if difference.nnz and difference.max() > 1e-12 * W.max():
        raise ValueError("graph: it is not symmetric; an undirected graph is, e.g. (W + W.T) / 2")
    return W


def check_numeric(name: str, array: np.ndarray) -> None:
    """Raise TypeError unless the entries are real or complex numbers."""
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")


def vector(values: Any, n: int, name: str) -> np.ndarray:
    """A right-hand side (n,) in float64 or complex128.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, or values that are not finite.
    """
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape {(n,)}, got {array.shape}")
    check_numeric(name, array)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: some values are not finite")
    return array.astype(np.result_type(array.dtype, np.float64))
