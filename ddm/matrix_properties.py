"""What methods ask of a matrix: is it a CSRTensor, is it symmetric, is it an M-matrix?"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from sparsetorch import CSRTensor

ROUNDING = 1e-10
"""Of the largest entries of a row and a column: files with ten digits hold symmetric matrices, too.

A tolerance for the whole matrix would hide all of it behind one large entry, such as a penalty for
a boundary condition.
"""
UNITS = 8
"""Or so many units of rounding, see `rounding`, where that is more: a matrix summed in float32 has
row sums of -2 units and is asymmetric by 1, more where its element matrices are of float32, too.
"""


def check_matrix(name: str, value: object) -> None:
    """Raise TypeError unless a matrix is a CSRTensor."""
    if not isinstance(value, CSRTensor):
        raise TypeError(
            f"{name}: expected a CSRTensor, got {type(value).__name__}; CSRTensor.from_scipy makes "
            "one"
        )


def rounding(values: np.ndarray) -> float:
    """The unit of rounding that numbers come with, whatever their type became later.

    That of their type, or of float32 for values in float64 that are float32's: all of them are
    exact there, and more than a quarter of the distinct ones fill it, with more than 20 of its 24
    bits. Small whole numbers, such as those of a stencil, do not, and are exact.

    Args:
        values: numbers of any shape, such as the `data` of a SciPy matrix.
    """
    double, single = (float(np.finfo(dtype).eps) for dtype in (np.float64, np.float32))
    if values.dtype.kind not in "fc":
        return double
    if (own := float(np.finfo(values.dtype).eps)) > double:
        return own
    values = values.ravel()
    with np.errstate(over="ignore"):
        narrow = values.astype(np.complex64 if values.dtype.kind == "c" else np.float32)
    if (narrow != values).any():
        return double
    bits = np.unique(narrow.view(np.uint32) & 0x7FFFFFFF)  # without the sign
    return single if np.count_nonzero(bits & 0xF) > len(bits) / 4 else double


def tolerance(A: Any) -> float:
    """What counts as rounding in a SciPy matrix, relative to its entries."""
    return max(ROUNDING, UNITS * rounding(A.data))


def is_symmetric(A: Any) -> bool:
    """Whether a square A, SciPy's or a CSRTensor, equals its transpose up to rounding."""
    matrix = _on_host(A)
    return _small(matrix, matrix - matrix.T)


def is_hermitian(A: Any) -> bool:
    """Whether a square A, SciPy's or a CSRTensor, equals its conjugated transpose."""
    matrix = _on_host(A)
    return _small(matrix, matrix - matrix.conj().T)


def is_z_matrix(A: Any) -> bool:
    """Whether no entry off the diagonal of a real A is positive, but for rounding.

    The diffusion problems of this package then have M-matrices: add `has_nonnegative_rows`.
    """
    matrix = _on_host(A)
    entries = matrix.tocoo()
    positive = (entries.data > 0) & (entries.row != entries.col)
    part = entries.data[positive], (entries.row[positive], entries.col[positive])
    return _small(matrix, sp.coo_array(part, shape=matrix.shape))


def has_nonnegative_rows(A: Any) -> bool:
    """Whether no row of a real A has a negative sum, but for rounding."""
    matrix = _on_host(A)
    return not (matrix.sum(axis=1) < -tolerance(matrix) * largest(matrix)).any()


def _small(A: Any, difference: Any) -> bool:
    """Whether the entries of a difference are rounding beside those of A."""
    found, size = sp.coo_array(difference), largest(A)
    allowed = tolerance(A) * np.sqrt(size[found.row]) * np.sqrt(size[found.col])
    return not (abs(found.data) > allowed).any()


def largest(A: Any) -> np.ndarray:
    """The size of the largest entry of each row of a SciPy matrix, (n,)."""
    return np.asarray(abs(A).max(axis=1).todense()).ravel()


def positive_share(A: Any) -> float:
    """The sum of the positive entries off the diagonal of a real A, over that of all sizes there.

    0 for an M-matrix, and for a diagonal one.
    """
    matrix = _on_host(A)
    diagonal = matrix.diagonal()
    size = abs(matrix.data).sum() - abs(diagonal).sum()
    return float((matrix.data.sum() - diagonal.sum() + size) / (2 * size)) if size > 0 else 0.0


def _on_host(A: Any) -> Any:
    """A as SciPy's, in double precision: sums in float32 would add rounding of their own."""
    A = A.detach().to("cpu").to_scipy() if isinstance(A, CSRTensor) else A
    return sp.csr_array(A, dtype=np.result_type(A.dtype, np.float64))
