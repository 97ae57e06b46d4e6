"""The Helmholtz equation with an impedance boundary: complex, symmetric, indefinite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ddm.problems.boundary import Parts, conditions
from ddm.problems.diffusion import diffusion_matrices
from ddm.problems.problem import Problem
from ddm.problems.space import discretize
from ddm.problems.system import Discrete, add_flux, problem_of
from ddm.problems.values import on_elements, positive


def helmholtz(
    mesh: Any,
    wavenumber: Any,
    source: Any = 1.0,
    *,
    coefficient: Any = 1.0,
    absorption: float = 0.0,
    degree: int = 1,
    impedance: Any = 0.0,
    dirichlet: Parts | None = None,
    neumann: Parts | None = None,
    keep_elements: bool = True,
) -> Problem:
    """Linear or quadratic elements for `-div(K grad u) - k^2 (1 + i epsilon) u = f`.

    On the impedance boundary `n . K grad u - i k u = g`: with g = 0 waves `exp(-i omega t)` leave,
    to first order. The matrix is complex and symmetric, not Hermitian, and indefinite: direct
    solvers and GMRES apply, CG does not. Ten linear elements a wavelength `2 pi / k` are few.

    Args:
        mesh: triangles or tetrahedra.
        wavenumber: k, positive: a number, an array (m,), or a function.
        source: f, complex or real, a number, an array (m,), or a function.
        coefficient: K, as in `diffusion`.
        absorption: epsilon, at least 0.
        degree: of the elements, 1 or 2.
        impedance: g on all of the boundary that the others do not name, or a mapping {part: g}.
        dirichlet: {part: value}.
        neumann: {part: g}.
        keep_elements: whether the problem holds its element matrices.

    Raises:
        TypeError, ValueError: as `diffusion`; a negative absorption.
    """
    if not 0 <= absorption < np.inf:
        raise ValueError(f"absorption: expected a number of at least 0, got {absorption}")
    space = discretize(mesh, degree)
    k = positive(on_elements(wavenumber, space.x, "wavenumber"), "wavenumber")
    parts = conditions(
        mesh, rest="impedance", dirichlet=dirichlet, neumann=neumann, impedance=impedance
    )
    f = on_elements(source, space.x, "source")
    factor = k**2 * (1 + 1j * absorption)
    matrices = diffusion_matrices(space, coefficient, np.complex128) - space.matrices(
        lambda u, v, w: factor * u * v, np.complex128
    )
    load = space.load(lambda v, w: f * v, np.complex128)
    if callable(wavenumber):
        alpha: Any = lambda *x: -1j * np.asarray(wavenumber(*x))  # noqa: E731
    else:
        alpha = -1j * np.asarray(wavenumber)
    waves = [(facets, (alpha, g)) for facets, g in parts.robin]
    parts = replace(parts, robin=waves)
    add_flux(space, parts, matrices, load)
    discrete = Discrete(space, matrices, load, parts, np.ones((space.size, 1)), "symmetric")
    return problem_of(discrete, singular=None, keep_elements=keep_elements)
