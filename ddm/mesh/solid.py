"""Tetrahedral meshes of convex hulls, of boxes with holes, and of random ones of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ddm.mesh.gmsh_library import generate, read_model, session

CLOSE = 0.1  # a mesh has the wanted number of nodes up to this share, where its shape allows
SIDES = {
    "left": (0, 0), "right": (0, 1),
    "front": (1, 0), "back": (1, 1),
    "bottom": (2, 0), "top": (2, 1),
}  # fmt: skip


def to_size(
    gmsh: Any,
    volume: float,
    n_nodes: int,
    again: Callable[[], object] | None = None,
    passes: int = 5,
) -> None:
    """Mesh the model with about `n_nodes` nodes: sizes corrected until it is met within 10 %.

    Args:
        gmsh: within a session, with a model that has no elements.
        volume: of the model.
        n_nodes: the wanted number of nodes.
        again: makes the model ready for the next pass; None deletes its elements.
        passes: the most that are made.

    Raises:
        ValueError: gmsh cannot mesh it, or the shape's own corners need far more nodes.
    """
    size = (1.2 * volume / n_nodes) ** (1 / 3)
    found = 0
    for done in range(passes):
        if done:
            (again or gmsh.model.mesh.clear)()
        try:
            generate(gmsh, 3, size)
        except Exception as error:  # gmsh raises nothing more special
            raise ValueError(
                f"gmsh cannot mesh the solid ({error}); try another n_nodes"
            ) from error
        found = len(gmsh.model.mesh.getNodes()[0])
        if abs(found / n_nodes - 1) <= CLOSE:
            return
        size *= (found / n_nodes) ** (1 / 3)
    if found > 1.5 * n_nodes:
        raise ValueError(
            f"n_nodes: the shape needs {found} nodes or more with elements of one size, got "
            f"{n_nodes}"
        )


def _check_count(n_nodes: int) -> None:
    if not n_nodes >= 8:  # NaN, too
        raise ValueError(f"n_nodes: expected at least 8, got {n_nodes}")


def mesh_hull(points: np.ndarray, *, n_nodes: int, seed: int = 0) -> Any:
    """Tetrahedra in the convex hull of (k, 3) points, about `n_nodes` nodes; faces "face 0", ...

    Raises:
        ValueError: points that span no volume, `n_nodes` below 8 or below what the shape needs.
        GmshUnavailableError: gmsh cannot be loaded.
    """
    _check_count(n_nodes)
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise ValueError(f"points: expected finite values of shape (k, 3), got {points.shape}")
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError) as error:
        raise ValueError("points: they span no volume") from error
    planes = np.unique(hull.equations.round(9), axis=0, return_inverse=True)[1].ravel()
    with session(seed) as gmsh:
        geo = gmsh.model.geo
        corner = {k: geo.addPoint(*points[k]) for k in hull.vertices}
        lines: dict[tuple[int, int], int] = {}
        names: dict[str, list[int]] = {}
        for plane, triangle in zip(planes, hull.simplices):
            loop = []
            for a, b in zip(triangle, np.roll(triangle, -1)):
                a, b = int(a), int(b)
                if (b, a) not in lines and (a, b) not in lines:
                    lines[a, b] = geo.addLine(corner[a], corner[b])
                loop.append(lines[a, b] if (a, b) in lines else -lines[b, a])
            surface = geo.addPlaneSurface([geo.addCurveLoop(loop)])
            names.setdefault(f"face {plane}", []).append(surface)
        geo.addVolume([geo.addSurfaceLoop([tag for tags in names.values() for tag in tags])])
        geo.synchronize()
        to_size(gmsh, hull.volume, n_nodes)
        return read_model(gmsh, 3, names)


def mesh_box(
    *,
    n_nodes: int,
    size: Sequence[float] = (1.0, 1.0, 1.0),
    holes: Sequence[tuple[float, float, float, float]] = (),
    seed: int = 0,
) -> Any:
    """Tetrahedra in a box `[0, a] x [0, b] x [0, c]` without balls, about `n_nodes` nodes.

    Args:
        n_nodes: the wanted number of nodes.
        size: (a, b, c).
        holes: (x, y, z, radius) of each ball.
        seed: gmsh's random seed.

    The boundaries are "left", "right" (x), "front", "back" (y), "bottom", "top" (z), and "holes".

    Raises:
        ValueError: sizes that are not positive, holes that leave nothing or cut the box in two,
            `n_nodes` below 8 or below what the shape needs.
        GmshUnavailableError: gmsh cannot be loaded.
    """
    _check_count(n_nodes)
    if len(size) != 3 or not all(0 < s < np.inf for s in size):
        raise ValueError(f"size: expected three positive lengths, got {size}")
    for k, hole in enumerate(holes):
        if len(hole) != 4 or not np.isfinite(hole).all() or hole[3] <= 0:
            raise ValueError(f"holes[{k}]: expected (x, y, z, radius > 0), got {hole}")
    with session(seed) as gmsh:
        occ = gmsh.model.occ
        body = [(3, occ.addBox(0, 0, 0, *size))]
        if holes:
            body, _ = occ.cut(body, [(3, occ.addSphere(*hole)) for hole in holes])
        occ.synchronize()
        if len(body) != 1:
            raise ValueError(f"holes: they leave {len(body)} pieces of the box, expected one")
        names: dict[str, list[int]] = {}
        for _, tag in gmsh.model.getEntities(2):
            names.setdefault(_side(gmsh, tag, size), []).append(tag)
        to_size(gmsh, occ.getMass(*body[0]), n_nodes)
        return read_model(gmsh, 3, names)


def _side(gmsh: Any, tag: int, size: Sequence[float]) -> str:
    box = np.array(gmsh.model.getBoundingBox(2, tag)).reshape(2, 3)
    for name, (axis, end) in SIDES.items():
        if np.allclose(box[:, axis], end * size[axis], atol=1e-5 * max(size)):
            return name
    return "holes"


def random_solid(seed: int, n_nodes: int) -> Any:
    """A mesh of a random solid: the convex hull of 6 to 24 points, or a box with 1 to 4 holes.

    Synthetic: hulls with less than a tenth of the cube's volume are drawn again.

    Raises:
        ValueError, GmshUnavailableError: see `mesh_hull`.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < 0.5:
        while True:
            points = rng.random((int(rng.integers(6, 25)), 3))
            if ConvexHull(points).volume > 0.1:
                return mesh_hull(points, n_nodes=n_nodes, seed=seed)
    size = rng.uniform(0.5, 1.0, 3)
    count = int(rng.integers(1, 5))
    radii = rng.uniform(0.1, 0.2, count)
    centres = [r + rng.random(3) * (size - 2 * r) for r in radii]
    holes = [(float(x), float(y), float(z), float(r)) for (x, y, z), r in zip(centres, radii)]
    return mesh_box(n_nodes=n_nodes, size=tuple(size), holes=holes, seed=seed)
