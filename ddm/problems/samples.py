"""Synthetic random problems of each class: a source of training and test data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from scipy.spatial import KDTree

from ddm.mesh import random_mesh, random_solid
from ddm.problems.convection import convection_diffusion
from ddm.problems.diffusion import diffusion, poisson
from ddm.problems.elasticity import elasticity
from ddm.problems.fields import channels, checkerboard, inclusions, rotated_anisotropy
from ddm.problems.graph import graph_laplacian
from ddm.problems.helmholtz import helmholtz
from ddm.problems.problem import Problem

Draw = Callable[[Any, np.random.Generator, int, "Boundary"], Problem]
LARGEST_CONTRAST = 1e6


def random_problem(kind: str, seed: int, n: int) -> Problem:
    """A synthetic problem with about `n` unknowns on a random domain, the same for the same seed.

    Domains are those of `ddm.mesh.random_mesh` and, for kinds that end in "_3d", of
    `ddm.mesh.random_solid`; right-hand sides are smooth random waves.

    Args:
        kind: "poisson"; "diffusion" (checkerboards, channels or inclusions, contrasts log-uniform
            up to 1e6); "anisotropic" (rotated tensors, ratios up to 1e3, one direction or a
            direction a cell); "convection_diffusion" (Peclet numbers of elements from 0.1 to
            10, one direction or a vortex); "elasticity"; "helmholtz" (at least ten elements a
            wavelength); each of these with "_3d"; or "graph_laplacian" (nearest neighbours in the
            plane, random weights, grounded). "poisson_mixed", "diffusion_mixed" and
            "anisotropic_mixed", these with "_3d" too, have u = 0 on 5 % to 95 % of the boundary
            only, no flux or a Robin condition on the rest, and every fourth a reaction term;
            elasticity is clamped on 10 % to 60 %, the others have u = 0 on all of it.
        seed: of the domain, the coefficients and the right-hand side.
        n: the wanted number of unknowns, at least 50; met to within some 20 %.

    Raises:
        ValueError: another kind, or too small an n.
        GmshUnavailableError: gmsh cannot be loaded.
    """
    plane = kind.removesuffix("_3d") if isinstance(kind, str) else kind
    if plane not in (*NAMES, "graph_laplacian") or kind == "graph_laplacian_3d":
        names = ", ".join([*NAMES, *(f"{name}_3d" for name in NAMES), "graph_laplacian"])
        raise ValueError(f"kind: expected one of {names}; got {kind!r}")
    if not n >= 50:  # NaN, too
        raise ValueError(f"n: expected at least 50 unknowns, got {n}")
    rng = np.random.default_rng([seed, *kind.encode()])
    if kind == "graph_laplacian":
        return _neighbours(rng, n)
    dim = 3 if kind.endswith("_3d") else 2
    base = plane.removesuffix(MIXED)
    nodes = n / dim if base == "elasticity" else n
    boundary = Boundary.draw(rng, plane)
    if dim == 2:
        mesh = random_mesh(seed, round(nodes + boundary.held * 3.2 * nodes ** (1 / 2)))
    else:
        mesh = _solid(seed, nodes, boundary.held)
    return KINDS[base](mesh, rng, seed, boundary)


@dataclass(frozen=True)
class Boundary:
    """The part of the boundary where the solution is given, and what the rest has.

    Attributes:
        held: share of the boundary's facets with given values.
        mixed: whether the rest may have a Robin condition, and the equation a reaction term.
    """

    held: float = 1.0
    mixed: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, kind: str) -> Self:
        """Of a kind, without "_3d"."""
        if kind.endswith(MIXED):
            return cls(float(rng.uniform(0.05, 0.95)), mixed=True)
        if kind == "elasticity":
            return cls(float(rng.uniform(0.1, 0.6)))
        return cls(0.0 if kind == "helmholtz" else 1.0)

    def part(self, mesh: Any, rng: np.random.Generator) -> Callable[..., np.ndarray]:
        """Where values are given: the side of a half space, or where a wave is low."""
        frequency, phase = rng.normal(0, np.pi, mesh.dim()), rng.uniform(0, 2 * np.pi)
        wavy = bool(rng.integers(2))

        def level(*x: np.ndarray) -> np.ndarray:
            along = np.tensordot(frequency, np.stack(x), 1)
            return np.sin(2 * along + phase) if wavy else along

        middle = mesh.p[:, mesh.facets[:, mesh.boundary_facets()]].mean(axis=1)
        limit = np.quantile(level(*middle), self.held)
        return lambda *x: level(*x) <= limit

    def options(self, mesh: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Of `diffusion`."""
        if not self.mixed:
            return {}
        held = self.part(mesh, rng)
        found: dict[str, Any] = {"dirichlet": {held: 0.0}}
        robin, reaction = rng.random(2)
        if robin < 1 / 3:
            alpha = log_uniform(rng, 1e-2, 1e2)
            found["robin"] = {lambda *x: ~held(*x): (alpha, 0.0)}
        if reaction < 1 / 4:
            found["reaction"] = log_uniform(rng, 1e-1, 1e4)
        return found


def _solid(seed: int, nodes: float, fixed: float) -> Any:
    """A solid with so many nodes that are not on the share `fixed` of its boundary.

    The number on the boundary goes with the power 2/3 of the others', by a factor that depends on
    the shape and that a first mesh shows.
    """
    first = random_solid(seed, round(nodes + fixed * 7.0 * nodes ** (2 / 3)))
    inside = len(first.interior_nodes())
    outside = first.nvertices - inside
    found = first.nvertices - fixed * outside
    if 0.9 * nodes <= found <= 1.1 * nodes:
        return first
    factor = outside / found ** (2 / 3)
    return random_solid(seed, round(nodes + fixed * factor * nodes ** (2 / 3)))


def _wave(rng: np.random.Generator, dim: int) -> Callable[..., np.ndarray]:
    frequency, phase = rng.normal(0, 2 * np.pi, dim), rng.uniform(0, 2 * np.pi)
    return lambda *x: 1 + np.sin(sum(f * c for f, c in zip(frequency, x)) + phase)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two positive ones, whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _size(mesh: Any) -> float:
    """Length of a typical edge."""
    edges = mesh.facets if mesh.dim() == 2 else mesh.edges
    return float(np.median(np.linalg.norm(mesh.p[:, edges[0]] - mesh.p[:, edges[1]], axis=0)))


def _poisson(mesh: Any, rng: np.random.Generator, seed: int, boundary: Boundary) -> Problem:
    return poisson(mesh, _wave(rng, mesh.dim()), **boundary.options(mesh, rng))


def _diffusion(mesh: Any, rng: np.random.Generator, seed: int, boundary: Boundary) -> Problem:
    field = (checkerboard, channels, inclusions)[int(rng.integers(3))]
    contrast = log_uniform(rng, 1, LARGEST_CONTRAST)
    k, wave = field(mesh, seed, contrast=contrast), _wave(rng, mesh.dim())
    return diffusion(mesh, k, wave, **boundary.options(mesh, rng))


def _anisotropic(mesh: Any, rng: np.random.Generator, seed: int, boundary: Boundary) -> Problem:
    cells = (1, 4)[int(rng.integers(2))]
    tensors = rotated_anisotropy(mesh, seed, ratio=log_uniform(rng, 1, 1e3), cells=cells)
    return diffusion(mesh, tensors, _wave(rng, mesh.dim()), **boundary.options(mesh, rng))


def _convection(mesh: Any, rng: np.random.Generator, seed: int, boundary: Boundary) -> Problem:
    dim = mesh.dim()
    k = _size(mesh) / (2 * log_uniform(rng, 0.1, 10))
    direction = rng.standard_normal(dim)
    direction /= np.linalg.norm(direction)
    centre = mesh.p.mean(axis=1)
    vortex = bool(rng.integers(2))

    def velocity(*x: np.ndarray) -> np.ndarray:
        if not vortex:
            return np.stack([d + 0 * x[0] for d in direction])
        y = np.stack([c - m for c, m in zip(x, centre)])
        return np.stack([-2 * y[1], 2 * y[0], *(0.5 + 0 * y[2:])])

    return convection_diffusion(mesh, k, velocity, _wave(rng, dim))


def _elasticity(mesh: Any, rng: np.random.Generator, seed: int, boundary: Boundary) -> Problem:
    """Clamped on some of the boundary, free elsewhere; soft and stiff parts."""
    dim = mesh.dim()
    stiff = checkerboard(mesh, seed, contrast=log_uniform(rng, 1, 1e3), cells=4)
    waves = [_wave(rng, dim) for _ in range(dim)]
    return elasticity(
        mesh,
        stiff,
        float(rng.uniform(0.1, 0.4)),
        lambda *x: np.stack([wave(*x) for wave in waves]),
        dirichlet={boundary.part(mesh, rng): 0.0},
    )


def _helmholtz(mesh: Any, rng: np.random.Generator, seed: int, boundary: Boundary) -> Problem:
    k = 2 * np.pi / (_size(mesh) * log_uniform(rng, 10, 40))
    return helmholtz(mesh, k, _wave(rng, mesh.dim()), absorption=float(rng.choice([0.0, 0.05])))


def _neighbours(rng: np.random.Generator, n: int) -> Problem:
    points = rng.random((n, 2))
    near = np.asarray(KDTree(points).query(points, k=6)[1])
    row = np.repeat(np.arange(n), 5)
    weights = np.exp(rng.standard_normal(5 * n))
    W = sp.coo_array((weights, (row, near[:, 1:].ravel())), shape=(n, n)).tocsr()
    return graph_laplacian(W + W.T, coordinates=points)


KINDS: dict[str, Draw] = {
    "poisson": _poisson,
    "diffusion": _diffusion,
    "anisotropic": _anisotropic,
    "convection_diffusion": _convection,
    "elasticity": _elasticity,
    "helmholtz": _helmholtz,
}
MIXED = "_mixed"
NAMES = (*KINDS, *(name + MIXED for name in ("poisson", "diffusion", "anisotropic")))
