"""Meshes distorted at random."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ddm.mesh.build import signed_sizes


def distort(mesh: Any, jitter: float, stretch: float, seed: int) -> Any:
    """Move interior nodes at random, then stretch the mesh in a random direction.

    Args:
        mesh: triangles or tetrahedra; named boundaries stay.
        jitter: largest move, as a share of the node's shortest edge. Below 0.4 no good triangle
            turns over; above about 0.3 some angles are obtuse and some couplings positive.
        stretch: factor by which lengths grow in the random direction.
        seed: of the random numbers.

    Raises:
        ValueError: a jitter or stretch that is not a number of at least 0; an element turned over.
    """
    for name, value in (("jitter", jitter), ("stretch", stretch)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a number of at least 0, got {value}")
    rng = np.random.default_rng(seed)
    dim = mesh.dim()
    a, b = np.asarray(mesh.facets if dim == 2 else mesh.edges)
    length = np.linalg.norm(mesh.p[:, a] - mesh.p[:, b], axis=0)
    shortest = np.full(mesh.nvertices, np.inf)
    np.minimum.at(shortest, a, length)
    np.minimum.at(shortest, b, length)
    inside = mesh.interior_nodes()
    p = mesh.p.copy()
    direction, radius = _in_ball(rng, dim, len(inside))
    p[:, inside] += jitter * shortest[inside] * radius * direction
    if dim == 2:
        angle = rng.uniform(0, np.pi)
        axis = np.array([np.cos(angle), np.sin(angle)])
    else:
        axis = rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
    p += (stretch - 1) * np.outer(axis, axis @ p)
    moved = replace(mesh, doflocs=p)
    if (signed_sizes(moved) * signed_sizes(mesh) <= 0).any():
        name = "a triangle" if dim == 2 else "a tetrahedron"
        raise ValueError(f"jitter: {jitter:g} of the shortest edges turned {name} over")
    return moved


def _in_ball(rng: np.random.Generator, dim: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform points in the unit disk or ball: directions (dim, count) and radii (count,)."""
    if dim == 2:
        angle = rng.uniform(0, 2 * np.pi, count)
        radius = np.sqrt(rng.uniform(0, 1, count))
        return np.stack([np.cos(angle), np.sin(angle)]), radius
    direction = rng.standard_normal((3, count))
    return direction / np.linalg.norm(direction, axis=0), np.cbrt(rng.uniform(0, 1, count))
