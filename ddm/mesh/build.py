"""Checked meshes of triangles and tetrahedra, with named boundaries and subdomains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skfem import ElementTetP1, ElementTriP1, MeshTet, MeshTri

FLAT = 1e-12  # area or volume of an element against the power of its longest edge
CELLS = {2: "triangles", 3: "tetrahedra"}


def build_mesh(
    points: np.ndarray,
    cells: np.ndarray,
    boundaries: Mapping[str, np.ndarray] | None = None,
    subdomains: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """Make a checked mesh; nodes that no element has go.

    Args:
        points: (n, 2) or (n, 3) coordinates.
        cells: (m, 3) triangles of plane points, or (m, 4) tetrahedra. The order of corners does
            not matter.
        boundaries: corners (f, 2) or (f, 3) of the edges or faces that have a name.
        subdomains: numbers of the elements that have a name.

    Returns:
        scikit-fem's MeshTri or MeshTet.

    Raises:
        ValueError: no elements, a flat one, an index out of range, coordinates that are not
            finite, more than one connected component, elements that lie on one side of the facet
            that they share (one of them is inverted), a facet of more than two elements, or a
            named boundary that is not made of facets.
    """
    points, cells = np.asarray(points, dtype=float), np.asarray(cells)
    dim = points.shape[1] if points.ndim == 2 else 0
    if dim not in CELLS or cells.ndim != 2 or cells.shape[1] != dim + 1:
        raise ValueError(
            "mesh: expected points (n, 2) with triangles (m, 3), or points (n, 3) with tetrahedra "
            f"(m, 4); got {points.shape} with {cells.shape}"
        )
    used, cells = _used(points, cells, CELLS[dim])
    _check_connected(cells, len(used))
    kind = MeshTri if dim == 2 else MeshTet
    mesh = kind(np.ascontiguousarray(points[used].T), np.ascontiguousarray(cells.T))
    _check_shapes(mesh, CELLS[dim])
    local = np.full(len(points), -1)
    local[used] = np.arange(len(used))
    named: dict[str, Any] = {
        name: _facets(mesh, local[np.asarray(corners, dtype=np.int64)], name)
        for name, corners in (boundaries or {}).items()
    }
    if named:
        mesh = mesh.with_boundaries(named)
    if subdomains:
        mesh = mesh.with_subdomains({name: np.asarray(k) for name, k in subdomains.items()})
    return mesh


def check_mesh(mesh: Any, *, pieces: bool = False) -> None:
    """Refuse a mesh of scikit-fem's that `build_mesh` would not have made: one of your own, say.

    Problems check their meshes with this, and allow pieces: inverted elements give a matrix too, a
    wrong one. It takes a fraction of the time of assembling Poisson's equation.

    Args:
        mesh: MeshTri or MeshTet.
        pieces: whether it may have more than one connected component.

    Raises:
        TypeError: neither a MeshTri nor a MeshTet.
        ValueError: coordinates that are not finite, nodes without elements, pieces, flat or
            inverted elements, facets of more than two elements.
    """
    if not isinstance(mesh, MeshTri | MeshTet):
        raise TypeError(f"mesh: expected a MeshTri or a MeshTet, got {type(mesh).__name__}")
    if mesh.elem not in (ElementTriP1, ElementTetP1):  # curved, or torn between elements
        raise TypeError(
            f"mesh: expected a MeshTri or a MeshTet with one node a vertex, got "
            f"{type(mesh).__name__}"
        )
    name = CELLS[mesh.dim()]
    used, cells = _used(mesh.p.T, mesh.t.T, name)
    if len(used) < mesh.p.shape[1]:
        lost = np.setdiff1d(np.arange(mesh.p.shape[1]), used)
        raise ValueError(
            f"mesh: {len(lost)} nodes belong to no element, the first is {lost[0]}; build_mesh "
            "drops them"
        )
    if not pieces:
        _check_connected(cells, len(used))
    _check_shapes(mesh, name)


def _used(points: np.ndarray, cells: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Nodes that elements have, and the elements by their numbers among these."""
    if len(cells) == 0:
        raise ValueError(f"mesh: it has no {name}")
    if cells.min() < 0 or cells.max() >= len(points):
        raise ValueError(
            f"mesh: {name} name nodes {cells.min()} to {cells.max()}, "
            f"but there are {len(points)} nodes"
        )
    if not np.isfinite(points).all():
        raise ValueError("mesh: some coordinates are not finite")
    present = np.bincount(cells.ravel(), minlength=len(points)) > 0
    if present.all():
        return np.arange(len(points)), cells
    return np.flatnonzero(present), (np.cumsum(present) - 1)[cells]


def _check_connected(cells: np.ndarray, n: int) -> None:
    edges = np.concatenate([cells[:, [k, k + 1]] for k in range(cells.shape[1] - 1)])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(n, n))
    n_parts, _ = connected_components(graph, directed=False)
    if n_parts > 1:
        raise ValueError(
            f"mesh: it has {n_parts} connected components, expected 1; solve them one at a time, "
            "or merge nodes that should coincide"
        )


def signed_sizes(mesh: Any) -> np.ndarray:
    """Areas or volumes of the elements, negative where corners run the other way round, (m,)."""
    return _sizes(mesh.p[:, mesh.t])


def _sizes(corners: np.ndarray) -> np.ndarray:
    """Signed area or volume by corners (d, d + 1, m)."""
    edges = corners[:, 1:] - corners[:, :1]
    if len(corners) == 2:
        return 0.5 * (edges[0, 0] * edges[1, 1] - edges[1, 0] * edges[0, 1])
    normal = np.cross(edges[:, 0], edges[:, 1], axis=0)
    return (normal * edges[:, 2]).sum(axis=0) / 6


def _check_shapes(mesh: Any, name: str) -> None:
    corners = mesh.p[:, mesh.t]
    longest = (
        np.max(
            [
                ((corners - corners[:, [k]]) ** 2).sum(axis=0).max(axis=0)
                for k in range(len(mesh.t) - 1)
            ],
            axis=0,
        )
        ** 0.5
    )
    flat = np.flatnonzero(abs(_sizes(corners)) <= FLAT * longest ** len(corners))
    if len(flat):
        what = "area" if len(corners) == 2 else "volume"
        raise ValueError(f"mesh: {len(flat)} {name} have no {what}, the first is {flat[0]}")
    count = np.bincount(mesh.t2f.ravel())
    if (count > 2).any():
        corner = mesh.facets[:, np.flatnonzero(count > 2)[0]]
        raise ValueError(
            f"mesh: {(count > 2).sum()} facets have more than two {name}, the first has the nodes "
            f"{corner.tolist()}; elements that occur twice, or overlap"
        )
    inside = np.flatnonzero(mesh.f2t[1] >= 0)
    shared, pair = mesh.facets[:, inside], mesh.f2t[:, inside]
    sides = [
        _sizes(mesh.p[:, np.vstack([shared, mesh.t[:, side].sum(axis=0) - shared.sum(axis=0)])])
        for side in pair
    ]
    folded = sides[0] * sides[1] > 0
    if folded.any():
        worst = int(np.bincount(pair[:, folded].ravel()).argmax())
        raise ValueError(
            f"mesh: {folded.sum()} pairs of {name} lie on one side of the facet that they share: "
            f"some are inverted, like {worst}; move their nodes back, or mesh anew"
        )


def _facets(mesh: Any, corners: np.ndarray, name: str) -> np.ndarray:
    """Numbers of the facets with given corners (f, d), sorted."""
    n = mesh.nvertices
    rows = np.sort(np.concatenate([mesh.facets.T, corners]).astype(np.int64), axis=1)
    key = rows[:, 0]
    for column in rows.T[1:]:  # a number for each different row, without numbers of size n^3
        key = np.unique(key * (n + 1) + column, return_inverse=True)[1]
    place = np.full(key.max() + 1, -1)
    place[key[: mesh.nfacets]] = np.arange(mesh.nfacets)
    found = place[key[mesh.nfacets :]]
    if (found < 0).any() or (corners < 0).any():
        raise ValueError(
            f"mesh: boundary {name!r} has {np.count_nonzero(found < 0)} pieces that are not facets "
            "of its elements"
        )
    return np.unique(found)
