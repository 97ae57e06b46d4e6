"""Solve sparse systems, and differentiate through the solution."""

from sparsetorch.linalg.bicgstab import bicgstab
from sparsetorch.linalg.cg import cg
from sparsetorch.linalg.chebyshev import chebyshev
from sparsetorch.linalg.determinant import det, logdet, slogdet
from sparsetorch.linalg.direct import factorized
from sparsetorch.linalg.factorization import Factorization
from sparsetorch.linalg.fgmres import fgmres
from sparsetorch.linalg.gmres import gmres
from sparsetorch.linalg.inverse import selected_inverse
from sparsetorch.linalg.lsqr import lsqr
from sparsetorch.linalg.minres import minres
from sparsetorch.linalg.richardson import richardson
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.linalg.solve import solve
from sparsetorch.linalg.triangular import solve_triangular

__all__ = [
    "Factorization",
    "Solution",
    "SolveError",
    "Status",
    "bicgstab",
    "cg",
    "chebyshev",
    "det",
    "factorized",
    "fgmres",
    "gmres",
    "logdet",
    "lsqr",
    "minres",
    "richardson",
    "selected_inverse",
    "slogdet",
    "solve",
    "solve_triangular",
]
