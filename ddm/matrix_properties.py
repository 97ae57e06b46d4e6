"""What methods ask of the entries of a matrix: is it symmetric, is it an M-matrix?"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from sparsetorch import CSRTensor

ROUNDING = 1e-10  # of the largest entry; files with ten digits hold symmetric matrices, too


def is_symmetric(A: Any) -> bool:
    """Whether a square A, SciPy's or a CSRTensor, equals its transpose up to rounding."""
    matrix = _on_host(A)
    return bool(abs(matrix - matrix.T).max() <= ROUNDING * abs(matrix).max())


def is_hermitian(A: Any) -> bool:
    """Whether a square A, SciPy's or a CSRTensor, equals its conjugated transpose."""
    matrix = _on_host(A)
    if matrix.dtype.kind != "c":
        return is_symmetric(matrix)
    return bool(abs(matrix - matrix.conj().T).max() <= ROUNDING * abs(matrix).max())


def is_z_matrix(A: Any) -> bool:
    """Whether no entry off the diagonal of a real A is positive, but for rounding.

    The diffusion problems of this package then have M-matrices: add `has_nonnegative_rows`.
    """
    matrix = _on_host(A)
    off = matrix.indices != np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return not (matrix.data[off] > ROUNDING * abs(matrix).max()).any()


def has_nonnegative_rows(A: Any) -> bool:
    """Whether no row of a real A has a negative sum, but for rounding."""
    matrix = _on_host(A)
    return not (matrix.sum(axis=1) < -ROUNDING * abs(matrix).max()).any()


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
