"""Factors of a matrix that are kept for many solves, with the gradients of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sparsetorch import CSRTensor
from sparsetorch.linalg import Factorization, factorized, solve


@dataclass(frozen=True)
class KeptFactors:
    """A matrix and its factors: `solve` is differentiable in the matrix's values and in r."""

    matrix: CSRTensor
    factors: Factorization

    @classmethod
    def of(cls, matrix: CSRTensor) -> Self:
        """The factors of a matrix on the CPU.

        Raises:
            SolveError: it is singular.
        """
        return cls(matrix, factorized(matrix.detach()))

    def solve(self, r: Tensor, transpose: bool = False) -> Tensor:
        """`A^-1 r`, or `A^-T r`, for r (n,) or (n, k)."""
        if torch.is_grad_enabled() and (r.requires_grad or self.matrix.values.requires_grad):
            if transpose:
                return solve(self.matrix.T, r, self.factors.T)
            return solve(self.matrix, r, self.factors)
        return self.factors.solve(r, transpose=transpose)
