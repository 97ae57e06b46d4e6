"""The numeric half of sparse algebra: operations on values whose pattern is known.

A matrix appears here as a pattern and values (*batch, nnz); `CSRTensor` puts the two together. All
functions are differentiable any number of times in every tensor argument.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch.checks import check_tensor
from sparsetorch.pattern import Pattern, check_pattern, in_one_dtype
from sparsetorch_kernels import Layout, permute, sddmm, spgemm, spmm, spmv, watched


class Sparse(NamedTuple):
    """A sparse matrix, or a batch of them: one pattern, and values (*batch, nnz)."""

    pattern: Pattern
    values: Tensor


def matvec(A: Sparse, x: Tensor, *, transpose: bool = False) -> Tensor:
    """`A x`, or `A^T x`: x (*batch, n_cols) -> (*batch, n_rows); batches broadcast."""
    check_dense("x", A, x, -1, A.pattern.shape[0 if transpose else 1])
    return spmv(_layout(A, x, transpose), A.values, x)


def matmat(A: Sparse, X: Tensor, *, transpose: bool = False) -> Tensor:
    """`A X`, or `A^T X`: X (*batch, n_cols, k) -> (*batch, n_rows, k); batches broadcast."""
    check_dense("X", A, X, -2, A.pattern.shape[0 if transpose else 1])
    return spmm(_layout(A, X, transpose), A.values, X)


def _layout(A: Sparse, x: Tensor, transpose: bool) -> Layout:
    """The matrix, or its transpose, as the kernels take it; the other one where it is of use."""
    if transpose:
        return A.pattern.layout.T
    return A.pattern.layout if watched(A.values, x) else A.pattern.forward_layout


def product(A: Sparse, B: Sparse) -> Sparse:
    """`A B` as a sparse matrix; its structure is found once and kept on A's pattern."""
    _check_alike("@", A, B)
    if not watched(A.values, B.values):
        found = A.pattern.matmul_at_once(B.pattern, A.values, B.values)
        if found is not None:
            return Sparse(*found)
    pattern = A.pattern.matmul(B.pattern)
    return Sparse(pattern, _masked_product(A, B, pattern))


def masked_product(A: Sparse, B: Sparse, pattern: Pattern) -> Sparse:
    """The entries of `A B` on `pattern`; the others are never computed."""
    _check_alike("masked_matmul", A, B)
    _check_mask(pattern, (*A.pattern.shape, *B.pattern.shape))
    return Sparse(pattern, _masked_product(A, B, pattern))


def _masked_product(A: Sparse, B: Sparse, pattern: Pattern) -> Tensor:
    a, b, c = in_one_dtype(A.pattern, B.pattern, pattern)
    if watched(A.values, B.values):
        left, result = a.layout, c.layout
    else:
        left, result = a.forward_layout, c.forward_layout
    return spgemm(left, A.values, b.layout, B.values, result)


def sampled_product(U: Tensor, V: Tensor, pattern: Pattern) -> Sparse:
    """The entries of the dense product `U V`, (*batch, n, k) times (*batch, k, m), on `pattern`."""
    if U.ndim < 2 or V.ndim < 2:
        raise ValueError(
            f"masked_matmul: expected two matrices, got shapes {tuple(U.shape)}, {tuple(V.shape)}"
        )
    _check_mask(pattern, (*U.shape[-2:], *V.shape[-2:]))
    if U.dtype != V.dtype:
        raise TypeError(f"masked_matmul: the operands are {U.dtype} and {V.dtype}; convert one")
    return Sparse(pattern, sddmm(pattern.layout, U, V.mT))


def add(A: Sparse, B: Sparse) -> Sparse:
    """`A + B`; where the patterns differ, their union is found once and kept on A's pattern."""
    _check_alike("+", A, B)
    if A.pattern is B.pattern:
        broadcast("+", A.values.shape[:-1], B.values.shape[:-1])
        return Sparse(A.pattern, A.values + B.values)
    pattern, left, right = A.pattern.union(B.pattern)
    batch = broadcast("+", A.values.shape[:-1], B.values.shape[:-1])
    a = A.values.expand(*batch, -1)
    b = B.values.expand(*batch, -1)
    # Each index occurs once per call, so the sums have a fixed order on every device.
    values = a.new_zeros(*batch, pattern.nnz).index_add(-1, left, a).index_add(-1, right, b)
    return Sparse(pattern, values)


def scale_rows(A: Sparse, d: Tensor) -> Sparse:
    """`diag(d) A`, d (*batch, n_rows)."""
    check_dense("d", A, d, -1, A.pattern.shape[0])
    broadcast("d", A.values.shape[:-1], d.shape[:-1])
    return Sparse(A.pattern, A.values * d.index_select(-1, A.pattern.row))


def scale_cols(A: Sparse, d: Tensor) -> Sparse:
    """`A diag(d)`, d (*batch, n_cols)."""
    check_dense("d", A, d, -1, A.pattern.shape[1])
    broadcast("d", A.values.shape[:-1], d.shape[:-1])
    return Sparse(A.pattern, A.values * d.index_select(-1, A.pattern.col))


def hadamard(A: Sparse, B: Sparse) -> Sparse:
    """The product entry by entry, on the entries that both have."""
    _check_alike("*", A, B)
    broadcast("*", A.values.shape[:-1], B.values.shape[:-1])
    if A.pattern is B.pattern:
        return Sparse(A.pattern, A.values * B.values)
    pattern, left, right = A.pattern.intersection(B.pattern)
    values = A.values.index_select(-1, left) * B.values.index_select(-1, right)
    return Sparse(pattern, values)


def set_diagonal(A: Sparse, d: Tensor) -> Sparse:
    """A with another diagonal, d (*batch, min(n_rows, n_cols)), all of it stored."""
    check_diagonal(A, d)
    pattern, left, right = A.pattern.with_diagonal
    batch = broadcast("d", A.values.shape[:-1], d.shape[:-1])
    values = A.values.new_zeros(*batch, pattern.nnz)
    values = values.index_copy(-1, left.long(), A.values.expand(*batch, -1))
    return Sparse(pattern, values.index_copy(-1, right.long(), d.expand(*batch, -1)))


def check_diagonal(A: Sparse, d: Tensor) -> None:
    """Raise unless d is as long as the diagonal, with dtype and device of the matrix."""
    check_dense("d", A, d, -1, min(A.pattern.shape))
    broadcast("d", A.values.shape[:-1], d.shape[:-1])


def transpose(A: Sparse) -> Sparse:
    """`A^T`, with its values in the order of the transposed pattern."""
    order = A.pattern.layout.t_perm
    assert order is not None
    return Sparse(A.pattern.T, permute(A.values, order))


def diagonal(A: Sparse) -> Tensor:
    """The diagonal, (*batch, min(n_rows, n_cols)); zero where no entry is stored."""
    rows, positions = A.pattern.diagonal
    stored = A.values.index_select(-1, positions)
    if rows.shape[0] == min(A.pattern.shape):
        return stored
    zeros = stored.new_zeros(*stored.shape[:-1], min(A.pattern.shape))
    return zeros.index_add(-1, rows, stored)


def to_dense(A: Sparse) -> Tensor:
    """The dense matrix, (*batch, n_rows, n_cols)."""
    n_rows, n_cols = A.pattern.shape
    place = A.pattern.row.long() * n_cols + A.pattern.col
    zeros = A.values.new_zeros(*A.values.shape[:-1], n_rows * n_cols)
    return zeros.index_add(-1, place, A.values).unflatten(-1, (n_rows, n_cols))


def check_dense(name: str, A: Sparse, x: Tensor, axis: int, size: int) -> None:
    """Raise unless x has this size along an axis, and dtype and device of the matrix."""
    check_tensor(name, x)
    if x.ndim < -axis or x.shape[axis] != size:
        raise ValueError(
            f"{name}: expected size {size} in dimension {axis} for a matrix of shape "
            f"{A.pattern.shape}, got shape {tuple(x.shape)}"
        )
    _check_same(name, A.values, x)


def broadcast(name: str, left: torch.Size, right: torch.Size) -> torch.Size:
    """The batch that two operands broadcast to."""
    try:
        return torch.broadcast_shapes(left, right)
    except RuntimeError:
        raise ValueError(
            f"{name}: batches of shape {tuple(left)} and {tuple(right)} do not broadcast"
        ) from None


def _check_alike(operation: str, A: Sparse, B: Sparse) -> None:
    _check_same(operation, A.values, B.values)


def _check_same(name: str, values: Tensor, x: Tensor) -> None:
    if x.dtype != values.dtype:
        raise TypeError(
            f"{name}: the matrix is {values.dtype} and the other operand {x.dtype}; "
            "nothing is cast silently: convert one with .to(dtype)"
        )
    if x.device != values.device:
        raise ValueError(
            f"{name}: the matrix is on {values.device} and the other operand on {x.device}; "
            "move one with .to(device)"
        )


def _check_mask(pattern: Pattern, sizes: tuple[int, ...]) -> None:
    check_pattern("pattern", pattern)
    n, inner, other_inner, m = sizes
    if inner != other_inner or pattern.shape != (n, m):
        raise ValueError(
            f"masked_matmul: expected (n, k), (k, m) and a pattern of shape (n, m), got "
            f"{(n, inner)}, {(other_inner, m)} and {pattern.shape}"
        )
