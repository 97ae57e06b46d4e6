"""Linear elasticity in the plane and in space, and the rigid-body modes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ddm.problems.boundary import Parts, conditions
from ddm.problems.problem import Problem
from ddm.problems.singular import Singular
from ddm.problems.space import Space, discretize
from ddm.problems.system import Discrete, add_flux, problem_of
from ddm.problems.values import on_elements, positive, real


def elasticity(
    mesh: Any,
    young: Any = 1.0,
    poisson_ratio: Any = 0.3,
    source: Any = None,
    *,
    degree: int = 1,
    plane: Literal["strain", "stress"] = "strain",
    dirichlet: Any = 0.0,
    neumann: Parts | None = None,
    robin: Parts | None = None,
    singular: Singular = "refuse",
    keep_elements: bool = True,
) -> Problem:
    """Linear or quadratic elements for `-div sigma(u) = f`, with d unknowns a node.

    `sigma = 2 mu eps(u) + lambda tr(eps(u)) I`, `eps(u) = (grad u + grad u^T) / 2`,
    `mu = E / (2 (1 + nu))`, `lambda = E nu / ((1 + nu) (1 - 2 nu))`; in plane stress lambda becomes
    `2 mu lambda / (2 mu + lambda)`.

    Args:
        mesh: triangles or tetrahedra.
        young: E, positive: a number, an array (m,), or a function.
        poisson_ratio: nu, between -1 and 0.5, likewise. Near 0.5 linear elements lock.
        source: f, a vector (d,), an array (m, d), or a function that gives (d, *x.shape); None
            stands for zero.
        degree: of the elements, 1 or 2.
        plane: what 2D meshes mean; those in 3D have none.
        dirichlet: a displacement on all of the boundary that `neumann` and `robin` do not name, or
            a mapping {part: displacement}. A displacement is a sequence of d numbers, functions or
            None (None leaves that component free), one number for all, or a function that gives
            (d, *x.shape).
        neumann: {part: traction}, a vector (d,) or a function that gives (d, *x.shape).
        robin: {part: (alpha, g)}: traction + alpha u = g, an elastic bedding.
        singular: what to do with a body that can move: see `ddm.problems.singular.settle`.
        keep_elements: whether the problem holds its element matrices.

    The near null space is that of `rigid_body_modes`.

    Raises:
        TypeError, ValueError: as `diffusion`; a Poisson ratio out of its range.
    """
    if plane not in ("strain", "stress"):
        raise ValueError(f"plane: expected 'strain' or 'stress', got {plane!r}")
    d = mesh.dim()
    if d == 3 and plane != "strain":
        raise ValueError(f"plane: {plane!r} is for triangles, and the mesh has tetrahedra")
    space = discretize(mesh, degree, d)
    parts = conditions(mesh, dirichlet=dirichlet, neumann=neumann, robin=robin)
    mu, lam = lame(space.x, young, poisson_ratio)
    if d == 2 and plane == "stress":
        lam = 2 * mu * lam / (2 * mu + lam)
    matrices = stiffness(space, mu, lam)
    force = on_elements(np.zeros(d) if source is None else source, space.x, "source", (d,))
    load = np.stack([space.load(lambda v, w, f=f: f * v) for f in real(force, "source")], axis=1)
    load = load.ravel()
    add_flux(space, parts, matrices, load)
    modes = rigid_body_modes(space.points.T)
    discrete = Discrete(space, matrices, load, parts, modes, "spd")
    return problem_of(discrete, singular=singular, keep_elements=keep_elements)


def stiffness(space: Space, mu: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """Element matrices of `2 mu eps(u) : eps(v) + lambda div u div v`, (m, k d, k d).

    From the gradients g_a of the scalar functions a, the block of a and b is the integral of
    `lambda g_a g_b^T + mu g_b g_a^T + mu (g_a . g_b) I`.

    Args:
        space: with d unknowns a node.
        mu: (m, q) at the quadrature points.
        lam: the same.
    """
    gradients = [np.asarray(function[0].grad) for function in space.basis.basis]  # (d, m, q)
    k, d = len(gradients), space.mesh.dim()
    K = np.zeros((space.mesh.nelements, k, d, k, d))
    for b, g_b in enumerate(gradients):
        by_mu, by_lam = (g_b * (weight * space.basis.dx) for weight in (mu, lam))
        for a in range(b + 1):
            shear = np.einsum("imq,jmq->mij", by_mu, gradients[a])
            block = shear + np.einsum("imq,jmq->mij", gradients[a], by_lam)
            block += np.trace(shear, axis1=1, axis2=2)[:, None, None] * np.eye(d)
            K[:, a, :, b, :] = block
            K[:, b, :, a, :] = block.swapaxes(1, 2)
    return K.reshape(len(K), k * d, k * d)


def lame(x: np.ndarray, young: Any, poisson_ratio: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lame's mu and lambda at quadrature points, (m, q) each.

    Raises:
        ValueError: E not positive, nu not between -1 and 0.5.
    """
    E = positive(on_elements(young, x, "young"), "young")
    nu = real(on_elements(poisson_ratio, x, "poisson_ratio"), "poisson_ratio")
    if not ((nu > -1) & (nu < 0.5)).all():
        raise ValueError(
            f"poisson_ratio: expected values between -1 and 0.5, got {nu.min():g} to {nu.max():g}"
        )
    return E / (2 * (1 + nu)), E * nu / ((1 + nu) * (1 - 2 * nu))


def rigid_body_modes(points: np.ndarray) -> np.ndarray:
    """Translations and infinitesimal rotations about the centre, (n d, 3) in 2D, (n d, 6) in 3D.

    Args:
        points: (n, d) nodes; rows of the result are numbered node by node.

    Raises:
        ValueError: neither 2 nor 3 coordinates.
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"points: expected (n, 2) or (n, 3), got {points.shape}")
    n, d = points.shape
    centred = points - points.mean(axis=0) if n else points
    planes = [(0, 1)] if d == 2 else [(0, 1), (1, 2), (2, 0)]
    modes = np.zeros((n, d, d + len(planes)))
    modes[:, range(d), range(d)] = 1
    for k, (a, b) in enumerate(planes):
        modes[:, a, d + k] = -centred[:, b]
        modes[:, b, d + k] = centred[:, a]
    return modes.reshape(n * d, -1)
