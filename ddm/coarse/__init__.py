"""Coarse spaces of two-level methods, as prolongations P (n, columns), and coarse solves.

partition_of_unity       one vector a subdomain, rows sum to one (Nicolaides)
nicolaides               the same times several near-null vectors, such as rigid-body modes
coarse_vectors           such vectors for a problem, made by constants, with_linear, nowhere_zero
geneo                    local eigenvectors that one-level methods are slow on
smooth                   damped Jacobi steps on the columns of any of them
"""

from ddm.coarse.neumann import algebraic_neumann, assembled_neumann
from ddm.coarse.nicolaides import check_coarse, nicolaides, partition_of_unity
from ddm.coarse.smoothing import OMEGA, smooth
from ddm.coarse.solver import CoarseSolver
from ddm.coarse.spectral import NoEigenvalueError, geneo
from ddm.coarse.vectors import coarse_vectors, constants, modes_of, nowhere_zero, with_linear

__all__ = [
    "OMEGA",
    "CoarseSolver",
    "NoEigenvalueError",
    "algebraic_neumann",
    "assembled_neumann",
    "check_coarse",
    "coarse_vectors",
    "constants",
    "geneo",
    "modes_of",
    "nicolaides",
    "nowhere_zero",
    "partition_of_unity",
    "smooth",
    "with_linear",
]
