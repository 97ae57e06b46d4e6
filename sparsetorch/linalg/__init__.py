"""Solve sparse systems, and differentiate through the solution."""

from sparsetorch.linalg.bicgstab import bicgstab
from sparsetorch.linalg.block_cg import block_cg
from sparsetorch.linalg.cg import cg
from sparsetorch.linalg.chebyshev import chebyshev
from sparsetorch.linalg.determinant import det, logdet, slogdet
from sparsetorch.linalg.direct import factorized
from sparsetorch.linalg.eigsh import eigsh
from sparsetorch.linalg.factorization import Factorization
from sparsetorch.linalg.fgmres import fgmres
from sparsetorch.linalg.fixed_point import fixed_point
from sparsetorch.linalg.gmres import gmres
from sparsetorch.linalg.inverse import selected_inverse
from sparsetorch.linalg.lsqr import lsqr
from sparsetorch.linalg.minres import minres
from sparsetorch.linalg.quadrature import logdet_estimate
from sparsetorch.linalg.richardson import richardson
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.linalg.solve import solve
from sparsetorch.linalg.svds import svds
from sparsetorch.linalg.trace import Estimate, diagonal_estimate, trace_estimate
from sparsetorch.linalg.triangular import solve_triangular

__all__ = [
    "Estimate",
    "Factorization",
    "Solution",
    "SolveError",
    "Status",
    "bicgstab",
    "block_cg",
    "cg",
    "chebyshev",
    "det",
    "diagonal_estimate",
    "eigsh",
    "factorized",
    "fgmres",
    "fixed_point",
    "gmres",
    "logdet",
    "logdet_estimate",
    "lsqr",
    "minres",
    "richardson",
    "selected_inverse",
    "slogdet",
    "solve",
    "solve_triangular",
    "svds",
    "trace_estimate",
]
