"""Successive over-relaxation: Saad, Iterative Methods, sections 4.1 and 10.2; Young (1971).

For A = D + L + U (the diagonal and the strict triangles), one sweep from zero with the matrix A is

    SOR, forward:   z = omega (D + omega L)^-1 r
    SSOR, forward and backward:   z = omega (2 - omega) (D + omega U)^-1 D (D + omega L)^-1 r
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.triangular import solve_triangular
from sparsetorch.precond.jacobi import Jacobi, copied
from sparsetorch.precond.vectors import on_columns
from sparsetorch.triangles import triangle


class SOR:
    """The preconditioner z = omega (D + omega L)^-1 r; made by `sor`.

    lower: D + omega L, (n, n).
    """

    def __init__(self, lower: CSRTensor, omega: float, transposed: bool = False):
        self.lower = lower
        self.omega = omega
        self._transposed = transposed

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n)."""
        return on_columns(self._solve, r)

    def _solve(self, r: Tensor) -> Tensor:
        return self.omega * solve_triangular(self.lower, r, transpose=self._transposed)

    @property
    def T(self) -> SOR:
        """The transpose: for a symmetric matrix, the sweep in the other direction."""
        return SOR(self.lower, self.omega, not self._transposed)


class SSOR:
    """The preconditioner z = omega (2 - omega) (D + omega U)^-1 D (D + omega L)^-1 r.

    Symmetric positive definite if the matrix is. lower: D + omega L, upper: D + omega U, (n, n).
    diagonal: (n,). Made by `ssor`.
    """

    def __init__(
        self,
        lower: CSRTensor,
        upper: CSRTensor,
        diagonal: Tensor,
        omega: float,
        transposed: bool = False,
    ):
        self.lower = lower
        self.upper = upper
        self.diagonal = diagonal
        self.omega = omega
        self._transposed = transposed

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n)."""
        return on_columns(self._solve, r)

    def _solve(self, r: Tensor) -> Tensor:
        scale = self.omega * (2 - self.omega) * self.diagonal
        scale = scale if r.ndim == 1 else scale[:, None]
        if self._transposed:
            y = solve_triangular(self.upper, r, lower=False, transpose=True)
            return solve_triangular(self.lower, scale * y, transpose=True)
        return solve_triangular(self.upper, scale * solve_triangular(self.lower, r), lower=False)

    @property
    def T(self) -> SSOR:
        """The same for the transposed matrix."""
        flipped = not self._transposed
        return SSOR(self.lower, self.upper, self.diagonal, self.omega, flipped)


def sor(A: CSRTensor, omega: float = 1.0) -> SOR:
    """One forward sweep of successive over-relaxation; omega = 1 is Gauss-Seidel.

    A: one square CSRTensor, not in half precision. omega: 0 < omega < 2. Not symmetric: for GMRES
    and BiCGSTAB. Applied outside a solver it is differentiable in `A.values` and r.

    Raises:
        ValueError: A is a batch or not square, its diagonal has a zero, or omega is out of range.
        TypeError: A is not a CSRTensor.
    """
    _check(A, omega)
    return SOR(_relaxed(A, omega, lower=True), omega)


def ssor(A: CSRTensor, omega: float = 1.0) -> SSOR:
    """One symmetric sweep of over-relaxation; omega = 1 is symmetric Gauss-Seidel.

    A: one square CSRTensor, not in half precision; symmetric (Hermitian if complex) positive
    definite for a preconditioner that is, and that serves CG. omega: 0 < omega < 2. A good omega,
    on an n x n grid near 2 / (1 + pi / n), lets CG take as many iterations as sqrt(n) instead of n
    (Axelsson 1972). Applied outside a solver it is differentiable in `A.values` and r.

    Raises:
        ValueError: A is a batch or not square, its diagonal has a zero, or omega is out of range.
        TypeError: A is not a CSRTensor.
    """
    _check(A, omega)
    lower, upper = (_relaxed(A, omega, lower=which) for which in (True, False))
    return SSOR(lower, upper, A.diagonal(), omega)


def _check(A: CSRTensor, omega: float) -> None:
    Jacobi(A)  # refuses what has no diagonal to divide by
    if not 0 < omega < 2:
        raise ValueError(f"omega: expected 0 < omega < 2, got {omega}")


def _relaxed(A: CSRTensor, omega: float, *, lower: bool) -> CSRTensor:
    """D + omega L, or D + omega U."""
    pattern, positions = part = triangle(A.pattern, lower=lower)
    values = copied(A).values if positions is None else part.of(A.values)
    if omega != 1:
        factor = torch.full((pattern.nnz,), omega, dtype=A.dtype, device=A.device)
        values = values * factor.index_fill(0, pattern.diagonal.positions.long(), 1.0)
    return CSRTensor(pattern, values)
