"""Files: Matrix Market and SciPy's .npz.

What is written goes to a temporary name first and is renamed, so that an interrupted run leaves an
earlier file as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp
import torch

from sparsetorch.csr import CSRTensor
from sparsetorch.foreign import check_scipy
from sparsetorch.whole_files import replacing


def load(path: str | Path, dtype: torch.dtype | None = None) -> CSRTensor:
    """Read a matrix from a Matrix Market (.mtx, .mtx.gz) or SciPy .npz file.

    dtype: of the values, by default the file's. A pattern or integer file has float64 values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another ending, or not a complete file of its kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path}")
    read = _reader(path)
    try:
        matrix: Any = read(path)
        if not sp.issparse(matrix):  # a dense Matrix Market file
            matrix = sp.csr_array(matrix)
        check_scipy(matrix)
        if matrix.dtype.kind not in "fcbiu":
            raise ValueError(f"its values are {matrix.dtype}, not numbers")
    except Exception as error:
        raise ValueError(f"path: {path} cannot be read as {_ending(path)}: {error}") from error
    if dtype is None and matrix.dtype.kind not in "fc":
        dtype = torch.float64
    return CSRTensor.from_scipy(matrix, dtype)


def save(A: CSRTensor, path: str | Path) -> None:
    """Write one matrix to a Matrix Market (.mtx) or SciPy .npz file, without rounding.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: another ending, or a batch of matrices.
        TypeError: not a CSRTensor, or float16 or bfloat16 values, which SciPy does not write.
    """
    if not isinstance(A, CSRTensor):
        raise TypeError(f"A: expected a CSRTensor, got {type(A).__name__}")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: no folder {path.parent}")
    ending = _ending(path)
    if ending not in (".mtx", ".npz"):
        raise ValueError(f"path: expected a name that ends in .mtx or .npz, got {path.name!r}")
    matrix = A.to_scipy()
    with replacing(path, ending) as temporary:
        if ending == ".npz":
            sp.save_npz(temporary, matrix)
        else:
            digits = int(np.finfo(matrix.dtype).precision) + 3
            scipy.io.mmwrite(temporary, matrix, precision=digits, symmetry="general")


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((e for e in (".mtx.gz", ".mtx", ".npz") if name.endswith(e)), path.suffix)


def _reader(path: Path) -> Callable[[Path], object]:
    ending = _ending(path)
    if ending == ".npz":
        return _load_npz
    if ending in (".mtx", ".mtx.gz"):
        return lambda p: scipy.io.mmread(p, spmatrix=False)
    raise ValueError(f"path: expected a name that ends in .mtx, .mtx.gz or .npz, got {path.name!r}")


def _load_npz(path: Path) -> object:
    with np.load(path) as arrays:
        for name in {"indices", "indptr", "row", "col", "offsets"} & set(arrays.files):
            if arrays[name].dtype.kind not in "iu":  # which SciPy would cut to integers
                raise ValueError(f"{name} is {arrays[name].dtype}, not integer")
    return sp.load_npz(path)
