"""Meshes and errors for tests with known solutions."""

from typing import Any

import numpy as np
import scipy.sparse.linalg
from skfem import Basis, ElementVector, Functional, MeshTet, MeshTri
from small_problems import delaunay

from ddm.problems.problem import Problem
from ddm.problems.space import ELEMENTS

SIDES: dict[str, Any] = {
    "left": lambda x: np.isclose(x[0], 0),
    "right": lambda x: np.isclose(x[0], 1),
    "bottom": lambda x: np.isclose(x[1], 0),
    "top": lambda x: np.isclose(x[1], 1),
}


def square(n_side: int) -> MeshTri:
    """An irregular triangulation of the unit square with named sides."""
    return delaunay(n_side).with_boundaries(SIDES)


def cube(cells: int) -> MeshTet:
    """A triangulation of the unit cube into tetrahedra, irregular inside, with named sides."""
    mesh = MeshTet.init_tensor(*[np.linspace(0, 1, cells + 1)] * 3)
    inside = mesh.interior_nodes()
    moves = np.random.default_rng(0).uniform(-0.15, 0.15, (3, len(inside))) / cells
    points = mesh.p.copy()
    points[:, inside] += moves
    faces: dict[str, Any] = {
        "front": lambda x: np.isclose(x[2], 0),
        "back": lambda x: np.isclose(x[2], 1),
    }
    return MeshTet(points, mesh.t).with_boundaries(SIDES | faces)


def solved(problem: Problem) -> np.ndarray:
    return scipy.sparse.linalg.splu(problem.A.tocsc()).solve(problem.b)


def errors(problem: Problem, degree: int, exact, gradient) -> tuple[float, float]:
    """Distance of the solution to `exact(*x)` in L2, and of its gradient to `gradient(*x)`.

    For blocks `exact` gives (d, ...) and `gradient` (d, d, ...), rows components.
    """
    mesh, size = problem.mesh, problem.block_size
    element = ELEMENTS[mesh.dim(), degree]()
    basis = Basis(mesh, ElementVector(element) if size > 1 else element, intorder=2 * degree + 3)
    full: Any = problem.extend(solved(problem)).ravel()

    def norm(difference) -> float:
        square = Functional(
            lambda w: (abs(difference(w)) ** 2).reshape(-1, *w.x.shape[1:]).sum(axis=0)
        )
        return square.assemble(basis) ** 0.5

    factors = (1, 1j) if np.iscomplexobj(full) else (1,)
    parts: list[Any] = [
        basis.interpolate(np.ascontiguousarray(part)) for part in (full.real, full.imag)
    ]
    value = sum(np.asarray(part) * factor for part, factor in zip(parts, factors))
    grad = sum(part.grad * factor for part, factor in zip(parts, factors))
    return (
        norm(lambda w: value - np.asarray(exact(*w.x))),
        norm(lambda w: grad - np.asarray(gradient(*w.x))),
    )
