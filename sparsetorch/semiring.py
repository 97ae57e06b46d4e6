"""Products of a sparse and a dense matrix in other semirings than (+, *).

Each stored entry sends a message along its edge, `a_ij x_j` or `a_ij + x_j`; each row reduces those
that it receives. Places that are not stored send nothing: this is the convention of graph networks
(PyG's `spmm(..., reduce=)`), and with "max" and "add" that of the tropical semiring.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sparsetorch import algebra
from sparsetorch.csr import CSRTensor
from sparsetorch.reductions import check_ordered
from sparsetorch_kernels import HALF
from sparsetorch_kernels import spmm as plus_times

Reduce = Literal["sum", "mean", "min", "max", "logsumexp"]
Combine = Literal["mul", "add"]


def spmm(A: CSRTensor, X: Tensor, reduce: Reduce = "sum", combine: Combine = "mul") -> Tensor:
    """`y_i = reduce over stored (i, j) of combine(a_ij, x_j)`; differentiable in A and X.

    Args:
        A: (*batch, n, m).
        X: (*batch, m, k); batches broadcast.
        reduce: "sum", "mean" (over stored entries), "min", "max" or "logsumexp". Where a minimum or
            maximum is reached several times, the gradient is shared equally. A mean in half
            precision is computed in float32 and rounded once.
        combine: "mul" for `a_ij x_j`, "add" for `a_ij + x_j`.

    Returns:
        (*batch, n, k). A row without entries is 0, but -inf for "logsumexp", which is the sum of
        nothing in that semiring. "sum" with "mul" is `A @ X`.

    Raises:
        ValueError: an unknown `reduce` or `combine`, or sizes or devices that do not fit.
        TypeError: dtypes that differ, or complex numbers where they have no order.
    """
    if not isinstance(A, CSRTensor):
        raise TypeError(f"A: expected a CSRTensor, got {type(A).__name__}")
    if reduce not in ("sum", "mean", "min", "max", "logsumexp"):
        raise ValueError(f"reduce: expected sum, mean, min, max or logsumexp, got {reduce!r}")
    if combine not in ("mul", "add"):
        raise ValueError(f"combine: expected 'mul' or 'add', got {combine!r}")
    algebra.check_dense("X", A._sparse, X, -2, A.pattern.shape[1])
    algebra.broadcast("X", A.values.shape[:-1], X.shape[:-2])
    if reduce == "mean" and A.dtype in HALF:  # the sum may overflow where the mean does not
        return spmm(A.to(torch.float32), X.float(), reduce, combine).to(A.dtype)
    if reduce in ("sum", "mean"):
        total = algebra.matmat(A._sparse, X) if combine == "mul" else _sum_of_sums(A, X)
        return total if reduce == "sum" else total / _lengths(A).unsqueeze(-1)
    check_ordered(f"reduce={reduce!r}", A.values)
    sent = X.index_select(-2, A.pattern.col)
    weight = A.values.unsqueeze(-1)
    messages = weight * sent if combine == "mul" else weight + sent  # (*batch, nnz, k)
    if reduce == "logsumexp":
        return _logsumexp(A, messages)
    return _extremum(A, messages, "amax" if reduce == "max" else "amin", empty=0.0)


def _sum_of_sums(A: CSRTensor, X: Tensor) -> Tensor:
    """Sum of `a_ij + x_j`: the row sums of A, and the product of its pattern with X."""
    ones = A.with_values(A.values.new_ones(A.nnz))
    return A.sum(-1).unsqueeze(-1) + ones @ X


def _lengths(A: CSRTensor) -> Tensor:
    """Entries of each row, or 1 where there are none."""
    return A.pattern.crow.diff().clamp(min=1).to(A.dtype)


def _extremum(A: CSRTensor, messages: Tensor, which: str, empty: float) -> Tensor:
    *batch, _, k = messages.shape
    index = A.pattern.row.long().unsqueeze(-1).expand(messages.shape)
    start = messages.new_full((*batch, A.pattern.shape[0], k), empty)
    return start.scatter_reduce(-2, index, messages, which, include_self=False)


def _logsumexp(A: CSRTensor, messages: Tensor) -> Tensor:
    # A shift that the result does not depend on: no gradient goes through it.
    largest = _extremum(A, messages.detach(), "amax", empty=float("-inf"))
    shift = torch.where(largest.isfinite(), largest, 0.0)
    shifted = messages - shift.index_select(-2, A.pattern.row)
    return _row_sums(A, shifted.exp()).log() + shift


def _row_sums(A: CSRTensor, messages: Tensor) -> Tensor:
    return plus_times(A.pattern.incidence, messages.new_ones(A.nnz), messages)
