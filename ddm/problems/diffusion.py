"""Poisson's equation and diffusion with variable, jumping and anisotropic coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np
from skfem.helpers import dot

from ddm.problems.boundary import Parts, conditions
from ddm.problems.problem import Problem
from ddm.problems.singular import Singular
from ddm.problems.space import Space, discretize
from ddm.problems.system import Discrete, add_flux, problem_of
from ddm.problems.values import Source, on_elements, real, tensor


def poisson(mesh: Any, source: Source | float = 1.0, **options: Any) -> Problem:
    """Linear elements for `-div grad u = f`, with `u = 0` on the whole boundary by default.

    Args:
        mesh: triangles or tetrahedra.
        source: f, a constant or a function of arrays x, y (and z).
        options: of `diffusion`: other boundary conditions, quadratic elements.

    Raises:
        ValueError: the mesh has no interior node; see `diffusion`.
    """
    return diffusion(mesh, 1.0, source, **options)


def diffusion(
    mesh: Any,
    coefficient: Any = 1.0,
    source: Any = 1.0,
    *,
    degree: int = 1,
    reaction: Any = 0.0,
    dirichlet: Any = 0.0,
    neumann: Parts | None = None,
    robin: Parts | None = None,
    singular: Singular = "refuse",
    keep_elements: bool = True,
) -> Problem:
    """Linear or quadratic elements for `-div(K grad u) + c u = f`.

    On the boundary `u = g` (Dirichlet), `n . K grad u = g` (Neumann), or
    `n . K grad u + alpha u = g` (Robin). A part of the boundary is named by a string (a named
    boundary of the mesh) or by a function of the coordinates of facets' midpoints.

    Args:
        mesh: scikit-fem's MeshTri or MeshTet.
        coefficient: K, a positive number; an array (m,), one an element; a symmetric positive
            definite tensor (d, d), or (m, d, d); or a function of x, y (and z) that gives numbers,
            or tensors (d, d, *x.shape).
        source: f, a number, an array (m,), or a function.
        degree: of the elements, 1 or 2.
        reaction: c, at least 0, like `source`.
        dirichlet: a value (number or function) on all of the boundary that `neumann` and `robin`
            do not name; or a mapping {part: value}, and then the flux is zero on the rest.
        neumann: {part: g}.
        robin: {part: (alpha, g)}.
        singular: what to do with a pure Neumann problem: see `ddm.problems.singular.settle`.
        keep_elements: whether the problem holds its element matrices (memory: k^2 numbers each).

    Raises:
        TypeError: not such a mesh, or values that are no numbers.
        ValueError: coefficients that are not positive or not finite, parts of the boundary that
            are not there or overlap, no interior node, or a singular matrix.
    """
    space = discretize(mesh, degree)
    parts = conditions(mesh, dirichlet=dirichlet, neumann=neumann, robin=robin)
    matrices = diffusion_matrices(space, coefficient) + reaction_matrices(space, reaction)
    f = real(on_elements(source, space.x, "source"), "source")
    load = space.load(lambda v, w: f * v)
    add_flux(space, parts, matrices, load)
    discrete = Discrete(space, matrices, load, parts, np.ones((space.size, 1)), "spd")
    return problem_of(discrete, singular=singular, keep_elements=keep_elements)


def diffusion_matrices(space: Space, coefficient: Any, dtype: type = np.float64) -> np.ndarray:
    """Element matrices of `K grad u . grad v`, (m, k, k).

    Raises:
        ValueError: a coefficient that is not positive.
    """
    K = tensor(coefficient, space.x, "coefficient")
    if K.ndim == 2:
        return space.matrices(lambda u, v, w: K * dot(u.grad, v.grad), dtype)
    return space.matrices(
        lambda u, v, w: np.einsum("ab...,a...,b...->...", K, v.grad, u.grad), dtype
    )


def reaction_matrices(space: Space, reaction: Any) -> np.ndarray | float:
    """Element matrices of `c u v`, (m, k, k); 0.0 where c is 0.

    Raises:
        ValueError: a negative c.
    """
    if np.ndim(reaction) == 0 and not callable(reaction) and reaction == 0:
        return 0.0
    c = real(on_elements(reaction, space.x, "reaction"), "reaction")
    if (c < 0).any():
        raise ValueError(f"reaction: expected values of at least 0, got {c.min():g}")
    return space.matrices(lambda u, v, w: c * u * v)
