"""What methods ask of the entries of a matrix: is it symmetric, is it an M-matrix?"""

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
    return not (matrix.sum(axis=1) < -ROUNDING * _largest(matrix)).any()


def _small(A: Any, difference: Any) -> bool:
    """Whether the entries of a difference are rounding beside those of A."""
    found, size = sp.coo_array(difference), _largest(A)
    allowed = ROUNDING * np.sqrt(size[found.row]) * np.sqrt(size[found.col])
    return not (abs(found.data) > allowed).any()


def _largest(A: Any) -> np.ndarray:
    """The size of the largest entry of each row, (n,)."""
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
    return A.detach().to("cpu").to_scipy() if isinstance(A, CSRTensor) else sp.csr_array(A)
