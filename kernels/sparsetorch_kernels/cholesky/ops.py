"""The factorization's public functions: arguments checked, the fastest implementation chosen.

Nothing here has a gradient; `sparsetorch.linalg` differentiates solves and determinants as a whole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparsetorch_kernels import _native
from sparsetorch_kernels.cholesky import reference
from sparsetorch_kernels.cholesky.elimination import Elimination

_REAL = (torch.float32, torch.float64)


def eliminate(crow: Tensor, col: Tensor, mirror: Tensor, order: Tensor) -> Elimination:
    """The symbolic Cholesky factorization of a symmetric pattern, for a given order of columns.

    crow (n + 1,), col (nnz,): the pattern, both triangles, int32 or int64 on the CPU. mirror
    (nnz,): the entry (j, i) of each entry (i, j). order (n,): the column to eliminate k-th; it is
    refined to a postorder of the elimination tree, which leaves the number of entries as it is.
    Raises ValueError for sizes that do not fit and for an order that is no permutation.
    """
    n = crow.numel() - 1
    if mirror.shape != col.shape or order.shape != (n,):
        raise ValueError(
            f"expected mirror {tuple(col.shape)} and order ({n},), got {tuple(mirror.shape)} and "
            f"{tuple(order.shape)}"
        )
    order = order.long()
    if not _is_permutation(order.numpy()):
        raise ValueError(f"order: expected a permutation of 0 to {n - 1}")
    native = _native.ops()
    if native is None:
        return reference.eliminate(crow.long(), col.long(), mirror.long(), order)
    return Elimination(*native.eliminate(crow, col, mirror, order))


def order_by_minimum_degree(crow: Tensor, col: Tensor, mirror: Tensor) -> Tensor:
    """A fill-reducing order of the columns of a symmetric pattern, (n,) int64, for `eliminate`.

    crow (n + 1,), col (nnz,), mirror (nnz,) as in `eliminate`. Approximate minimum degree with
    element absorption, mass elimination and indistinguishable columns (Amestoy, Davis and Duff,
    SIAM J. Matrix Anal. Appl. 17, 1996). Connected components are ordered each on its own, in
    parallel; in each, a few columns with more than 10 sqrt(n) entries come last. The order depends
    on the arguments alone, not on the number of threads.

    Raises:
        TypeError: not int32 or int64.
        ValueError: sizes that do not fit, another device than the CPU, or a pattern that is not
            symmetric.
        RuntimeError: the C++ library, the only implementation, could not be compiled.
    """
    for name, index in (("crow", crow), ("col", col), ("mirror", mirror)):
        if index.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name}: expected torch.int32 or torch.int64, got {index.dtype}")
        if index.ndim != 1 or index.device.type != "cpu":
            raise ValueError(
                f"{name}: expected one dimension on the CPU, got shape {tuple(index.shape)} on "
                f"{index.device}"
            )
    if crow.numel() < 1:
        raise ValueError("crow: expected at least one entry, got none")
    if mirror.shape != col.shape:
        raise ValueError(f"mirror: expected {tuple(col.shape)}, got {tuple(mirror.shape)}")
    native = _native.ops()
    if native is None:
        raise RuntimeError(f"order_by_minimum_degree is compiled code: {_native.status()}")
    try:
        return native.minimum_degree(crow, col, mirror)
    except RuntimeError as error:
        if "the pattern is not symmetric" not in str(error):
            raise
        raise ValueError("crow, col, mirror: the pattern is not symmetric") from error


def cholesky_is_compiled() -> bool:
    """Whether the C++ kernels serve; the plain reference is slower than other libraries' LU."""
    return _native.ops() is not None


def _is_permutation(order: np.ndarray) -> bool:
    n = len(order)
    in_range = n == 0 or (order.min() >= 0 and order.max() < n)
    return in_range and bool((np.bincount(order, minlength=n) == 1).all())


def cholesky_factor(
    elimination: Elimination, values: Tensor, *, indefinite: bool = False
) -> tuple[Tensor, Tensor]:
    """The numeric factorization: the panels of L, and what stopped it.

    values (nnz,), float32 or float64; one triangle is read. indefinite: L S L^T instead of L L^T,
    with S the signs of L's diagonal: L D L^T whose L has its columns scaled by the roots of |D|.
    Pivots are not exchanged for its sake, so that rounding may be magnified; check the result.
    Returns (panels, failure): failure is (-1, 0), or the first column found whose pivot is not
    positive beyond rounding, that is not above eps times the diagonal entry, and that pivot; if
    indefinite, whose absolute value is not above eps times the largest entry of the row. Then the
    panels hold nothing of use. Raises TypeError or ValueError for values that do not fit.
    """
    _check("values", values, elimination.place.shape)
    native = _native.ops()
    if native is None:
        return reference.cholesky_factor(elimination, values, indefinite)
    return native.cholesky_factor(*elimination, values, indefinite)


def cholesky_solve(elimination: Elimination, panels: Tensor, b: Tensor) -> Tensor:
    """x with A x = b, both (n, k), from the panels of A's factor, of either kind.

    Raises TypeError or ValueError for arguments that do not fit.
    """
    _check("panels", panels, (elimination.size,))
    if b.ndim != 2:
        raise ValueError(f"b: expected (n, k), got shape {tuple(b.shape)}")
    _check("b", b, (elimination.n, b.shape[1]))
    if b.dtype != panels.dtype:
        raise TypeError(f"b: expected {panels.dtype} like the factor, got {b.dtype}")
    native = _native.ops()
    if native is None:
        return reference.cholesky_solve(elimination, panels, b)
    return native.cholesky_solve(*elimination[:5], panels, b)


def cholesky_inverse(elimination: Elimination, panels: Tensor) -> Tensor:
    """The entries of A^-1 where A's factor has its own, arranged like the factor's panels.

    `cholesky_inverse(...)[elimination.places]` are the entries on A's pattern. Takahashi's
    equations, at a small multiple of the factorization's cost; of either kind.
    Raises as `cholesky_solve`.
    """
    _check("panels", panels, (elimination.size,))
    native = _native.ops()
    if native is None:
        return reference.cholesky_inverse(elimination, panels)
    return native.cholesky_inverse(*elimination[:5], panels)


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.dtype not in _REAL:
        raise TypeError(f"{name}: expected torch.float32 or torch.float64, got {tensor.dtype}")
    if tensor.shape != shape or tensor.device.type != "cpu":
        raise ValueError(
            f"{name}: expected shape {tuple(shape)} on the CPU, got {tuple(tensor.shape)} on "
            f"{tensor.device}"
        )
