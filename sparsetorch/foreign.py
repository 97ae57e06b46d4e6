"""Are the arrays of a SciPy matrix what they claim? SciPy's compiled code does not ask.

A pattern checks its own arrays; what is checked here is what SciPy is handed before there is one.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsetorch.structure import INT32_MAX


def check_scipy(matrix: Any) -> None:
    """Raise ValueError if index arrays of a SciPy matrix are out of order or out of range.

    SciPy's compiled routines trust them, and read and write memory that is not theirs.
    """
    try:
        match matrix.format:
            case "csr" | "csc" | "bsr":
                matrix.check_format(full_check=True)
            case "coo":
                _check_coo(matrix)
            case "dia":
                _check_dia(matrix)
            case "lil":
                _check_lil(matrix)
    except (ValueError, TypeError) as error:
        raise ValueError(f"matrix: its index arrays are not valid: {error}") from error


def _check_coo(matrix: Any) -> None:
    for axis, (index, size) in enumerate(zip(matrix.coords, matrix.shape)):
        _require(len(index) == len(matrix.data), "as many indices as values")
        inside = index.size == 0 or 0 <= index.min() <= index.max() < size
        _require(inside, f"indices from 0 to {size - 1} in dimension {axis}")


def _check_dia(matrix: Any) -> None:
    offsets = matrix.offsets
    _require(len(offsets) == len(matrix.data), "one offset for each diagonal")
    is_integer = isinstance(offsets, np.ndarray) and offsets.dtype.kind in "iu"
    _require(is_integer, "an array of integers as offsets")
    # A diagonal may be outside the matrix, but SciPy adds offsets to indices, which may overflow.
    limit = max(*matrix.shape, INT32_MAX)
    inside = offsets.size == 0 or -limit <= int(offsets.min()) <= int(offsets.max()) <= limit
    _require(inside, f"offsets from {-limit} to {limit}")


def _check_lil(matrix: Any) -> None:
    lengths = zip(map(len, matrix.rows), map(len, matrix.data))
    _require(all(a == b for a, b in lengths), "as many columns as values in each row")
    # Python's integers have no largest one: those beyond int64 make an array of objects.
    columns = np.array(list(chain.from_iterable(matrix.rows)))
    n_cols = matrix.shape[1]
    is_inside = columns.size == 0 or (
        columns.dtype.kind in "iu" and 0 <= columns.min() <= columns.max() < n_cols
    )
    _require(is_inside, f"integers from 0 to {n_cols - 1} as columns")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"expected {what}")


def checked_values(data: np.ndarray) -> Tensor:
    """A NumPy array as a tensor that shares its memory where that is contiguous.

    Raises:
        TypeError: a dtype that PyTorch lacks, such as longdouble.
    """
    try:
        return torch.from_numpy(np.ascontiguousarray(data))
    except TypeError as error:
        raise TypeError(
            f"matrix: its values are {data.dtype}, which PyTorch does not have; convert it with "
            "matrix.astype(numpy.float64)"
        ) from error
