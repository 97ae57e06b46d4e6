"""Preconditioners: operators r -> z that approximate the inverse of a matrix."""

from sparsetorch.precond.amg import Multigrid, amg
from sparsetorch.precond.approximate_inverse import FSAI, fsai, spai
from sparsetorch.precond.block_jacobi import BlockJacobi, block_jacobi
from sparsetorch.precond.chebyshev import Chebyshev, chebyshev
from sparsetorch.precond.incomplete import IC0, ILU0, ic0, ilu0
from sparsetorch.precond.jacobi import Jacobi, jacobi
from sparsetorch.precond.relaxation import SOR, SSOR, sor, ssor

__all__ = [
    "FSAI",
    "IC0",
    "ILU0",
    "SOR",
    "SSOR",
    "BlockJacobi",
    "Chebyshev",
    "Jacobi",
    "Multigrid",
    "amg",
    "block_jacobi",
    "chebyshev",
    "fsai",
    "ic0",
    "ilu0",
    "jacobi",
    "sor",
    "spai",
    "ssor",
]
