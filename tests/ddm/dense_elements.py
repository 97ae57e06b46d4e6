"""P1 matrices from their elements, one triangle at a time: diffusion, elasticity, Helmholtz."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from small_problems import delaunay

YOUNG, POISSON = 1.0, 0.3


@dataclass(frozen=True)
class Assembled:
    """A matrix, its elements, and the vectors that they annihilate.

    A: (n, n). dofs: (m, k), -1 for eliminated unknowns. matrices: (m, k, k).
    near_nullspace: (n, modes). block_size: unknowns at a node.
    """

    A: sp.csr_array
    dofs: np.ndarray
    matrices: np.ndarray
    near_nullspace: np.ndarray
    block_size: int = 1


def gradients(corners: np.ndarray) -> tuple[np.ndarray, float]:
    """Gradients of the three hat functions, (2, 3), and the area of the triangle (3, 2)."""
    T = np.vstack([np.ones(3), corners.T])
    return np.linalg.inv(T)[:, 1:].T, abs(np.linalg.det(T)) / 2


def summed(dofs: np.ndarray, matrices: np.ndarray, n: int) -> sp.csr_array:
    """The sum of the elements, with every coupling of an element stored."""
    row = np.broadcast_to(dofs[:, :, None], matrices.shape)
    col = np.broadcast_to(dofs[:, None, :], matrices.shape)
    inside = (row >= 0) & (col >= 0)
    return sp.csr_array(
        sp.coo_array((matrices[inside], (row[inside], col[inside])), shape=(n, n)).tocsr()
    )


def diffusion(n_side: int = 9, seed: int = 0, jump: float = 1.0, neumann: bool = False):
    """`-div kappa grad u`, kappa 1 or `jump` at random; u = 0 on the left side unless `neumann`."""
    mesh = delaunay(n_side, seed)
    points, triangles = mesh.p.T, mesh.t.T
    rng = np.random.default_rng(seed)
    kappa = np.where(rng.random(len(triangles)) < 0.5, 1.0, jump)
    matrices = np.empty((len(triangles), 3, 3))
    for i, corners in enumerate(points[triangles]):
        G, area = gradients(corners)
        matrices[i] = kappa[i] * area * G.T @ G
    free = np.ones(len(points), bool) if neumann else points[:, 0] > 1e-9
    number = np.where(free, np.cumsum(free) - 1, -1)
    n = int(free.sum())
    dofs = number[triangles]
    return Assembled(summed(dofs, matrices, n), dofs, matrices, np.ones((n, 1)))


def elasticity(n_side: int = 7, seed: int = 0, neumann: bool = False) -> Assembled:
    """Plane strain, two unknowns a node, held on the left side; three rigid-body modes."""
    mesh = delaunay(n_side, seed)
    points, triangles = mesh.p.T, mesh.t.T
    c = YOUNG / ((1 + POISSON) * (1 - 2 * POISSON))
    stiffness = c * np.array(
        [[1 - POISSON, POISSON, 0], [POISSON, 1 - POISSON, 0], [0, 0, 0.5 - POISSON]]
    )
    matrices = np.empty((len(triangles), 6, 6))
    for i, corners in enumerate(points[triangles]):
        G, area = gradients(corners)
        B = np.zeros((3, 6))
        B[0, 0::2], B[1, 1::2] = G
        B[2, 0::2], B[2, 1::2] = G[1], G[0]
        matrices[i] = area * B.T @ stiffness @ B
    free = np.ones(len(points), bool) if neumann else points[:, 0] > 1e-9
    number = np.where(free, np.cumsum(free) - 1, -1)
    at = number[triangles]
    dofs = np.where(at[:, :, None] >= 0, 2 * at[:, :, None] + np.arange(2), -1)
    dofs = dofs.reshape(len(triangles), 6)
    x, y = points[free].T
    modes = np.zeros((2 * len(x), 3))
    modes[0::2, 0] = modes[1::2, 1] = 1
    modes[0::2, 2], modes[1::2, 2] = -y, x
    return Assembled(summed(dofs, matrices, 2 * len(x)), dofs, matrices, modes, block_size=2)


def helmholtz(n_side: int = 9, seed: int = 0, k: float = 8.0) -> Assembled:
    """`-laplace u - k^2 (1 + 0.2i) u` with u = 0 on the left side: complex symmetric."""
    real = diffusion(n_side, seed)
    mesh = delaunay(n_side, seed)
    mass = (np.ones((3, 3)) + np.eye(3)) / 12
    areas = np.array([gradients(corners)[1] for corners in mesh.p.T[mesh.t.T]])
    matrices = real.matrices - k**2 * (1 + 0.2j) * areas[:, None, None] * mass
    n = real.A.shape[0]
    return Assembled(summed(real.dofs, matrices, n), real.dofs, matrices, real.near_nullspace)
