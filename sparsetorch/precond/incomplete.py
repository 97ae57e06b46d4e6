"""ILU(0) and IC(0): Saad, Iterative Methods, section 10.3; Meijerink and van der Vorst (1977)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, conjugate, names
from sparsetorch.linalg.triangular import solve_triangular
from sparsetorch.precond.elimination import Equations, factorize
from sparsetorch.precond.hermitian import lower_triangle, whole
from sparsetorch.precond.jacobi import check_diagonal, check_square
from sparsetorch.precond.vectors import on_columns
from sparsetorch.structure import outside_transforms, plain, refuse_compiled
from sparsetorch.triangles import triangle
from sparsetorch_kernels.incomplete import PivotError


class ILU0:
    """The preconditioner z = (L U)^-1 r; made by `ilu0`.

    L: (n, n), unit lower triangular. U: (n, n), upper triangular. Both are stored on the pattern of
    the matrix, the ones of L included.
    """

    def __init__(self, L: CSRTensor, U: CSRTensor, transposed: bool = False):
        self.L = L
        self.U = U
        self._transposed = transposed

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n)."""
        return on_columns(self._solve, r)

    def _solve(self, r: Tensor) -> Tensor:
        if self._transposed:
            y = solve_triangular(self.U, r, lower=False, transpose=True)
            return solve_triangular(self.L, y, transpose=True)
        return solve_triangular(self.U, solve_triangular(self.L, r), lower=False)

    @property
    def T(self) -> ILU0:
        """The same for the transposed matrix: (L U)^-T, from the same factors."""
        return ILU0(self.L, self.U, not self._transposed)


class IC0:
    """The preconditioner z = (L L^H)^-1 r, Hermitian positive definite; made by `ic0`.

    L: (n, n), lower triangular, on the lower triangle of the matrix's pattern.
    """

    def __init__(self, L: CSRTensor):
        self.L = L

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n)."""
        return on_columns(self._solve, r)

    def _solve(self, r: Tensor) -> Tensor:
        y = solve_triangular(self.L, r)
        return conjugate(solve_triangular(self.L, conjugate(y), transpose=True))

    @property
    def T(self) -> IC0:
        """The transpose: this if it is real, else with the conjugate of L."""
        return IC0(self.L.conj()) if self.L.values.is_complex() else self


def ilu0(A: CSRTensor) -> ILU0:
    """Factorize A without fill: L U equals A on A's pattern, where alone L and U have entries.

    A: one square CSRTensor, float32, float64, complex64 or complex128, with its whole diagonal
    stored; for a system in half precision, factorize A.to(torch.float32). In C++ on the CPU,
    level by level in PyTorch elsewhere. What depends on the pattern is found once and kept on it.
    The factors, and the preconditioner applied outside a solver, are differentiable in `A.values`
    any number of times, in reverse and forward mode; applying it also in r. Rows are taken in their
    natural order, without pivoting. Equivalent to `scipy.sparse.linalg.spilu` where nothing is
    filled in or exchanged (Saad, algorithm 10.4).

    Raises:
        ValueError: A is a batch or not square, an entry of the diagonal is not stored, or a pivot
            is zero or NaN; the first such row is named.
        TypeError: A is not a CSRTensor of one of these dtypes.
    """
    refuse_compiled("ilu0")
    check_square(A)
    _check_dtype("ilu0", A)
    check_diagonal("ilu0", "A", A.pattern)
    try:
        factors = factorize(A.values, Equations(A.pattern, symmetric=False))
    except PivotError as error:
        raise ValueError(
            f"A: ilu0 meets a zero (or NaN) pivot in row {error.row}; reorder A, or factorize "
            "A.add_diagonal(d) with some d > 0 instead"
        ) from None
    lower, upper = (triangle(A.pattern, lower=which) for which in (True, False))
    diagonal = lower.pattern.diagonal.positions.long()
    L = CSRTensor(lower.pattern, lower.of(factors).index_fill(-1, diagonal, 1.0))
    return ILU0(L, CSRTensor(upper.pattern, upper.of(factors)))


def ic0(A: CSRTensor, *, shift: float = 0.0) -> IC0:
    """Factorize a Hermitian A without fill: L L^H equals A on the lower triangle of A's pattern.

    A: one square CSRTensor, float32, float64, complex64 or complex128, symmetric or Hermitian
    positive definite, with its whole diagonal stored. Only its lower triangle is read, and only
    that gets a gradient. shift: the diagonal is taken (1 + shift) times, for a matrix whose
    factorization breaks down otherwise (Manteuffel 1980); Hermitian H-matrices with a positive
    diagonal, such as a Poisson matrix in a magnetic field, never do. Where it runs and its
    derivatives are as those of `ilu0`, from whose factors a complex L is made: L D^(1/2) with the
    pivots D.

    Raises:
        ValueError: A is a batch or not square, an entry of the diagonal is not stored or not real,
            shift is negative, or the square of a pivot is not positive; the first such row is named
            (for complex A one of them).
        TypeError: A is not a CSRTensor of one of these dtypes.
    """
    refuse_compiled("ic0")
    check_square(A)
    _check_dtype("ic0", A)
    check_diagonal("ic0", "A", A.pattern)
    if not 0 <= shift < math.inf:
        raise ValueError(f"shift: expected a number of at least 0, got {shift}")
    lower = lower_triangle(A)
    if shift:
        diagonal = lower.pattern.diagonal.positions.long()
        ones = torch.ones_like(lower.values)
        lower = lower.with_values(lower.values * ones.index_fill(-1, diagonal, 1 + shift))
    try:
        return IC0(_hermitian_factor(lower) if A.values.is_complex() else _factor(lower))
    except PivotError as error:
        more = 2 * shift or 0.01
        raise ValueError(
            f"A: ic0 takes the root of a pivot that is not positive in row {error.row}: A is not "
            f"positive definite, or its incomplete factorization breaks down; try ic0(A, "
            f"shift={more:g}) and larger, or ilu0"
        ) from None


def _factor(lower: CSRTensor) -> CSRTensor:
    """The L of IC(0) of a real matrix from its lower triangle."""
    return lower.with_values(factorize(lower.values, Equations(lower.pattern, symmetric=True)))


def _hermitian_factor(lower: CSRTensor) -> CSRTensor:
    """The L of IC(0) of a complex matrix from its lower triangle: L D^(1/2) for L and D of ILU(0).

    L L^H is no holomorphic function of L, but L U is one of L and U, so that the derivatives of
    ILU(0), which are linear over the complex numbers, serve.
    """
    A = whole(lower)
    factors = factorize(A.values, Equations(A.pattern, symmetric=False))
    pivots = factors.index_select(-1, A.pattern.diagonal.positions.long()).real
    _refuse_negative(pivots)
    unit = triangle(A.pattern, lower=True).of(factors)
    unit = unit.index_fill(-1, lower.pattern.diagonal.positions.long(), 1.0)
    return lower.with_values(unit).scale_cols(pivots.sqrt().to(lower.dtype))


def _refuse_negative(pivots: Tensor) -> None:
    with outside_transforms():
        broken = torch.nonzero(~(plain(pivots) > 0))
    if len(broken):
        raise PivotError(int(broken[:, -1].min()))


def _check_dtype(name: str, A: CSRTensor) -> None:
    if A.dtype not in DEFAULT_RTOL:
        raise TypeError(
            f"A: {name} takes {names(DEFAULT_RTOL)}, got {A.dtype}; try A.to(torch.float32)"
        )
