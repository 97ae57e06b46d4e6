"""Read matrices and vectors of PETSc's binary files.

A file is a row of objects in big-endian numbers. A vector: class id 1211214, length, values. A
matrix (AIJ): class id 1211216, rows, columns, number of entries, entries of each row, column
indices from zero, values. Integers have 4 or 8 bytes and scalars 8 or 16 (complex), as PETSc was
configured, which the file does not say: what makes the file end where its last object does is
taken. See PETSc's manual pages of MatLoad and VecLoad.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp

VECTOR, MATRIX = 1211214, 1211216
SCALARS = {"real": ">f8", "complex": ">c16"}


class _LayoutError(ValueError):
    """The bytes are not objects of the layout that was tried."""


def is_petsc_binary(path: str | Path) -> bool:
    """Whether a file starts like PETSc's binary files do."""
    with Path(path).open("rb") as file:
        head = file.read(8)
    return int.from_bytes(head[:4], "big") in (VECTOR, MATRIX) or (
        len(head) == 8 and int.from_bytes(head, "big") in (VECTOR, MATRIX)
    )


def load_petsc(path: str | Path, scalar: str | None = None) -> list[sp.csr_array | np.ndarray]:
    """Matrices (CSR) and vectors of a file that PETSc's MatView and VecView wrote, in their order.

    Args:
        path: the file.
        scalar: "real" or "complex"; None finds out by the file's length.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, or truncated; dense matrices, index sets and single precision
            are not read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path}")
    if scalar not in (None, *SCALARS):
        raise ValueError(f"scalar: expected 'real', 'complex' or None, got {scalar!r}")
    data = path.read_bytes()
    first = int.from_bytes(data[:4], "big")
    integer = ">i4" if first in (VECTOR, MATRIX) else ">i8"
    reasons = []
    for name in SCALARS if scalar is None else (scalar,):
        try:
            return _objects(data, integer, SCALARS[name])
        except _LayoutError as error:
            reasons.append(f"{name} values: {error}")
    raise ValueError(
        f"path: {path} is not a whole PETSc binary file of double-precision AIJ matrices and "
        f"vectors ({'; '.join(reasons)})"
    )


def _objects(data: bytes, integer: str, scalar: str) -> list[sp.csr_array | np.ndarray]:
    found: list[sp.csr_array | np.ndarray] = []
    position = 0

    def take(count: int, dtype: str) -> np.ndarray:
        nonlocal position
        if count < 0 or position + count * np.dtype(dtype).itemsize > len(data):
            raise _LayoutError(f"it ends within object {len(found)}")
        array = np.frombuffer(data, dtype, count, position)
        position += array.nbytes
        return array.astype(np.dtype(dtype).newbyteorder("="))

    while position < len(data):
        kind = int(take(1, integer)[0])
        if kind == VECTOR:
            found.append(take(int(take(1, integer)[0]), scalar))
        elif kind == MATRIX:
            rows, cols, nnz = (int(n) for n in take(3, integer))
            if nnz == -1:
                raise _LayoutError("a dense matrix")
            counts = take(rows, integer).astype(np.int64)
            indices = take(nnz, integer)
            values = take(nnz, scalar)
            if (counts < 0).any() or counts.sum() != nnz:
                raise _LayoutError(f"rows of object {len(found)} do not add up to {nnz} entries")
            if nnz and not 0 <= indices.min() <= indices.max() < cols:
                raise _LayoutError(f"column indices of object {len(found)} beyond {cols}")
            crow = np.concatenate([[0], np.cumsum(counts)])
            found.append(sp.csr_array((values, indices, crow), shape=(rows, cols)))
        else:
            raise _LayoutError(f"object {len(found)} has the class id {kind}")
    if not found:
        raise _LayoutError("it is empty")
    return found
