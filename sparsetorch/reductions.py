"""Reductions of sparse matrices over rows or columns, and the softmax of their stored entries.

Sums, means, maxima and norms are those of the dense matrix: what is not stored is zero and counts.
The softmax runs over stored entries only, as in `torch.sparse.softmax`. All are differentiable any
number of times. In half precision they are computed in float32 and rounded once: squares and sums
leave the range of float16 where the results do not.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from sparsetorch.algebra import Sparse
from sparsetorch.checks import checked_integer
from sparsetorch_kernels import HALF, spmv

Dim = int | tuple[int, ...] | list[int] | None
Order = int | float | Literal["fro"] | None


def total(A: Sparse, dim: Dim = None) -> Tensor:
    """Sum over rows and columns, see `CSRTensor.sum`."""
    reduced = _dimensions(A, dim)
    if reduced is None:
        return A.values.sum()
    if len(reduced) == 2:
        return A.values.sum(-1)
    layout = A.pattern.layout if reduced == (-1,) else A.pattern.layout.T
    return spmv(layout, A.values, A.values.new_ones(layout.n_cols))


def mean(A: Sparse, dim: Dim = None) -> Tensor:
    """The sum over the number of places, stored or not, see `CSRTensor.mean`."""
    reduced = _dimensions(A, dim)
    count = A.pattern.shape[0] * A.pattern.shape[1]
    if reduced is None:
        count *= A.values.shape[:-1].numel()
    elif len(reduced) == 1:
        count = A.pattern.shape[max(reduced)]
    return (total(_widened(A), dim) / count).to(A.values.dtype)


def extremum(A: Sparse, dim: Dim, which: str) -> Tensor:
    """Largest ("amax") or smallest ("amin") entry, see `CSRTensor.amax`."""
    check_ordered(which, A.values)
    reduced = _dimensions(A, dim)
    n_rows, n_cols = A.pattern.shape
    if reduced is None or len(reduced) == 2:
        if n_rows * n_cols == 0:
            raise ValueError(f"{which}: a matrix of shape {A.pattern.shape} has no entries")
        if reduced is None and A.values.shape[:-1].numel() == 0:
            raise ValueError(f"{which}: a batch of shape {tuple(A.values.shape[:-1])} has none")
        stored = A.values
        if A.pattern.nnz < n_rows * n_cols:
            stored = torch.cat([stored, stored.new_zeros(*stored.shape[:-1], 1)], -1)
        return getattr(stored, which)(tuple(range(stored.ndim)) if reduced is None else -1)
    index, n, length = _segments(A, max(reduced))
    if length == 0:
        raise ValueError(f"{which}: a matrix of shape {A.pattern.shape} has no entries to compare")
    counts = torch.bincount(index, minlength=n)
    lowest = float("-inf") if which == "amax" else float("inf")
    start = torch.where(counts < length, 0.0, lowest).to(A.values)
    batch = A.values.shape[:-1]
    return start.expand(*batch, n).scatter_reduce(
        -1, index.expand(*batch, -1), A.values, which, include_self=True
    )


def norm(A: Sparse, order: Order = None, dim: Dim = None) -> Tensor:
    """Norm of matrices, rows or columns, see `CSRTensor.norm`."""
    reduced = _dimensions(A, dim)
    if reduced is not None and len(reduced) == 1:
        return _vector_norm(A, order, max(reduced))
    if order in (None, "fro"):
        axes = None if reduced is None and order is None else -1
        _refuse_whole_batch(A, order, reduced)
        return torch.linalg.vector_norm(A.values, dim=axes)
    if order not in (1, math.inf):
        raise ValueError(
            f"ord: expected None, 'fro', 1 or inf for the norm of a matrix, got {order!r}; for "
            "that of rows or columns write A.norm(dim=-1) or A.norm(dim=-2), for the largest "
            "singular value linalg.svds(A, 1)"
        )
    _refuse_whole_batch(A, order, reduced)
    # The largest sum of a column for 1, of a row for inf; dim=(-1, -2) is the transpose's norm.
    turned = reduced == (-1, -2)
    sums = total(_magnitudes(A), -2 if (order == 1) != turned else -1)
    if sums.shape[-1] == 0:
        raise ValueError(f"norm: a matrix of shape {A.pattern.shape} has no sums to compare")
    return sums.amax(-1).to(A.values.real.dtype)


def _refuse_whole_batch(A: Sparse, order: Order, reduced: tuple[int, ...] | None) -> None:
    if order is not None and reduced is None and A.values.ndim > 1:
        raise ValueError(
            f"dim: expected (-2, -1) for the norms of a batch of matrices by ord={order!r}"
        )


def _vector_norm(A: Sparse, order: Order, axis: int) -> Tensor:
    """The norm of each row (axis -1) or column (-2)."""
    if order not in (None, 1, 2, math.inf):
        raise ValueError(f"ord: expected None, 1, 2 or inf along one dimension, got {order!r}")
    if order == math.inf:
        return extremum(_magnitudes(A), axis, "amax").to(A.values.real.dtype)
    if order == 1:
        return total(_magnitudes(A), axis).to(A.values.real.dtype)
    values = _widened(A).values
    squares = total(Sparse(A.pattern, (values * values.conj()).real), axis)
    # The root has no derivative at zero; the norm of an empty row or column stays zero.
    present = squares != 0  # and NaN stays NaN
    return (torch.where(present, squares, 1.0).sqrt() * present).to(A.values.real.dtype)


def _magnitudes(A: Sparse) -> Sparse:
    return Sparse(A.pattern, _widened(A).values.abs())


def with_dimensions(A: Sparse, result: Tensor, dim: Dim) -> Tensor:
    """A reduction with a size of 1 in the place of each dimension that it reduced (`keepdim`)."""
    reduced = _dimensions(A, dim)
    if reduced is None:
        return result.reshape((1,) * (A.values.ndim + 1))
    for axis in sorted(reduced, reverse=True):  # -1, then -2
        result = result.unsqueeze(axis)
    return result


def softmax(A: Sparse, dim: int = -1) -> Sparse:
    """`exp(a) / sum exp(a)` over the stored entries of each row (-1) or column (-2)."""
    check_ordered("softmax", A.values)
    reduced = _dimensions(A, dim)
    if reduced is None or len(reduced) > 1:
        raise ValueError(f"dim: expected rows (-1) or columns (-2), got {dim}")
    axis = max(reduced)
    index, n, _ = _segments(A, axis)
    values, batch = _widened(A).values, A.values.shape[:-1]
    # A shift that the result does not depend on: no gradient goes through it.
    largest = values.new_full((*batch, n), float("-inf")).scatter_reduce(
        -1, index.expand(*batch, -1), values.detach(), "amax"
    )
    weights = (values - largest.index_select(-1, index)).exp()
    sums = total(Sparse(A.pattern, weights), axis)
    return Sparse(A.pattern, (weights / sums.index_select(-1, index)).to(A.values.dtype))


def check_ordered(what: str, values: Tensor) -> None:
    """Raise TypeError for complex numbers."""
    if values.is_complex():
        raise TypeError(f"{what}: needs numbers with an order, got {values.dtype} (complex)")


def _widened(A: Sparse) -> Sparse:
    """The matrix in float32 if it is in half precision."""
    return Sparse(A.pattern, A.values.float()) if A.values.dtype in HALF else A


def _segments(A: Sparse, axis: int) -> tuple[Tensor, int, int]:
    """Row (axis -1) or column (-2) of each entry in int64, how many there are, and their length."""
    n_rows, n_cols = A.pattern.shape
    if axis == -1:
        return A.pattern.row.long(), n_rows, n_cols
    return A.pattern.col.long(), n_cols, n_rows


def _dimensions(A: Sparse, dim: Dim) -> tuple[int, ...] | None:
    """The dimensions to reduce, counted from the end; None for all, batches included.

    Raises:
        TypeError: a dimension that is no integer.
        ValueError: a dimension that is not one of the last two.
    """
    if dim is None:
        return None
    given = [checked_integer("dim", d) for d in (dim if isinstance(dim, tuple | list) else (dim,))]
    ndim = A.values.ndim + 1
    reduced = tuple(d - ndim if d >= 0 else d for d in given)
    if reduced not in ((-1,), (-2,), (-1, -2), (-2, -1)):
        raise ValueError(
            f"dim: expected one of the last two dimensions of a {ndim}-dimensional matrix, or "
            f"both, got {dim}"
        )
    return reduced
