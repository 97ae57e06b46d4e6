"""Some singular values of a sparse matrix: eigenpairs of the matrix with A in its corners.

The Hermitian matrix [[0, A], [A^H, 0]] has eigenvalues +-s_i with vectors [u_i; +-v_i] / sqrt(2)
(Golub and Kahan 1965). Unlike A^H A it keeps all digits of the small ones, and derivatives come
from `eigsh`. It also has |m - n| eigenvalues of zero, which stand in the way of the smallest
singular values: for these A^H A has to do, unless A is square.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from sparsetorch.checks import check_count
from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.columns import unit_scale
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, conjugate, names
from sparsetorch.linalg.eigsh import eigsh
from sparsetorch.stacking import bmat
from sparsetorch.structure import outside_transforms, plain, refuse_compiled

Which = Literal["LM", "SM"]
Triplets = tuple[Tensor, Tensor, Tensor]  # U (m, k), S (k,), V (n, k)


class Options(TypedDict, total=False):
    """The options of `svds`, as it describes them."""

    which: Which
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
    which: Which = "LM",
    v0: Tensor | None = None,
    ncv: int | None = None,
    maxiter: int | None = None,
    tol: float = 0.0,
    return_singular_vectors: bool = True,
    adjoint_rtol: float | None = None,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """The k largest or smallest singular values of A and their vectors; differentiable.

    A: one CSRTensor (m, n) of any shape, of single or double precision, real or complex. which:
    "LM", the largest, k at most min(m, n) and fewer than m + n; or "SM", the smallest, k below
    min(m, n), by a factorization on the CPU. For a square A these have all their digits, but for
    another one, where they are square roots of eigenvalues of A^H A, an error of eps s_max^2 / s,
    so that none below sqrt(eps) s_max has a digit. v0: (m + n,), the start. The other options are
    those of `eigsh`, and so is what is said there about derivatives where values are equal.

    Returns U (m, k), S (k,) *descending* and real, and Vh (k, n), as `torch.linalg.svd`; or S
    alone. u and v share one sign, or complex phase: that which `eigsh` chooses for [u; v], or,
    where it is by A^H A, for the shorter of the two. `scipy.sparse.linalg.svds` returns the same in
    ascending order.

    Raises:
        SolveError: not all k converged, a solve for a derivative failed, or, for "SM", a singular
            value is zero.
        ValueError: a batch, k or an option out of range, a matrix with fewer than k singular values
            that are not zero, whose vectors would be arbitrary, or, for "SM", a k that counts some
            of several equal ones, or a matrix that is not on the CPU.
        TypeError: A is not a CSRTensor of single or double precision, or an option that should be a
            number is not.
    """
    refuse_compiled("svds")
    if not isinstance(A, CSRTensor) or A.dtype not in DEFAULT_RTOL:
        got = A.dtype if isinstance(A, CSRTensor) else type(A).__name__
        raise TypeError(f"A: expected a CSRTensor of {names(DEFAULT_RTOL)}, got {got}")
    if A.ndim != 2:
        raise ValueError(f"A: expected one matrix, got a batch of shape {tuple(A.shape[:-2])}")
    if which not in ("LM", "SM"):
        raise ValueError(f"which: expected 'LM' or 'SM', got {which!r}")
    m, n = A.shape
    most = min(m, n) - (which == "SM")
    k = check_count("k", k, "singular value")
    if k > most or k == m + n:
        every = "; torch.linalg.svd(A.to_dense()) finds all" if which == "SM" else ""
        raise ValueError(f"k: expected 1 <= k <= {most} for shape {tuple(A.shape)}, got {k}{every}")
    if which == "SM" and A.device.type != "cpu":
        raise ValueError(f"which: 'SM' needs a factorization, on the CPU, got {A.device}")
    options: Any = {"ncv": ncv, "maxiter": maxiter, "tol": tol, "adjoint_rtol": adjoint_rtol}
    size = unit_scale(A.values)  # A^H A would leave the range of the dtype sooner than A does
    A = A / size
    if which == "LM":
        w, W = eigsh(_cornered(A), k, which="LA", v0=v0, **options)
        S, W = w.flip(-1), W.flip(-1) * math.sqrt(2)
        _refuse_zeros(S.detach(), k, m + n)
        U, V = W[:m], W[m:]
    elif m == n:
        U, S, V = _smallest_of_square(A, k, v0, options)
    elif m > n:
        U, S, V = _smallest_by_gram(A, k, None if v0 is None else v0[m:], options)
    else:
        V, S, U = _smallest_by_gram(A.H, k, None if v0 is None else v0[:m], options)
    S = S * size
    return (U, S, conjugate(V).mT) if return_singular_vectors else S


def _cornered(A: CSRTensor) -> CSRTensor:
    return bmat([[None, A], [A.H, None]])


def _smallest_of_square(A: CSRTensor, k: int, v0: Tensor | None, options: Any) -> Triplets:
    """The eigenvalues around zero: the k smallest singular values with either sign."""
    w, W = eigsh(_cornered(A), 2 * k, sigma=0.0, v0=v0, **options)
    values = w.detach()
    with outside_transforms():
        positive = int((plain(values) > 0).sum(-1).min())
    if positive != k:
        raise ValueError(
            f"k: the smallest singular values are equal, and k={k} counts some of them only"
        )
    S, W = w[k:].flip(-1), W[:, k:].flip(-1) * math.sqrt(2)
    return W[: A.shape[0]], S, W[A.shape[0] :]


def _smallest_by_gram(A: CSRTensor, k: int, v0: Tensor | None, options: Any) -> Triplets:
    """For an A with more rows than columns: the vectors v of A^H A, and u = A v / s."""
    w, V = eigsh(A.H @ A, k, sigma=0.0, v0=v0, **options)
    values = w.detach()
    with outside_transforms():
        smallest = float(plain(values).min())
    if not smallest > 0:
        raise ValueError("A: its smallest singular value is zero to working precision")
    S, V = w.flip(-1).sqrt(), V.flip(-1)
    return (A @ V) / S, S, V


def _refuse_zeros(S: Tensor, k: int, size: int) -> None:
    """Raise ValueError if the smallest of S is nothing but rounding."""
    with outside_transforms():
        values = plain(S)
        zeros = values <= size * torch.finfo(values.dtype).eps * values.amax()
        count = int(zeros.sum())
    if count:
        raise ValueError(
            f"k: {count} of the {k} largest singular values are zero to working precision, so that "
            f"their vectors are arbitrary" + (f"; try k={k - count}" if count < k else "")
        )
