"""Triangular solves by substitution, differentiable in the matrix and the right-hand side.

With x = T^-1 b and a gradient g of x: b gets T^-H g, and the values get -(T^-H g) x^H on the
triangle; the tangent is T^-1 (db - dT x). All of these are triangular solves and sparse products,
so derivatives of every order are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch import algebra
from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.dtypes import widened
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.triangles import triangle, triangle_levels
from sparsetorch_kernels import SingularTriangleError
from sparsetorch_kernels import solve_triangular as substitute


def solve_triangular(
    A: CSRTensor,
    b: Tensor,
    *,
    lower: bool = True,
    unit_diagonal: bool = False,
    transpose: bool = False,
) -> Tensor:
    """Solve T x = b, T the lower or upper triangle of A, by substitution.

    A: square, (*batch, n, n), of any floating or complex dtype; float16 and bfloat16 are solved in
    float32 and x is rounded once. b: a vector (n,), or matrices (*batch, n, k) of
    the same dtype; as in `A.matmul` only a 1-D b is a vector, and leading dimensions broadcast.
    lower: which triangle. unit_diagonal: take its diagonal as ones. transpose: solve T^T x = b,
    without a conjugate. Entries of the other triangle, and with unit_diagonal those of the
    diagonal, are ignored; their gradient is zero. A's triangle and its level sets are found once
    and kept on its pattern; where A has entries beyond the triangle, each call copies the values of
    the triangle.

    Differentiable in `A.values` and b any number of times, in reverse and forward mode, under
    `torch.vmap` and in compiled code (call it once before compiling). On the CPU in C++, on
    CUDA by cuSPARSE, on other devices level by level in PyTorch. Equivalent to
    `scipy.sparse.linalg.spsolve_triangular` and `torch.linalg.solve_triangular`.

    Returns x (*batch, n) for a vector, else (*batch, n, k).

    Raises:
        SolveError: an entry of the diagonal is zero or not stored; the first such row is named. (In
            compiled code the error is `sparsetorch_kernels.SingularTriangleError`.)
        TypeError: A is not a CSRTensor, b not a tensor, or dtypes differ or are not supported.
        ValueError: A is not square, or sizes, batches or devices do not fit.
    """
    if not isinstance(A, CSRTensor):
        raise TypeError(f"A: expected a CSRTensor, got {type(A).__name__}")
    n = A.shape[-1]
    if A.shape[-2] != n:
        raise ValueError(f"A: expected square matrices, got shape {tuple(A.shape)}")
    vector = isinstance(b, Tensor) and b.ndim == 1
    algebra.check_dense("b", A._sparse, b, -1 if vector else -2, n)
    part = triangle(A.pattern, lower=lower, strict=unit_diagonal)
    layout, levels = part.pattern.layout, triangle_levels(part.pattern, lower=lower)
    values, columns = part.of(widened(A.values)), widened(b.unsqueeze(-1) if vector else b)
    if transpose:
        layout, lower = layout.T, not lower
    if torch.compiler.is_compiling():
        x = substitute(layout, levels, values, columns, lower=lower, unit=unit_diagonal)
    else:
        try:
            x = substitute(layout, levels, values, columns, lower=lower, unit=unit_diagonal)
        except SingularTriangleError as error:
            raise SolveError(_singular(b, error.row)) from None
    x = x.to(b.dtype)
    return x.squeeze(-1) if vector else x


def _singular(b: Tensor, row: int) -> Solution:
    detail = f"the diagonal entry of row {row} is zero or not stored"
    return Solution(torch.full_like(b, float("nan")), Status.SINGULAR, 0, [], detail)
