"""The largest singular values of a sparse matrix: eigenpairs of the matrix with A in its corners.

The symmetric matrix [[0, A], [A^T, 0]] has eigenvalues +-s_i with vectors [u_i; +-v_i] / sqrt(2)
(Golub and Kahan 1965). Unlike A^T A it keeps all digits of the small ones, and derivatives come
from `eigsh`.
"""

from __future__ import annotations

import math
from typing import Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.dtypes import REAL
from sparsetorch.linalg.eigsh import eigsh
from sparsetorch.stacking import bmat
from sparsetorch.structure import outside_transforms, plain


class Options(TypedDict, total=False):
    """The options of `svds`, as it describes them."""

    which: Literal["LM"]
    v0: Tensor | None
    ncv: int | None
    maxiter: int | None
    tol: float
    adjoint_rtol: float | None


@overload
def svds(
    A: CSRTensor,
    k: int = ...,
    *,
    return_singular_vectors: Literal[False],
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def svds(
    A: CSRTensor,
    k: int = ...,
    *,
    return_singular_vectors: Literal[True] = ...,
    **options: Unpack[Options],
) -> tuple[Tensor, Tensor, Tensor]: ...
def svds(
    A: CSRTensor,
    k: int = 6,
    *,
    which: Literal["LM"] = "LM",
    v0: Tensor | None = None,
    ncv: int | None = None,
    maxiter: int | None = None,
    tol: float = 0.0,
    return_singular_vectors: bool = True,
    adjoint_rtol: float | None = None,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """The k largest singular values of A and their vectors; differentiable in `A.values`.

    A: one CSRTensor (m, n) of any shape, float32 or float64; k at most min(m, n), and fewer than
    m + n. which: "LM". v0: (m + n,), the start. The other options are those of `eigsh`, and so is
    what is said there about derivatives where values are equal. For the smallest singular values
    take the square roots of `eigsh(A.T @ A, k, sigma=0, ...)`, with half of the digits.

    Returns U (m, k), S (k,) *descending*, and Vh (k, n), as `torch.linalg.svd`; or S alone.
    `scipy.sparse.linalg.svds` returns the same in ascending order.

    Raises:
        SolveError: not all k converged, or a solve for a derivative failed.
        ValueError: a batch, k or an option out of range, or a matrix with fewer than k singular
            values that are not zero, whose vectors would be arbitrary.
        TypeError: A is not a CSRTensor of float32 or float64.
    """
    if not isinstance(A, CSRTensor) or A.dtype not in REAL:
        got = A.dtype if isinstance(A, CSRTensor) else type(A).__name__
        raise TypeError(f"A: expected a CSRTensor of float32 or float64, got {got}")
    if A.ndim != 2:
        raise ValueError(f"A: expected one matrix, got a batch of shape {tuple(A.shape[:-2])}")
    if which != "LM":
        raise ValueError(f"which: expected 'LM', got {which!r}; see the docstring for the smallest")
    m, n = A.shape
    if k != int(k) or not 1 <= k <= min(m, n) or k == m + n:
        raise ValueError(f"k: expected 1 <= k <= {min(m, n)} for shape {tuple(A.shape)}, got {k}")
    w, W = eigsh(
        bmat([[None, A], [A.T, None]]),
        k,
        which="LA",
        v0=v0,
        ncv=ncv,
        maxiter=maxiter,
        tol=tol,
        adjoint_rtol=adjoint_rtol,
    )
    S, W = w.flip(-1), W.flip(-1) * math.sqrt(2)
    _refuse_zeros(S.detach(), k, m + n)
    return (W[:m], S, W[m:].mT) if return_singular_vectors else S


def _refuse_zeros(S: Tensor, k: int, size: int) -> None:
    """Raise ValueError if the smallest of S is nothing but rounding."""
    with outside_transforms():
        values = plain(S)
        zeros = values <= size * torch.finfo(values.dtype).eps * values.amax()
        count = int(zeros.sum())
    if count:
        raise ValueError(
            f"k: {count} of the {k} largest singular values are zero to working precision, so that "
            f"their vectors are arbitrary; try k={k - count}"
        )
