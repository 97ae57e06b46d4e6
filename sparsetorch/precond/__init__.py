"""Preconditioners: operators r -> z that approximate the inverse of a matrix."""

from sparsetorch.precond.amg import Multigrid, amg
from sparsetorch.precond.block_jacobi import BlockJacobi, block_jacobi
from sparsetorch.precond.chebyshev import Chebyshev, chebyshev
from sparsetorch.precond.jacobi import Jacobi

__all__ = [
    "BlockJacobi",
    "Chebyshev",
    "Jacobi",
    "Multigrid",
    "amg",
    "block_jacobi",
    "chebyshev",
]
