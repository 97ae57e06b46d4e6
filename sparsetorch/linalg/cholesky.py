"""Cholesky and LDL^T factorization on the CPU; the symbolic half is found once per pattern.

Hermitian matrices are factorized in their real form.
"""

from __future__ import annotations

import copy
from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.compiled_factors import compiled_factored_solve
from sparsetorch.linalg.dtypes import conjugate
from sparsetorch.linalg.factorization import Factorization
from sparsetorch.linalg.krylov import check_right_hand_side
from sparsetorch.linalg.real_form import complex_columns, real_columns, real_form
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.linalg.symmetry import check_hermitian
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import Elimination, cholesky_factor, cholesky_inverse, cholesky_solve

# LDL^T without exchanges may magnify rounding, and is made in float64 for that. Factors that lose
# more than half of its digits are refused; one step of refinement then restores the others (Skeel,
# Math. Comp. 35, 1980).
EPS = torch.finfo(torch.float64).eps
LARGEST_ERROR = EPS**0.5
ROUNDINGS = 16  # up to so many there is nothing to refine
# Takahashi's equations magnify the rounding again, and what they give cannot be refined. Of 460
# indefinite matrices (shifted Laplacians in 2-D and 3-D, magnetic ones, random and quasi-definite
# ones) those within about 90 roundings had entries right to 6e-9 of the largest; of those within
# 5000, some to 6e-7 only.
TAKAHASHI_ROUNDINGS = 100


class SymmetricFactorization(Factorization):
    """P A P^T = L S L^H, for a symmetric or, if complex, Hermitian matrix; S is diagonal, +-1."""

    def __init__(self, A: CSRTensor, panels: Tensor):
        self._A = A
        self._elimination = _elimination(A)
        self._panels = panels
        self._transposed = False

    @property
    def matrix(self) -> CSRTensor:
        """See `Factorization.matrix`."""
        return self._A.T if self._transposed else self._A

    def solve(self, b: Tensor, transpose: bool = False) -> Tensor:
        """See `Factorization.solve`; the transpose is the conjugate."""
        if torch.compiler.is_compiling():
            return compiled_factored_solve(self, b, transpose)
        check_right_hand_side(self._A, b)
        columns = b.detach() if b.ndim == 2 else b.detach()[:, None]
        if transpose != self._transposed:
            x = conjugate(self._solve(conjugate(columns)))
        else:
            x = self._solve(columns)
        return x if b.ndim == 2 else x[:, 0]

    def _solve(self, b: Tensor) -> Tensor:
        """x with A x = b, (n, k)."""
        columns = real_columns(b) if b.is_complex() else b
        x = cholesky_solve(self._elimination, self._panels, columns.to(self._panels.dtype))
        return (complex_columns(x) if b.is_complex() else x).to(b.dtype)

    @property
    def T(self) -> SymmetricFactorization:
        """The factorization of the transpose: the same factors, conjugated."""
        turned = copy.copy(self)
        turned._transposed = not self._transposed
        return turned

    @property
    def _pivots(self) -> Tensor:
        """(n,) the diagonal of L with the signs of S, in the matrix's order."""
        ordered = self._panels[self._elimination.diagonal]
        pivots = torch.empty_like(ordered).index_copy_(0, self._elimination.order, ordered)
        return pivots[::2] if self._A.dtype.is_complex else pivots

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """See `Factorization.slogdet`."""
        pivots = self._pivots
        logarithm = 2 * pivots.abs().log().sum()
        return pivots.sign().prod().to(self._A.dtype), logarithm.to(self._A.values.real.dtype)

    def inverse_entries(self) -> Tensor | None:
        """The entries of A^-1 on A's pattern, (nnz,); None where rounding has spoilt them."""
        inverse = cholesky_inverse(self._elimination, self._panels)[self._elimination.places]
        if self._A.dtype.is_complex:
            inverse = real_form(self._A.pattern).entries(inverse)
        return inverse.to(self._A.dtype)

    def _refactorized(self, A: CSRTensor) -> SymmetricFactorization:
        """Only arithmetic is left to do."""
        return self._of(A.T).T if self._transposed else self._of(A)

    @staticmethod
    @abstractmethod
    def _of(A: CSRTensor) -> SymmetricFactorization:
        """The factorization of another matrix."""


class Cholesky(SymmetricFactorization):
    """P A P^T = L L^H, for a positive definite matrix."""

    @staticmethod
    def _of(A: CSRTensor) -> Cholesky:
        return cholesky(A)


class LDLT(SymmetricFactorization):
    """P A P^T = L S L^H, for an indefinite matrix that needs no exchanges of rows; in float64."""

    def __init__(self, A: CSRTensor, panels: Tensor):
        super().__init__(A, panels)
        self._error = self._backward_error()
        if not self._error <= LARGEST_ERROR:
            raise _failure(A, Status.UNSTABLE, f"with the factors, residuals are {self._error:.1e}")

    def _solve(self, b: Tensor) -> Tensor:
        x = super()._solve(b)
        if self._error <= ROUNDINGS * torch.finfo(b.dtype).eps:
            return x
        return x + super()._solve(b - self._A @ x)

    def inverse_entries(self) -> Tensor | None:
        """See `SymmetricFactorization.inverse_entries`."""
        return super().inverse_entries() if self._error <= TAKAHASHI_ROUNDINGS * EPS else None

    @property
    def n_negative(self) -> int:
        """The number of negative eigenvalues, which is that of negative pivots (Sylvester)."""
        return int((self._pivots < 0).sum())

    def _backward_error(self) -> float:
        """|b - A x| / (|A| |x| + |b|), the largest norms, for a random b; 0 if there is none."""
        n, A = self._A.shape[0], self._A
        if n == 0:
            return 0.0
        A = A.to(torch.complex128 if A.dtype.is_complex else torch.float64)
        b = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 1))).to(A.values)
        x = super()._solve(b)
        size = A.map(torch.abs).sum(-1).max() * x.abs().max() + b.abs().max()
        return float((b - A @ x).abs().max() / size)

    @staticmethod
    def _of(A: CSRTensor) -> LDLT:
        return ldlt(A)


def cholesky(A: CSRTensor, *, checked: bool = False) -> Cholesky:
    """The Cholesky factors of a matrix; `checked`: known to be Hermitian. Errors: `factorized`."""
    return Cholesky(A, _panels(A, indefinite=False, checked=checked))


def ldlt(A: CSRTensor, *, checked: bool = False) -> LDLT:
    """The signed factors of an indefinite matrix; as `cholesky`."""
    return LDLT(A, _panels(A, indefinite=True, checked=checked))


def _panels(A: CSRTensor, *, indefinite: bool, checked: bool) -> Tensor:
    if not checked:
        check_hermitian(A)
    values, is_complex = A.values.detach(), A.dtype.is_complex
    if is_complex:
        values = real_form(A.pattern).values(values)
    if indefinite:
        values = values.double()
    panels, failure = cholesky_factor(_elimination(A), values, indefinite=indefinite)
    column, pivot = failure.tolist()
    if column >= 0:
        column = int(column) // 2 if is_complex else int(column)
        status = Status.UNSTABLE if indefinite else Status.INDEFINITE
        raise _failure(A, status, f"the pivot in column {column} is {pivot:.3g}")
    return panels


def symbolic(pattern: Pattern, dtype: torch.dtype) -> Elimination:
    """The symbolic factorization of matrices of this dtype, kept on their pattern."""
    return real_form(pattern).elimination if dtype.is_complex else pattern.elimination


def _elimination(A: CSRTensor) -> Elimination:
    return symbolic(A.pattern, A.dtype)


def _failure(A: CSRTensor, status: Status, detail: str) -> SolveError:
    x = A.values.new_full((A.shape[-1],), float("nan"))
    return SolveError(Solution(x, status, 0, [], detail))
