"""Some of the entries of a sparse matrix."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import scipy.sparse as sp

Matrix = TypeVar("Matrix", sp.csr_array, sp.bsr_array)


def some_entries(A: Matrix, kept: np.ndarray) -> Matrix:
    """A CSR or BSR array with some of its entries or blocks.

    Args:
        A: the matrix.
        kept: bool, of each stored entry or block.
    """
    ends = np.concatenate([[0], np.cumsum(kept)])[A.indptr].astype(A.indptr.dtype)
    return type(A)((A.data[kept], A.indices[kept], ends), shape=A.shape)
