"""Products of a sparse and a dense matrix in other semirings than (+, *).

Each stored entry sends a message along its edge, `a_ij x_j` or `a_ij + x_j`; each row reduces those
that it receives. Places that are not stored send nothing: this is the convention of graph networks
(PyG's `spmm(..., reduce=)`), and with "max" and "add" that of the tropical semiring.
The kernels compute messages where they are needed, forward and backward, and store none.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sparsetorch import algebra
from sparsetorch.csr import CSRTensor
from sparsetorch.reductions import check_ordered
from sparsetorch_kernels import HALF, spmm_extremum, spmm_logsumexp

Reduce = Literal["sum", "mean", "min", "max", "logsumexp"]
Combine = Literal["mul", "add"]


def spmm(A: CSRTensor, X: Tensor, reduce: Reduce = "sum", combine: Combine = "mul") -> Tensor:
    """`y_i = reduce over stored (i, j) of combine(a_ij, x_j)`; differentiable in A and X.

    Args:
        A: (*batch, n, m).
        X: (*batch, m, k); batches broadcast.
        reduce: "sum", "mean" (over stored entries), "min", "max" or "logsumexp". Where a minimum or
            maximum is reached several times, the gradient is shared equally; NaN is the result of
            what it is among. A mean in half precision is computed in float32 and rounded once.
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
    if reduce != "sum" and A.dtype in HALF:  # the sum may overflow where the mean does not
        return spmm(A.with_values(A.values.float()), X.float(), reduce, combine).to(A.dtype)
    if reduce in ("sum", "mean"):
        total = algebra.matmat(A._sparse, X) if combine == "mul" else _sum_of_sums(A, X)
        return total if reduce == "sum" else total / _lengths(A).unsqueeze(-1)
    check_ordered(f"reduce={reduce!r}", A.values)
    layout, add = A.pattern.layout, combine == "add"
    if reduce == "logsumexp":
        return spmm_logsumexp(layout, A.values, X, add=add)
    return spmm_extremum(layout, A.values, X, largest=reduce == "max", add=add)


def _sum_of_sums(A: CSRTensor, X: Tensor) -> Tensor:
    """Sum of `a_ij + x_j`: the row sums of A, and the product of its pattern with X."""
    ones = A.with_values(A.values.new_ones(A.nnz))
    return A.sum(-1).unsqueeze(-1) + ones @ X


def _lengths(A: CSRTensor) -> Tensor:
    """Entries of each row, or 1 where there are none."""
    return A.pattern.crow.diff().clamp(min=1).to(A.dtype)
