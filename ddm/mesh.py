"""Unstructured triangle meshes: random smooth domains by gmsh, mesh files, and checks on both.

Meshes are scikit-fem's `MeshTri`: `p` is (2, n_nodes), `t` is (3, n_triangles).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull
from skfem import MeshTri

GMSH_LIBRARIES = (
    "apt-get update && apt-get install -y libglu1-mesa libgl1 libxcursor1 libxft2 libxinerama1"
    " libgomp1"
)


class GmshUnavailableError(ImportError):
    """gmsh cannot be loaded; the message gives the line that installs what is missing."""


def load_gmsh() -> ModuleType:
    """Import gmsh, or say how to get it.

    Raises:
        GmshUnavailableError: the wheel is absent, or the system libraries that it links are.
    """
    try:
        return importlib.import_module("gmsh")
    except ModuleNotFoundError as error:
        raise GmshUnavailableError(
            "gmsh is not installed: pip install 'sparsetorch[ddm]'"
        ) from error
    except OSError as error:
        raise GmshUnavailableError(
            f"gmsh is installed but cannot load ({error}); on Debian or Ubuntu: {GMSH_LIBRARIES}"
        ) from error


def random_outline(seed: int) -> np.ndarray:
    """Control points of a random smooth convex domain in the unit square, (k, 2), counterclockwise.

    The convex hull of 3 to 45 uniform random points, as in Taghibakhshi et al. (2023), section 5;
    `mesh_domain(..., smooth=True)` rounds it with a closed B-spline. Hulls with less than a tenth
    of the square's area are drawn again: their triangles would be slivers.
    """
    rng = np.random.default_rng(seed)
    while True:
        points = rng.random((int(rng.integers(3, 46)), 2))
        hull = ConvexHull(points)
        if hull.volume > 0.1:
            return points[hull.vertices]


def polygon_area(outline: np.ndarray) -> float:
    """Signed area of the polygon with the given corners, (k, 2); positive if counterclockwise."""
    x, y = outline.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def mesh_domain(
    outline: np.ndarray,
    *,
    n_nodes: int,
    holes: Sequence[np.ndarray] = (),
    smooth: bool = False,
    seed: int = 0,
) -> MeshTri:
    """Triangulate the region inside `outline` and outside `holes` with about `n_nodes` nodes.

    Args:
        outline: (k, 2) corners, or control points of a closed cubic B-spline if `smooth`.
        n_nodes: the wanted number of nodes, boundary included; met to within some 10 %.
        holes: outlines of holes, each (k, 2), never smoothed.
        smooth: round the outline.
        seed: gmsh's random seed.

    Raises:
        ValueError: fewer than 3 corners, a region without area, or `n_nodes` below 4.
        GmshUnavailableError: gmsh cannot be loaded.
    """
    loops = [np.asarray(loop, dtype=float) for loop in (outline, *holes)]
    for loop in loops:
        if loop.ndim != 2 or loop.shape[1] != 2 or len(loop) < 3:
            raise ValueError(f"outline: expected (k, 2) with k >= 3 corners, got {loop.shape}")
    if n_nodes < 4:
        raise ValueError(f"n_nodes: expected at least 4, got {n_nodes}")
    area = abs(polygon_area(loops[0])) - sum(abs(polygon_area(loop)) for loop in loops[1:])
    if not area > 0:
        raise ValueError(f"outline: the region inside it and outside the holes has area {area:g}")
    # A mesh of equilateral triangles of side h has one node per sqrt(3)/2 h^2 of area. The B-spline
    # cuts corners, by a share that depends on the shape: a second pass corrects the size.
    size = math.sqrt(area / (n_nodes * math.sqrt(3) / 2))
    mesh = _triangulate(loops, size, smooth, seed)
    if smooth:
        size *= math.sqrt(mesh.nvertices / n_nodes)
        mesh = _triangulate(loops, size, smooth, seed)
    return mesh


def _triangulate(loops: list[np.ndarray], size: float, smooth: bool, seed: int) -> MeshTri:
    gmsh = load_gmsh()
    gmsh.initialize(interruptible=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.option.setNumber("Mesh.RandomSeed", seed % 2**31)
        gmsh.option.setNumber("Mesh.MeshSizeMin", size)
        gmsh.option.setNumber("Mesh.MeshSizeMax", size)
        geo = gmsh.model.geo
        curves = []
        for index, loop in enumerate(loops):
            points = [geo.addPoint(x, y, 0.0, size) for x, y in loop]
            if smooth and index == 0:
                lines = [geo.addBSpline([*points, points[0]])]
            else:
                lines = [geo.addLine(a, b) for a, b in zip(points, points[1:] + points[:1])]
            curves.append(geo.addCurveLoop(lines))
        geo.addPlaneSurface(curves)
        geo.synchronize()
        gmsh.model.mesh.generate(2)
        tags, xyz, _ = gmsh.model.mesh.getNodes()
        _, elements = gmsh.model.mesh.getElementsByType(2)
    finally:
        gmsh.finalize()
    position = np.zeros(int(tags.max()) + 1, dtype=np.int64)
    position[tags.astype(np.int64)] = np.arange(len(tags))
    triangles = position[elements.astype(np.int64)].reshape(-1, 3)
    return build_mesh(xyz.reshape(-1, 3)[:, :2], triangles)


def random_mesh(seed: int, n_nodes: int) -> MeshTri:
    """A mesh of about `n_nodes` nodes on a random smooth domain: the training distribution."""
    return mesh_domain(random_outline(seed), n_nodes=n_nodes, smooth=True, seed=seed)


def distort(mesh: MeshTri, jitter: float, stretch: float, seed: int) -> MeshTri:
    """Move interior nodes at random, then stretch the plane in a random direction.

    Args:
        mesh: triangles.
        jitter: largest move, as a share of the node's shortest edge. Below 0.4 no good triangle
            turns over; above about 0.3 some angles are obtuse and some couplings positive.
        stretch: factor by which lengths grow in the random direction.
        seed: of the random numbers.

    Raises:
        ValueError: a triangle turned over.
    """
    rng = np.random.default_rng(seed)
    a, b = np.asarray(mesh.facets)
    length = np.linalg.norm(mesh.p[:, a] - mesh.p[:, b], axis=0)
    shortest = np.full(mesh.nvertices, np.inf)
    np.minimum.at(shortest, a, length)
    np.minimum.at(shortest, b, length)
    inside = mesh.interior_nodes()
    angle = rng.uniform(0, 2 * np.pi, len(inside))
    move = jitter * shortest[inside] * np.sqrt(rng.uniform(0, 1, len(inside)))
    p = mesh.p.copy()
    p[:, inside] += move * np.stack([np.cos(angle), np.sin(angle)])
    direction = rng.uniform(0, np.pi)
    axis = np.array([np.cos(direction), np.sin(direction)])
    p += (stretch - 1) * np.outer(axis, axis @ p)
    moved = MeshTri(p, mesh.t)
    if (_areas(moved) * _areas(mesh) <= 0).any():
        raise ValueError(f"jitter: {jitter:g} of the shortest edges turned a triangle over")
    return moved


def _areas(mesh: MeshTri) -> np.ndarray:
    """Signed areas of the triangles, (m,)."""
    p, q, r = (mesh.p[:, corner] for corner in mesh.t)
    u, v = q - p, r - p
    return 0.5 * (u[0] * v[1] - u[1] * v[0])


def build_mesh(points: np.ndarray, triangles: np.ndarray) -> MeshTri:
    """Make a checked mesh from (n, 2) points and (m, 3) triangles; nodes without a triangle go.

    Raises:
        ValueError: no triangles, an index out of range, or more than one connected component.
    """
    if len(triangles) == 0:
        raise ValueError("mesh: it has no triangles")
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise ValueError(
            f"mesh: triangles name nodes {triangles.min()} to {triangles.max()}, "
            f"but there are {len(points)} nodes"
        )
    if not np.isfinite(points).all():
        raise ValueError("mesh: some coordinates are not finite")
    used, local = np.unique(triangles, return_inverse=True)
    triangles = local.reshape(-1, 3)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(used), len(used)))
    n_parts, _ = connected_components(graph, directed=False)
    if n_parts > 1:
        raise ValueError(
            f"mesh: it has {n_parts} connected components, expected 1; solve them one at a time, "
            "or merge nodes that should coincide"
        )
    return MeshTri(np.ascontiguousarray(points[used].T), np.ascontiguousarray(triangles.T))


def load_mesh(path: str | Path) -> MeshTri:
    """Read the triangles of a mesh file in any format that meshio reads (.msh, .vtu, .obj, ...).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a mesh file, no triangles, or a mesh of several components.
    """
    import meshio

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: no mesh file {path}")
    try:
        mesh = meshio.read(path)
    # meshio ends the process on some unreadable files, and its parsers raise whatever they meet.
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"path: {path} is not a mesh file that meshio can read ({error})"
        ) from error
    triangles = mesh.cells_dict.get("triangle")
    if triangles is None:
        found = ", ".join(sorted(mesh.cells_dict)) or "none"
        raise ValueError(f"path: {path} has no triangles; its cell types: {found}")
    return build_mesh(np.asarray(mesh.points)[:, :2], np.asarray(triangles, dtype=np.int64))


def save_mesh(mesh: MeshTri, path: str | Path) -> None:
    """Write a mesh to a file whose suffix names the format; gmsh's .msh is written as text."""
    import meshio

    options = {"file_format": "gmsh22", "binary": False} if Path(path).suffix == ".msh" else {}
    points = np.column_stack([mesh.p.T, np.zeros(mesh.nvertices)])
    tags: Any = [np.ones(mesh.nelements, dtype=np.int32)]
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags} if options else {}
    meshio.Mesh(points, [("triangle", mesh.t.T)], cell_data=data).write(path, **options)
