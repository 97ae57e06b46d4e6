"""Triangulations of plane regions: polygons with holes, and random smooth convex domains.

Meshes are scikit-fem's `MeshTri`: `p` is (2, n_nodes), `t` is (3, n_triangles).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial import ConvexHull
from skfem import MeshTri

from ddm.mesh.gmsh_library import generate, read_model, session
from ddm.outline import check_outlines, closed_spline, polygon_area


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
    with session(seed) as gmsh:
        geo = gmsh.model.geo
        curves, names = [], {}
        for index, loop in enumerate(loops):
            points = [geo.addPoint(x, y, 0.0, size) for x, y in loop]
            if smooth and index == 0:
                lines = [geo.addBSpline([*points, points[0]])]
            else:
                lines = [geo.addLine(a, b) for a, b in zip(points, points[1:] + points[:1])]
            curves.append(geo.addCurveLoop(lines))
            names[f"hole {index - 1}" if index else "outline"] = lines
        geo.addPlaneSurface(curves)
        geo.synchronize()
        generate(gmsh, 2, size)
        return read_model(gmsh, 2, names)


def random_mesh(seed: int, n_nodes: int) -> MeshTri:
    """A mesh of about `n_nodes` nodes on a random smooth domain: the training distribution."""
    return mesh_domain(random_outline(seed), n_nodes=n_nodes, smooth=True, seed=seed)
