"""Unstructured triangle meshes: random smooth domains by gmsh, mesh files, and checks on both.

Meshes are scikit-fem's `MeshTri`: `p` is (2, n_nodes), `t` is (3, n_triangles).
"""

from __future__ import annotations

import contextlib
import importlib
import io
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

from ddm.extras import extra
from ddm.outline import check_outlines, closed_spline, polygon_area

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
        n_nodes: the wanted number of nodes, boundary included; met to within some 10 % if most of
            them lie inside.
        holes: outlines of holes, each (k, 2), never smoothed.
        smooth: round the outline.
        seed: gmsh's random seed.

    Raises:
        ValueError: fewer than 3 corners, a region without area, outlines that meet or lie where
            they should not, or `n_nodes` below 4.
        GmshUnavailableError: gmsh cannot be loaded.
    """
    loops = [np.asarray(loop, dtype=float) for loop in (outline, *holes)]
    for index, loop in enumerate(loops):
        name = f"holes[{index - 1}]" if index else "outline"
        if loop.ndim != 2 or loop.shape[1] != 2 or len(loop) < 3:
            raise ValueError(f"{name}: expected (k, 2) with k >= 3 corners, got {loop.shape}")
    if not n_nodes >= 4:  # NaN, too
        raise ValueError(f"n_nodes: expected at least 4, got {n_nodes}")
    area = abs(polygon_area(loops[0])) - sum(abs(polygon_area(loop)) for loop in loops[1:])
    if not area > 0:
        raise ValueError(f"outline: the region inside it and outside the holes has area {area:g}")
    check_outlines(closed_spline(loops[0]) if smooth else loops[0], loops[1:])
    # A mesh of equilateral triangles of side h has one node per sqrt(3)/2 h^2 of area. The boundary
    # adds nodes and a B-spline cuts corners, by shares that depend on the shape: a second pass
    # corrects the size.
    size = math.sqrt(area / (n_nodes * math.sqrt(3) / 2))
    size *= math.sqrt(_triangulate(loops, size, smooth, seed).nvertices / n_nodes)
    return _triangulate(loops, size, smooth, seed)


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
        ValueError: a jitter or stretch that is not a number of at least 0; a triangle turned over.
    """
    for name, value in (("jitter", jitter), ("stretch", stretch)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a number of at least 0, got {value}")
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
        ValueError: no triangles, one without area, an index out of range, coordinates that are not
            finite, or more than one connected component.
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
    mesh = MeshTri(np.ascontiguousarray(points[used].T), np.ascontiguousarray(triangles.T))
    flat = np.flatnonzero(
        abs(_areas(mesh)) <= 1e-14 * np.ptp(mesh.p, axis=1).prod() / len(triangles)
    )
    if len(flat):
        raise ValueError(f"mesh: {len(flat)} triangles have no area, the first is {flat[0]}")
    return mesh


def load_mesh(path: str | Path) -> MeshTri:
    """Read the triangles of a mesh file in any format that meshio reads (.msh, .vtu, .obj, ...).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a mesh file, no triangles, triangles that are not in a plane z = const, or
            whatever `build_mesh` refuses.
    """
    meshio = extra("meshio")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no mesh file {path}")
    said = io.StringIO()
    try:
        # It prints a line for each format that it tries in vain.
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            mesh = meshio.read(path)
    # It ends the process on some unreadable files, and its parsers raise whatever they meet.
    except (Exception, SystemExit) as error:
        detail = said.getvalue() if isinstance(error, SystemExit) else str(error)
        raise ValueError(
            f"path: {path} is not a mesh file that meshio can read ({' '.join(detail.split())})"
        ) from error
    triangles = mesh.cells_dict.get("triangle")
    if triangles is None:
        found = ", ".join(sorted(mesh.cells_dict)) or "none"
        raise ValueError(f"path: {path} has no triangles; its cell types: {found}")
    others = sorted(set(mesh.cells_dict) - {"triangle", "line", "vertex"})
    if others:
        raise ValueError(
            f"path: {path} also has {', '.join(others)} cells; expected triangles only"
        )
    points = np.asarray(mesh.points, dtype=float)
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(points):
        raise ValueError(
            f"path: {path} names vertices {triangles.min()} to {triangles.max()} of {len(points)}"
        )
    height = points[np.unique(triangles), 2:]
    if height.size and np.ptp(height) > 1e-9 * np.ptp(points[:, :2]):
        raise ValueError(f"path: {path} is not plane: z goes from {height.min()} to {height.max()}")
    return build_mesh(points[:, :2], np.asarray(triangles, dtype=np.int64))


def save_mesh(mesh: MeshTri, path: str | Path) -> None:
    """Write a mesh to a file whose suffix names the format; gmsh's .msh is written as text."""
    meshio = extra("meshio")
    options = {"file_format": "gmsh22", "binary": False} if Path(path).suffix == ".msh" else {}
    points = np.column_stack([mesh.p.T, np.zeros(mesh.nvertices)])
    tags: Any = [np.ones(mesh.nelements, dtype=np.int32)]
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags} if options else {}
    meshio.Mesh(points, [("triangle", mesh.t.T)], cell_data=data).write(path, **options)
