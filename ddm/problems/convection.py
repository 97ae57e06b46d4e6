"""Convection-diffusion, with streamline diffusion (SUPG) where the Peclet number asks for it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from skfem.helpers import dot

from ddm.problems.boundary import Parts, conditions
from ddm.problems.diffusion import diffusion_matrices, reaction_matrices
from ddm.problems.problem import Problem
from ddm.problems.singular import Singular
from ddm.problems.space import Space, discretize
from ddm.problems.system import Discrete, add_flux, problem_of
from ddm.problems.values import on_elements, real, tensor


def convection_diffusion(
    mesh: Any,
    coefficient: Any = 1.0,
    velocity: Any = (1.0, 0.0),
    source: Any = 1.0,
    *,
    degree: int = 1,
    stabilisation: Literal["auto", "none"] = "auto",
    reaction: Any = 0.0,
    dirichlet: Any = 0.0,
    neumann: Parts | None = None,
    robin: Parts | None = None,
    singular: Singular = "refuse",
    keep_elements: bool = True,
) -> Problem:
    """Linear or quadratic elements for `-div(K grad u) + w . grad u + c u = f`: not symmetric.

    Linear elements are stabilised by SUPG, the streamline upwind Petrov-Galerkin method of Brooks
    and Hughes (1982), on the elements whose Peclet number (`peclet`) is above 1; it is consistent,
    so the order of convergence stays. Quadratic elements are not stabilised: they are refused
    where the Peclet number is above 1, unless `stabilisation="none"`.

    Args:
        mesh: triangles or tetrahedra.
        coefficient: K, as in `diffusion`.
        velocity: w, a vector (d,), an array (m, d), or a function that gives (d, *x.shape).
        source: f, as in `diffusion`.
        degree: of the elements, 1 or 2.
        stabilisation: "auto", or "none" for plain Galerkin.
        reaction: c, as in `diffusion`.
        dirichlet, neumann, robin, singular, keep_elements: as in `diffusion`; fluxes are those of
            `K grad u`, so that the natural condition at an outlet is `neumann={outlet: 0}`.

    Raises:
        TypeError, ValueError: as `diffusion`; quadratic elements where SUPG is asked for.
    """
    if stabilisation not in ("auto", "none"):
        raise ValueError(f"stabilisation: expected 'auto' or 'none', got {stabilisation!r}")
    space = discretize(mesh, degree)
    parts = conditions(mesh, dirichlet=dirichlet, neumann=neumann, robin=robin)
    w = real(on_elements(velocity, space.x, "velocity", (mesh.dim(),)), "velocity")
    f = real(on_elements(source, space.x, "source"), "source")
    tau = np.zeros(w.shape[1:])
    if stabilisation == "auto":
        tau = supg_weights(space, coefficient, w)
        if degree == 2 and tau.any():
            raise ValueError(
                "degree: quadratic elements are not stabilised, and the Peclet number is above 1 "
                f"on {np.count_nonzero(tau.any(axis=1))} of {len(tau)} elements; refine the mesh, "
                "take degree=1, or stabilisation='none'"
            )
    c = on_elements(reaction, space.x, "reaction")
    matrices = diffusion_matrices(space, coefficient) + reaction_matrices(space, reaction)
    matrices = matrices + space.matrices(
        lambda u, v, _: dot(w, u.grad) * v + tau * (dot(w, u.grad) + c * u) * dot(w, v.grad)
    )
    load = space.load(lambda v, _: f * (v + tau * dot(w, v.grad)))
    add_flux(space, parts, matrices, load)
    discrete = Discrete(space, matrices, load, parts, np.ones((space.size, 1)), "general")
    return problem_of(discrete, singular=singular, keep_elements=keep_elements)


def peclet(mesh: Any, coefficient: Any = 1.0, velocity: Any = (1.0, 0.0)) -> np.ndarray:
    """Peclet number of each element, (m,): `|w| h / (2 k)`, the largest at its quadrature points.

    h is the element's length along w, k the coefficient along w. Above 1 plain Galerkin oscillates.
    """
    space = discretize(mesh)
    w = on_elements(velocity, space.x, "velocity", (mesh.dim(),))
    return _peclet(space, coefficient, w)[0].max(axis=1)


def supg_weights(space: Space, coefficient: Any, w: np.ndarray) -> np.ndarray:
    """tau = h / (2 |w|) max(0, 1 - 1 / Pe), (m, q).

    The critical approximation of Brooks and Hughes (1982): none where Pe is at most 1.
    """
    number, length, speed = _peclet(space, coefficient, w)
    strong = number > 1
    share = 1 - 1 / np.where(strong, number, 1)
    return np.where(strong, length / (2 * np.where(speed > 0, speed, 1)) * share, 0.0)


def _peclet(
    space: Space, coefficient: Any, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Peclet numbers, lengths along w, and |w|, (m, q) each.

    The length is 2 |w| / sum_i |w . grad phi_i| over the hats (Tezduyar, Park 1986).
    """
    speed = np.sqrt(dot(w, w))
    mesh, q = space.mesh, w.shape[2]
    corners = mesh.p[:, mesh.t].transpose(2, 1, 0)  # (m, d + 1, d)
    rows = np.concatenate([np.ones((*corners.shape[:2], 1)), corners], axis=2)
    hats = np.linalg.inv(rows)[:, 1:, :]  # gradients, (m, d, d + 1)
    along = abs(np.einsum("dmq,mdk->kmq", w, hats)).sum(axis=0)
    length = 2 * speed / np.where(along > 0, along, 1)
    K = tensor(coefficient, space.x, "coefficient")
    square = np.where(speed > 0, speed, 1) ** 2
    k = K if K.ndim == 2 else np.einsum("a...,ab...,b...->...", w, K, w) / square
    number = np.where(speed > 0, speed * length / (2 * np.where(k > 0, k, 1)), 0.0)
    assert number.shape[1] == q
    return number, length, speed
