"""Whether a matrix equals its (conjugate) transpose, and which entry says that it does not."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.pattern import Pattern

# Two mirror images may differ by this many roundings of themselves, or of sqrt(a_ii a_jj), which
# bounds entry (i, j) of a positive definite matrix: Cholesky's own rounding is no smaller.
SYMMETRY_ROUNDINGS = 100


def is_hermitian(A: CSRTensor) -> bool:
    """Whether a square A is Hermitian, symmetric if it is real, but for rounding."""
    return A.pattern.is_symmetric and _asymmetric_entry(A) is None


def has_positive_diagonal(A: CSRTensor) -> bool:
    """Whether every diagonal entry of a square A is stored, with a positive real part."""
    rows, positions = A.pattern.diagonal
    diagonal = A.values.detach().index_select(0, positions)
    return len(rows) == A.shape[0] and bool((diagonal.real > 0).all())


def check_hermitian(A: CSRTensor) -> None:
    """Raise ValueError unless A is Hermitian, or symmetric if it is real, naming an entry."""
    kind, transpose = ("Hermitian", "H") if A.dtype.is_complex else ("symmetric", "T")
    if not A.pattern.is_symmetric:
        i, j = _unmatched_entry(A.pattern)
        raise ValueError(
            f"A: expected a {kind} matrix, but entry ({i}, {j}) is stored and ({j}, {i}) is "
            "not; both triangles are needed: of a lower one, L, make "
            f"L + L.{transpose} - CSRTensor.diag(L.diagonal()). For other matrices use method='lu'"
        )
    entry = _asymmetric_entry(A)
    if entry is not None:
        i, j = int(A.pattern.row[entry]), int(A.pattern.col[entry])
        a, b = A.values[entry].item(), A.values[_mirror(A.pattern)[entry]].item()
        raise ValueError(
            f"A: expected a {kind} matrix, but entry ({i}, {j}) is {a} and ({j}, {i}) is {b}; "
            f"take 0.5 * (A + A.{transpose}), or use method='lu'"
        )


def _mirror(pattern: Pattern) -> Tensor:
    mirror = pattern.layout.t_perm
    assert mirror is not None
    return mirror


def _asymmetric_entry(A: CSRTensor) -> int | None:
    """The first entry that differs from its conjugated mirror image by more than rounding."""
    values = A.values.detach()
    mirrored = values.index_select(0, _mirror(A.pattern)).conj()
    if torch.equal(values, mirrored):
        return None
    scale = A.detach().diagonal().abs().sqrt()
    scale = torch.maximum(scale[A.pattern.row] * scale[A.pattern.col], values.abs())
    rounding = SYMMETRY_ROUNDINGS * torch.finfo(values.dtype).eps
    differing = torch.nonzero((values - mirrored).abs() > rounding * scale)[:, 0]
    return int(differing[0]) if len(differing) else None


def _unmatched_entry(pattern: Pattern) -> tuple[int, int]:
    """The first entry (i, j) without an entry (j, i)."""
    row, col, n = pattern.row.long(), pattern.col.long(), pattern.shape[1]
    lonely = torch.nonzero(~torch.isin(row * n + col, col * n + row))[:, 0]
    return int(row[lonely[0]]), int(col[lonely[0]])
