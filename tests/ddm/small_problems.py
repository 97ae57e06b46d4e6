"""Small problems for the tests, made without gmsh, and the dense form of their matrices."""

import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import Delaunay
from skfem import MeshTri
from torch import Tensor

from ddm.mesh import build_mesh
from ddm.partition import partition
from ddm.problems import poisson
from ddm.setup import Setup, set_up


def unit_square(refinements: int) -> MeshTri:
    """Equal right triangles, 2 * 4^refinements of them."""
    return MeshTri().refined(refinements)


def delaunay(n_side: int, seed: int = 0, jitter: float = 0.35) -> MeshTri:
    """A Delaunay triangulation of n_side^2 irregular points: its P1 Laplacian is an M-matrix."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(n_side), np.arange(n_side))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    inside = ((points > 0) & (points < n_side - 1)).all(axis=1)
    points[inside] += rng.uniform(-jitter, jitter, (int(inside.sum()), 2))
    return build_mesh(points / (n_side - 1), Delaunay(points).simplices)


def laplacian(n_side: int, seed: int = 0) -> sp.csr_array:
    """The matrix of an irregular mesh, (n_side - 2)^2 unknowns."""
    return poisson(delaunay(n_side, seed)).A


def line(n: int) -> sp.csr_array:
    """A chain of unknowns."""
    return sp.csr_array(3 * sp.eye_array(n) - sp.eye_array(n, k=1) - sp.eye_array(n, k=-1))


def small_setup(
    n_side: int = 10, n_parts: int = 5, *, seed: int = 0, smoothing: int = 1, **options
) -> Setup:
    A = laplacian(n_side, seed)
    options = {"local": "dense", **options}
    return set_up(A, partition(A, n_parts, seed=seed), smoothing=smoothing, **options)


def random_interface(setup: Setup, seed: int = 0, size: float = 0.1) -> Tensor:
    """Interface values that are not symmetric and leave the local matrices regular."""
    generator = torch.Generator().manual_seed(seed)
    count = len(setup.decomposition.interface)
    return size * torch.randn(count, generator=generator, dtype=setup.A.dtype)


def random_matrix(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
