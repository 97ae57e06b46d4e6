"""What the factors of a matrix can do, whichever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor


class Factorization(ABC):
    """The factors of one square matrix, for any number of right-hand sides.

    Made by `factorized`. Calling it solves, so it is a preconditioner for nearby matrices; `T` is
    the factorization of the transpose, made of the same factors. Nothing here records gradients:
    `solve(A, b, factors)`, `logdet` and `slogdet` of `sparsetorch.linalg` do. On the CPU it can be
    pickled; an LU factorization is then made anew from the matrix as it was.
    """

    @property
    @abstractmethod
    def matrix(self) -> CSRTensor:
        """The matrix whose factors these are: a copy, without gradients."""

    @abstractmethod
    def solve(self, b: Tensor, transpose: bool = False) -> Tensor:
        """x with A x = b, or A^T x = b: (n,) or (n, k), like b. No gradients are recorded.

        Raises:
            TypeError, ValueError: b does not fit the matrix, or is not finite.
        """

    def __call__(self, b: Tensor) -> Tensor:
        """The solution of A x = b."""
        return self.solve(b)

    @property
    @abstractmethod
    def T(self) -> Factorization:
        """The factorization of the transposed matrix."""

    @abstractmethod
    def slogdet(self) -> tuple[Tensor, Tensor]:
        """The sign of the determinant and the logarithm of its absolute value, both 0-d."""

    def logdet(self) -> Tensor:
        """The logarithm of the determinant, 0-d; NaN where that is negative, as `torch.logdet`.

        Complex for a complex matrix.
        """
        sign, logarithm = self.slogdet()
        if sign.is_complex():
            return logarithm + sign.log()
        return logarithm.where(sign > 0, float("nan"))

    def refactorized(self, A: CSRTensor) -> Factorization:
        """Factors of other values on the same pattern, by the same method, in less time.

        What depends on structure alone, such as the order of elimination, is not found again.

        Raises:
            ValueError: A is on another pattern object, or has NaN or infinity among its values.
            SolveError: A is singular, or not positive definite where that is needed.
        """
        known = self.matrix
        if A.pattern is not known.pattern:
            raise ValueError(
                f"A: expected the pattern that was factorized, {known.pattern!r}, got another one, "
                f"{A.pattern!r}; make the matrix with known.with_values(values), or call "
                "factorized(A)"
            )
        check_finite(A)
        return self._refactorized(kept(A))

    @abstractmethod
    def _refactorized(self, A: CSRTensor) -> Factorization:
        """The factors of A, a copy, which has the pattern of `matrix` and finite values."""


class HalfFactorization(Factorization):
    """The factors, in float32, of a float16 or bfloat16 matrix.

    A right-hand side of that dtype is solved in float32 and x rounded once; one of float32, which
    is what a Krylov method in half precision hands its preconditioner, is answered in float32.
    """

    def __init__(self, A: CSRTensor, factors: Factorization):
        self._A = A
        self.wide = factors

    @property
    def matrix(self) -> CSRTensor:
        """See `Factorization.matrix`."""
        return self.wide.matrix.to(self._A.dtype)

    def solve(self, b: Tensor, transpose: bool = False) -> Tensor:
        """See `Factorization.solve`."""
        dtype = b.dtype if isinstance(b, Tensor) else None
        x = self.wide.solve(b.to(torch.float32) if dtype == self._A.dtype else b, transpose)
        return x.to(dtype)

    @property
    def T(self) -> HalfFactorization:
        """The factorization of the transposed matrix."""
        return HalfFactorization(self._A, self.wide.T)

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """See `Factorization.slogdet`; rounded once."""
        sign, logarithm = self.wide.slogdet()
        return sign.to(self._A.dtype), logarithm.to(self._A.dtype)

    def _refactorized(self, A: CSRTensor) -> HalfFactorization:
        return HalfFactorization(A, self.wide.refactorized(A.to(torch.float32)))


def kept(A: CSRTensor) -> CSRTensor:
    """A copy without gradients: what is factorized must not change with a training step."""
    return A.with_values(A.values.detach().clone())


def check_finite(A: CSRTensor) -> None:
    """Raise ValueError for NaN or infinity among the values."""
    if not bool(A.values.detach().isfinite().all()):
        raise ValueError("A.values: expected finite numbers, got NaN or infinity")
