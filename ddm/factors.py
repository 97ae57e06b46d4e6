"""Factors of a matrix that are kept for many solves, with the gradients of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from sparsetorch import CSRTensor
from sparsetorch.linalg import Factorization, factorized, solve
from sparsetorch.structure import outside_transforms, plain
from sparsetorch_kernels import watched


@dataclass(frozen=True)
class KeptFactors:
    """A matrix and its factors: `solve` has derivatives in the matrix's values and in r.

    Backward and forward, and under `torch.vmap` of r.
    """

    matrix: CSRTensor
    factors: Factorization

    @classmethod
    def of(cls, matrix: CSRTensor) -> Self:
        """The factors of a matrix on the CPU.

        Raises:
            SolveError: it is singular.
        """
        with outside_transforms():
            factors = factorized(CSRTensor(matrix.pattern, plain(matrix.values).detach()))
        return cls(matrix, factors)

    def solve(self, r: Tensor, transpose: bool = False) -> Tensor:
        """`A^-1 r`, or `A^-T r`, for r (n,) or (n, k)."""
        if not watched(r, self.matrix.values):
            return self.factors.solve(r, transpose=transpose)
        if transpose:
            return solve(self.matrix.T, r, self.factors.T)
        return solve(self.matrix, r, self.factors)
