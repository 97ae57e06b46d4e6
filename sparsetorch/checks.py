"""Is this a sparsity pattern, a tensor, a number? What every public way in asks."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsetorch.structure import INT64_MAX, expand_rows

Array = np.generic | np.ndarray | Tensor
Scalar = int | float | complex | np.number | Tensor
REMEDY = "; CSRTensor.from_coo sorts and sums entries that come in any order"


def checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """The shape as a tuple of two ints.

    Raises:
        ValueError: it is anything but two non-negative integers below 2^63.
    """
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    try:
        n_rows, n_cols = (operator.index(n) for n in sizes)
    except (TypeError, ValueError):
        raise ValueError(f"shape: expected (n_rows, n_cols), got {shape}") from None
    if min(n_rows, n_cols) < 0:
        raise ValueError(f"shape: expected (n_rows, n_cols), got {shape}")
    if max(n_rows, n_cols) > INT64_MAX:
        raise ValueError(f"shape: {shape} is more than int64 can count")
    return n_rows, n_cols


def check_tensor(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a tensor, got {type(value).__name__}; torch.as_tensor makes one"
        )


def check_integers(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless `tensor` is a 1-D int32 or int64 tensor."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.ndim != 1 or tensor.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"{name}: expected a 1-D int32 or int64 tensor, got {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}"
        )


def check_index(name: str, index: Tensor, size: int) -> None:
    """Raise ValueError unless `index` is a 1-D integer tensor with entries from 0 to size - 1."""
    check_integers(name, index)
    if index.is_meta:
        raise ValueError(f"{name}: expected indices, got a tensor on the meta device, without any")
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
        raise ValueError(
            f"{name}: expected indices from 0 to {size - 1}, got {int(index.min())} to "
            f"{int(index.max())}"
        )


def checked_pattern(crow: Tensor, col: Tensor, shape: tuple[int, int]) -> tuple[int, int]:
    """Check the arguments of a pattern, and return the shape as a tuple of ints.

    Raises:
        ValueError: naming the argument, what came, what was expected, and what to do.
    """
    shape = checked_shape(shape)
    check_compressed(crow, col, shape)
    place = unordered_entry(crow, col)
    if place is not None:
        row = expand_rows(crow, col.numel())
        raise ValueError(
            f"col: expected increasing, unique columns in each row, got {int(col[place])} before "
            f"{int(col[place + 1])} in row {int(row[place])}{REMEDY}"
        )
    return shape


def check_compressed(crow: Tensor, col: Tensor, shape: tuple[int, int]) -> None:
    """Check all of a CSR structure but the order of its columns.

    Raises:
        ValueError: naming the argument, what came, what was expected, and what to do.
    """
    check_integers("crow", crow)
    check_integers("col", col)
    if crow.device != col.device:
        raise ValueError(f"col: expected on {crow.device} like crow, got {col.device}")
    check_index("col", col, shape[1])
    _check_row_pointers(crow, shape[0], col.numel())


def _check_row_pointers(crow: Tensor, n_rows: int, nnz: int) -> None:
    if crow.numel() != n_rows + 1:
        raise ValueError(
            f"crow: expected {n_rows + 1} row pointers for {n_rows} rows, got {crow.numel()}"
        )
    if int(crow[0]) != 0 or int(crow[-1]) != nnz:
        raise ValueError(
            f"crow: expected to run from 0 to nnz = {nnz}, got {int(crow[0])} to {int(crow[-1])}"
        )
    lengths = crow.diff()
    if n_rows and int(lengths.min()) < 0:
        raise ValueError(
            f"crow: expected row pointers that never decrease, got {int(crow[lengths.argmin()])} "
            f"before {int(crow[lengths.argmin() + 1])} at row {int(lengths.argmin())}{REMEDY}"
        )


def unordered_entry(crow: Tensor, col: Tensor) -> int | None:
    """The first entry whose column is not below that of the next one in its row, if any."""
    row = expand_rows(crow, col.numel())
    unordered = (row[1:] == row[:-1]) & (col[1:] <= col[:-1])
    return int(unordered.int().argmax()) if bool(unordered.any()) else None


def check_count(name: str, value: float, unit: str, least: int = 1) -> int:
    """The value as an int, if it is a whole number of at least `least`: of iterations, of rows.

    3.0, NumPy's integers and 0-d tensors are whole numbers; True, NaN and infinity are not.

    Raises:
        TypeError: no number.
        ValueError: naming the argument, its unit and the value.
    """
    number = value.item() if isinstance(value, Array) and value.ndim == 0 else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}")
    is_finite = isinstance(number, int) or math.isfinite(number)
    if not is_finite or number != int(number) or number < least:
        raise ValueError(f"{name}: expected at least {least} {unit}, got {number}")
    return int(number)


def checked_integer(name: str, value: Any) -> int:
    """The value as an int: a dimension or an offset, of any sign.

    Raises:
        TypeError: it is no integer, or True or False.
    """
    index: Any = None if isinstance(value, bool) else value
    try:
        return operator.index(index)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None


def check_tolerance(name: str, tolerance: float) -> None:
    """Raise TypeError or ValueError unless a tolerance is a finite number of at least 0."""
    try:
        fits = 0 <= tolerance < math.inf
    except TypeError:
        kind = type(tolerance).__name__
        raise TypeError(f"{name}: expected a number of at least 0, got {kind}") from None
    if not fits:
        raise ValueError(f"{name}: expected a number of at least 0, got {tolerance}")


def checked_scalar(scalar: Scalar, device: torch.device) -> int | float | complex | Tensor:
    """What multiplies or divides a matrix: a number, or a 0-d tensor that may be on the CPU.

    Raises:
        TypeError: something else.
        ValueError: a tensor on another device.
    """
    if isinstance(scalar, np.number):
        return scalar.item()
    is_number = isinstance(scalar, int | float | complex)
    if not is_number and not (isinstance(scalar, Tensor) and scalar.ndim == 0):
        kind = type(scalar).__name__
        shape = f" of shape {tuple(scalar.shape)}" if isinstance(scalar, Tensor) else ""
        raise TypeError(
            f"expected a number or a 0-d tensor to scale a CSRTensor, got {kind}{shape}; use "
            "scale_rows or scale_cols for a vector, @ for a product of matrices"
        )
    if isinstance(scalar, Tensor) and scalar.device != device and scalar.device.type != "cpu":
        raise ValueError(
            f"the matrix is on {device} and what scales it on {scalar.device}; move one with "
            ".to(device)"
        )
    return scalar
