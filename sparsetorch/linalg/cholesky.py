"""Cholesky factorization on the CPU; its symbolic half is found once per pattern."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.compiled_factors import compiled_factored_solve
from sparsetorch.linalg.factorization import Factorization, check_finite, check_pattern
from sparsetorch.linalg.krylov import check_right_hand_side
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import cholesky_factor, cholesky_inverse, cholesky_solve

# Two mirror images may differ by this many roundings of sqrt(a_ii a_jj), which bounds entry (i, j)
# of a positive definite matrix; Cholesky's own rounding is no smaller.
SYMMETRY_ROUNDINGS = 100


class Cholesky(Factorization):
    """P A P^T = L L^T, for a symmetric positive definite matrix."""

    def __init__(self, A: CSRTensor, panels: Tensor):
        self._A = A
        self._elimination = A.pattern.elimination
        self._panels = panels

    def solve(self, b: Tensor, transpose: bool = False) -> Tensor:
        """See `Factorization.solve`; the transpose is the matrix itself."""
        if torch.compiler.is_compiling():
            return compiled_factored_solve(self, b, transpose)
        check_right_hand_side(self._A, b)
        columns = b.detach() if b.ndim == 2 else b.detach()[:, None]
        x = cholesky_solve(self._elimination, self._panels, columns)
        return x if b.ndim == 2 else x[:, 0]

    @property
    def T(self) -> Cholesky:
        """The same factorization: the matrix is symmetric."""
        return self

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """See `Factorization.slogdet`; the sign is 1."""
        diagonal = self._panels[self._elimination.diagonal]
        return diagonal.new_ones(()), 2 * diagonal.log().sum()

    def refactorized(self, A: CSRTensor) -> Cholesky:
        """See `Factorization.refactorized`; only arithmetic is left to do."""
        check_pattern(A, self._A)
        check_finite(A)
        return cholesky(A)

    def inverse_entries(self) -> Tensor:
        """The entries of A^-1 on A's pattern, (nnz,)."""
        inverse = cholesky_inverse(self._elimination, self._panels)
        return inverse[self._elimination.places]


def cholesky(A: CSRTensor) -> Cholesky:
    """The Cholesky factors of a matrix; see `factorized` for errors."""
    _check_symmetric(A)
    panels, failure = cholesky_factor(A.pattern.elimination, A.values.detach())
    column, pivot = failure.tolist()
    if column >= 0:
        detail = f"Cholesky's pivot in column {int(column)} is {pivot:.3g}"
        x = A.values.new_full((A.shape[-1],), float("nan"))
        raise SolveError(Solution(x, Status.INDEFINITE, 0, [], detail))
    return Cholesky(A, panels)


def may_be_positive_definite(A: CSRTensor) -> bool:
    """Whether A is real and symmetric with a positive diagonal."""
    if A.values.is_complex():
        return False
    rows, positions = A.pattern.diagonal
    return (
        len(rows) == A.shape[0]
        and bool((A.values.detach()[positions] > 0).all())
        and A.pattern.is_symmetric
        and _asymmetric_entry(A) is None
    )


def _check_symmetric(A: CSRTensor) -> None:
    if not A.pattern.is_symmetric:
        i, j = _unmatched_entry(A.pattern)
        raise ValueError(
            f"A: expected a symmetric matrix, but entry ({i}, {j}) is stored and ({j}, {i}) is "
            "not; Cholesky takes both triangles: of a lower one, L, make "
            "L + L.T - CSRTensor.diag(L.diagonal()). For other matrices use method='lu'"
        )
    entry = _asymmetric_entry(A)
    if entry is not None:
        i, j = int(A.pattern.row[entry]), int(A.pattern.col[entry])
        a, b = float(A.values[entry]), float(A.values[_mirror(A.pattern)[entry]])
        raise ValueError(
            f"A: expected a symmetric matrix, but entry ({i}, {j}) is {a} and ({j}, {i}) is {b}; "
            "symmetrize it, 0.5 * (A + A.T), or use method='lu'"
        )


def _mirror(pattern: Pattern) -> Tensor:
    mirror = pattern.layout.t_perm
    assert mirror is not None
    return mirror


def _asymmetric_entry(A: CSRTensor) -> int | None:
    """The first entry that differs from its mirror image by more than rounding."""
    values = A.values.detach()
    mirrored = values.index_select(0, _mirror(A.pattern))
    if torch.equal(values, mirrored):
        return None
    scale = A.detach().diagonal().abs().sqrt()
    rounding = SYMMETRY_ROUNDINGS * torch.finfo(values.dtype).eps
    allowed = rounding * scale[A.pattern.row] * scale[A.pattern.col]
    differing = torch.nonzero((values - mirrored).abs() > allowed)[:, 0]
    return int(differing[0]) if len(differing) else None


def _unmatched_entry(pattern: Pattern) -> tuple[int, int]:
    """The first entry (i, j) without an entry (j, i)."""
    row, col, n = pattern.row.long(), pattern.col.long(), pattern.shape[1]
    lonely = torch.nonzero(~torch.isin(row * n + col, col * n + row))[:, 0]
    return int(row[lonely[0]]), int(col[lonely[0]])
