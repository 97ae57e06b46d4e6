"""Sparse approximate inverses on a given pattern, from many small dense problems.

SPAI (Grote and Huckle, SIAM J. Sci. Comput. 18, 1997; static patterns: Chow, SIAM J. Sci. Comput.
21, 2000): the M on a pattern with the smallest |A M - I| in the Frobenius norm. Each column m of M
is the least-squares solution of A[I, J] m_J = e[I], where J are the places of the column and I the
rows of A that have entries in the columns J.

FSAI (Kolotilina and Yeremin, SIAM J. Matrix Anal. Appl. 14, 1993): for a Hermitian positive
definite A, the lower triangular G on a pattern for which G A G^H has a unit diagonal and |I - G C|,
A = C C^H, is smallest up to scaling: each row g is y^H / sqrt(y_i), where A[J, J] y = e_i on the
places J of the row.

Problems of similar size are solved together by `torch.linalg`, differentiably.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, conjugate, names
from sparsetorch.linalg.full_precision import in_full_precision
from sparsetorch.pattern import Pattern
from sparsetorch.precond.hermitian import lower_triangle
from sparsetorch.precond.jacobi import check_diagonal, check_square
from sparsetorch.precond.small_problems import Group, Problems, grouped
from sparsetorch.structure import (
    expand_ranges,
    finding_structure,
    members,
    outside_transforms,
    refuse_compiled,
)
from sparsetorch.triangles import triangle


class FSAI:
    """The preconditioner z = G^H G r, Hermitian positive definite; made by `fsai`.

    G: (n, n), lower triangular with a positive diagonal.
    """

    def __init__(self, G: CSRTensor):
        self.G = G

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n)."""
        return conjugate(self.G.rmatvec(conjugate(self.G.matvec(r))))

    @property
    def T(self) -> FSAI:
        """The transpose: this if it is real, else with the conjugate of G."""
        return FSAI(self.G.conj()) if self.G.values.is_complex() else self


def spai(A: CSRTensor, pattern: Pattern | None = None) -> CSRTensor:
    """The M on a pattern for which |A M - I|, in the Frobenius norm, is smallest.

    A: one square CSRTensor, float32, float64, complex64 or complex128. pattern: that of M, A's own
    by default; that of A @ A gives a better and denser M. M is a matrix, to be looked at, pruned or
    trained further, and a preconditioner by itself: hand it to a solver as it is. Unlike the others
    it is not called: apply it as `M @ r`, or `M.matvec(r)` to r (..., n). In general it is not
    symmetric or Hermitian, even if A is: for CG take `fsai`. Differentiable in `A.values` any
    number of times. What depends on A's own pattern is found once and kept on it.

    Raises:
        ValueError: A is a batch or not square, the pattern does not fit, or columns of A are so
            dependent that a column of M is not unique; the first such column is named.
        TypeError: A is not a CSRTensor of one of these dtypes.
    """
    pattern = _checked("spai", A, pattern)
    groups = _kept(A.pattern, pattern, "least squares", _least_squares)
    values = A.values.new_zeros(pattern.nnz)
    for group in groups:
        with in_full_precision(A.device):
            solution = _least_squares_solution(group, A.values)
        values = values.index_copy(0, group.result, solution.flatten()[group.unknown])
    return CSRTensor(pattern, values)


def _least_squares_solution(group: Group, values: Tensor) -> Tensor:
    """The columns m_J of a group, (count, width, 1)."""
    q, r = torch.linalg.qr(group.matrices(values))
    _refuse_dependent(r.detach(), group.owner)
    right = q.mH @ group.right_hand_sides(values)
    return torch.linalg.solve_triangular(r, right, upper=True)


def fsai(A: CSRTensor, pattern: Pattern | None = None) -> FSAI:
    """The factorized approximate inverse G^H G of a Hermitian positive definite A.

    A: one square CSRTensor, float32, float64, complex64 or complex128. pattern: its lower triangle
    is that of G, with the whole diagonal; A's own by default. Never breaks down for a positive
    definite A, and the preconditioner is positive definite. Only A's lower triangle is read.
    Differentiable in `A.values` any number of times.

    Raises:
        ValueError: A is a batch or not square, the pattern does not fit, an entry of a diagonal is
            not stored, A's diagonal is not real, or a submatrix is not positive definite; the first
            row is named.
        TypeError: A is not a CSRTensor of one of these dtypes.
    """
    pattern = _checked("fsai", A, pattern)
    check_diagonal("fsai", "A", A.pattern)
    check_diagonal("fsai", "pattern", pattern)
    lower, part = triangle(pattern, lower=True), lower_triangle(A)
    groups = _kept(part.pattern, lower.pattern, "submatrices", _submatrices)
    values = part.values
    G = values.new_zeros(lower.pattern.nnz)
    for group in groups:
        below = group.matrices(values)
        factor, info = torch.linalg.cholesky_ex(below + below.tril(-1).mH)
        _refuse_indefinite(info, group.owner)
        y = torch.cholesky_solve(group.right_hand_sides(values), factor).squeeze(-1)
        last = y.gather(1, group.right[:, None])
        rows = conjugate(y) / last.real.sqrt()
        G = G.index_copy(0, group.result, rows.flatten()[group.unknown])
    return FSAI(CSRTensor(lower.pattern, G))


def _checked(name: str, A: CSRTensor, pattern: Pattern | None) -> Pattern:
    refuse_compiled(name)
    check_square(A)
    if A.dtype not in DEFAULT_RTOL:
        raise TypeError(f"A: expected {names(DEFAULT_RTOL)}, got {A.dtype}")
    if pattern is None:
        return A.pattern
    if pattern.shape != A.pattern.shape or pattern.device != A.device:
        raise ValueError(
            f"pattern: expected shape {A.pattern.shape} on {A.device} like A, got {pattern!r}"
        )
    return pattern


Find = Callable[[Pattern, Pattern], list[Group]]


def _kept(matrix: Pattern, inverse: Pattern, what: str, find: Find) -> list[Group]:
    """The groups, kept on the matrix's pattern if the inverse has the same."""
    if inverse is matrix:
        return matrix.kept(what, lambda pattern: find(pattern, pattern))
    with finding_structure(what):
        return find(matrix, inverse)


def _refuse_indefinite(info: Tensor, owner: Tensor) -> None:
    """Raise where one of the Cholesky factorizations (count,) failed."""
    with outside_transforms():
        broken = torch.nonzero(members(info))[:, -1]
        if len(broken):
            raise ValueError(
                "A: expected a positive definite matrix, but the submatrix of the entries in row "
                f"{int(owner[broken].min())} of G is not"
            )


def _refuse_dependent(r: Tensor, owner: Tensor) -> None:
    """Raise where a triangular factor (count, width, width) is singular to working precision."""
    with outside_transforms():
        r = members(r)
        if r.numel() == 0:
            return
        pivots = r.diagonal(dim1=-2, dim2=-1).abs()
        rounding = torch.finfo(r.dtype).eps * r.shape[-1]
        dependent = torch.nonzero(~(pivots.amin(-1) > rounding * pivots.amax(-1)))[:, -1]
        if len(dependent):
            raise ValueError(
                f"A: the columns of A at the places of column {int(owner[dependent].min())} of the "
                "inverse are linearly dependent (or not finite), so that it is not unique"
            )


def _least_squares(matrix: Pattern, inverse: Pattern) -> list[Group]:
    """For each column of the inverse, the rows of A with entries in the columns J."""
    by_column, by_column_A = inverse.layout, matrix.layout
    assert by_column.t_perm is not None
    assert by_column_A.t_perm is not None
    (t_crow, t_col), (t_crow_A, t_col_A) = by_column.transposed, by_column_A.transposed
    problem = torch.repeat_interleave(t_crow.diff().long())  # of each entry of M^T
    unknown = t_col.long()
    owner, place = _rows_of(t_crow_A, unknown)
    row, source = t_col_A[place].long(), by_column_A.t_perm[place].long()
    result = by_column.t_perm.long()
    return grouped(Problems(matrix.shape[0], problem, result, owner, row, source))


def _submatrices(matrix: Pattern, inverse: Pattern) -> list[Group]:
    """For each row of G, the lower triangle of A[J, J]."""
    problem, unknown = inverse.row.long(), inverse.col.long()
    owner, place = _rows_of(matrix.crow, unknown)  # rows j of A for j in J, columns up to j
    n = matrix.shape[1]
    keys = problem * n + unknown  # sorted: the rows of G in order
    wanted = problem[owner] * n + matrix.col[place].long()
    found = torch.searchsorted(keys, wanted).clamp(max=max(keys.numel() - 1, 0))
    inside = keys[found] == wanted
    owner, row, source = found[inside], unknown[owner[inside]], place[inside]
    result = torch.arange(len(problem), device=problem.device)
    return grouped(Problems(n, problem, result, owner, row, source))


def _rows_of(crow: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """The entries of the rows in a list, and to which member of the list each belongs."""
    starts = crow.long()
    return expand_ranges(starts[which], starts.diff()[which])
