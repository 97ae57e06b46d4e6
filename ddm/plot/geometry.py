"""What of a mesh is drawn: its triangles in the plane, its surface or a cut through it in space.

All of it is straight pieces of the elements, so that every corner lies on a segment between two
nodes: values there are a product with a sparse matrix of weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from ddm.problems import Problem

# An element with nodes at its corners, then at the midpoints of its edges, cut into linear ones.
EDGES = {2: ((0, 1), (1, 2), (0, 2)), 3: ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))}
PARTS = {
    2: ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
    3: (
        (0, 4, 5, 6), (4, 1, 7, 8), (5, 7, 2, 9), (6, 8, 9, 3),
        (4, 5, 6, 8), (4, 5, 7, 8), (5, 6, 8, 9), (5, 7, 8, 9),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """Triangles to be drawn.

    Attributes:
        points: (p, d) corners.
        triangles: (k, 3) their numbers.
        element: (k,) the element that each triangle is a piece of.
        weights: (p, nodes) CSR: what values at nodes are at the corners.
    """

    points: np.ndarray
    triangles: np.ndarray
    element: np.ndarray
    weights: sp.csr_array


def n_nodes(problem: Problem) -> int:
    """Number of nodes, boundary included: vertices, and midpoints of edges for P2."""
    if problem.boundary_values is None:
        return 1 + int(problem.interior.max())
    return len(problem.boundary_values) // problem.block_size


def _edges(mesh: Any) -> np.ndarray:
    return mesh.facets if mesh.dim() == 2 else mesh.edges


def element_nodes(problem: Problem) -> np.ndarray:
    """Nodes of each element, (m, k): its corners, then the midpoints of its edges for P2.

    Raises:
        ValueError: nodes that are neither the vertices nor these with the midpoints of edges.
    """
    mesh, count = problem.mesh, n_nodes(problem)
    corners, n = mesh.t.T.astype(np.int64), mesh.nvertices
    if count <= n:
        return corners
    edges = np.sort(_edges(mesh).astype(np.int64), axis=0)
    if count != n + edges.shape[1]:
        raise ValueError(
            f"problem: expected {n} nodes (linear elements) or {n + edges.shape[1]} (quadratic "
            f"ones), got {count}"
        )
    keys = edges[0] * n + edges[1]
    order = np.argsort(keys)
    ends = np.sort(corners[:, np.array(EDGES[mesh.dim()])], axis=2)  # (m, edges, 2)
    middle = n + order[np.searchsorted(keys[order], ends[..., 0] * n + ends[..., 1])]
    return np.concatenate([corners, middle], axis=1)


def linear_elements(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes (nodes, d), linear elements (m, d + 1) between them, and the mesh's element of each.

    Raises:
        ValueError: see `element_nodes`.
    """
    mesh, nodes = problem.mesh, element_nodes(problem)
    dim = mesh.dim()
    if nodes.shape[1] == dim + 1:
        return mesh.p.T, nodes, np.arange(len(nodes))
    parts = np.array(PARTS[dim])
    points = np.concatenate([mesh.p.T, mesh.p[:, _edges(mesh)].mean(axis=1).T])
    element = np.repeat(np.arange(len(nodes)), len(parts))
    return points, nodes[:, parts].reshape(-1, dim + 1), element


def outer_faces(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces (k, 3) that one of the tetrahedra (m, 4) has, and that tetrahedron."""
    faces = np.concatenate([np.delete(cells, corner, axis=1) for corner in range(4)])
    owner = np.tile(np.arange(len(cells)), 4)
    ordered = np.sort(faces, axis=1)
    _, first, count = np.unique(ordered, axis=0, return_index=True, return_counts=True)
    once = np.sort(first[count == 1])
    return faces[once], owner[once]


def sliced(cells: np.ndarray, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the plane `away = 0` cuts tetrahedra: triangles of (a, b) node pairs, (k, 3, 2).

    Args:
        cells: (m, 4).
        away: (nodes,) signed distance from the plane.

    Returns:
        Pairs of the two ends of the edge that each corner lies on, and the number of the cell.
    """
    inside = away[cells] > 0
    count = inside.sum(axis=1)
    ordered = np.take_along_axis(cells, np.argsort(inside, axis=1, kind="stable"), axis=1)
    found = []
    for number, corners in (
        (1, [((3, 0), (3, 1), (3, 2))]),
        (3, [((0, 1), (0, 2), (0, 3))]),
        (2, [((0, 2), (0, 3), (1, 3)), ((0, 2), (1, 3), (1, 2))]),
    ):
        chosen = np.flatnonzero(count == number)
        found += [(ordered[chosen][:, np.array(triangle)], chosen) for triangle in corners]
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def clipped(triangles: np.ndarray, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of triangles (k, 3) lies where `away > 0`, as node pairs, and the triangle of each."""
    inside = away[triangles] > 0
    count = inside.sum(axis=1)
    ordered = np.take_along_axis(triangles, np.argsort(inside, axis=1, kind="stable"), axis=1)
    found = []
    for number, pieces in (
        (3, [((0, 0), (1, 1), (2, 2))]),
        (1, [((2, 2), (2, 0), (2, 1))]),
        (2, [((1, 1), (2, 2), (2, 0)), ((1, 1), (2, 0), (1, 0))]),
    ):
        chosen = np.flatnonzero(count == number)
        found += [(ordered[chosen][:, np.array(piece)], chosen) for piece in pieces]
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def surface_of(
    problem: Problem,
    *,
    cut: tuple[np.ndarray, float] | None = None,
    elements: np.ndarray | None = None,
) -> Surface:
    """All triangles of a plane mesh, or the surface of a mesh in space.

    Args:
        problem: with a mesh.
        cut: (normal, offset) in space: what lies where `normal . x > offset` is kept, with the cut.
        elements: mask (m,) of those that are drawn; None: all.
    """
    points, cells, element = linear_elements(problem)
    if elements is not None:
        chosen = elements[element]
        cells, element = cells[chosen], element[chosen]
    if points.shape[1] == 2:
        identity = sp.csr_array(sp.eye_array(len(points)))
        return Surface(points, cells, element, identity)
    faces, cell = outer_faces(cells)
    if cut is None:
        pairs, owner = np.repeat(faces[:, :, None], 2, axis=2), cell
        away = np.zeros(len(points))
    else:
        away = points @ cut[0] - cut[1]
        outer, triangle = clipped(faces, away)
        inner, cut_cell = sliced(cells, away)
        pairs = np.concatenate([outer, inner])
        owner = np.concatenate([cell[triangle], cut_cell])
    return _from_pairs(points, pairs, element[owner], away)


def _from_pairs(
    points: np.ndarray, pairs: np.ndarray, element: np.ndarray, away: np.ndarray
) -> Surface:
    """Triangles whose corners lie where `away` is zero on edges (a, b), or at a node (a, a)."""
    ends, corner = np.unique(np.sort(pairs.reshape(-1, 2), axis=1), axis=0, return_inverse=True)
    a, b = ends.T
    gap = away[a] - away[b]
    share = np.where(a == b, 0.0, away[a] / np.where(gap == 0, 1, gap))  # of b
    row = np.tile(np.arange(len(ends)), 2)
    data, col = np.concatenate([1 - share, share]), np.concatenate([a, b])
    weights = sp.csr_array(sp.coo_array((data, (row, col)), shape=(len(ends), len(points))))
    return Surface(weights @ points, corner.reshape(-1, 3), element, weights)
