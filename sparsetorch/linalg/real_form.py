"""A complex matrix as a real one of twice the size, [[Re A, -Im A], [Im A, Re A]].

It is symmetric positive definite if and only if A is Hermitian positive definite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.direct import factorized
from sparsetorch.linalg.krylov import Operator
from sparsetorch.stacking import bmat


def complex_cholesky(A: CSRTensor) -> Operator:
    """b -> A^-1 b on vectors (n,), by the Cholesky factors of the real form of A.

    Raises:
        SolveError: A is not positive definite.
    """
    real, imaginary = (A.with_values(part) for part in (A.values.real, A.values.imag))
    factors = factorized(bmat([[real, -imaginary], [imaginary, real]]), "cholesky")

    def solve(b: Tensor) -> Tensor:
        x = factors.solve(torch.cat([b.real, b.imag]))
        return torch.complex(*x.chunk(2))

    return solve
