"""Matrices for the kernel tests, and an independent dense form of each."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sparsetorch_kernels import Layout, transpose_structure

MIXED = (torch.int64, torch.int32)  # the dtypes of crow and col where entries outnumber int32


def layout_of(matrix, dtype: torch.dtype | tuple[torch.dtype, torch.dtype] = torch.int32) -> Layout:
    """The layout of a SciPy matrix, with indices of one dtype, or of crow and col.

    On the default device.
    """
    matrix = sparse.csr_array(matrix)
    matrix.sum_duplicates()
    n_rows, n_cols = matrix.shape  # pyright: ignore
    crow_dtype, col_dtype = dtype if isinstance(dtype, tuple) else (dtype, dtype)
    device = torch.get_default_device()
    crow = torch.from_numpy(matrix.indptr.copy()).to(device, crow_dtype)
    col = torch.from_numpy(matrix.indices.copy()).to(device, col_dtype)
    return Layout(crow, col, None, *transpose_structure(crow, col, n_cols), n_rows, n_cols)


def positions(layout: Layout) -> tuple[Tensor, Tensor]:
    """Row and column of each value, from crow and col of the base pattern alone.

    What the kernels do with permutations and transposes is thereby checked, not assumed.
    """
    if layout.perm is not None:
        row, col = positions(layout.T)
        return col, row
    row = torch.arange(layout.n_rows).repeat_interleave(layout.crow.diff())
    return row, layout.col.long()


def densify(layout: Layout, values: Tensor) -> Tensor:
    """Values (*b, nnz) as dense matrices (*b, n_rows, n_cols)."""
    row, col = positions(layout)
    shape = (*values.shape[:-1], layout.n_rows * layout.n_cols)
    flat = values.new_zeros(shape).index_copy(-1, row * layout.n_cols + col, values)
    return flat.reshape(*values.shape[:-1], layout.n_rows, layout.n_cols)


def sample(layout: Layout, dense: Tensor) -> Tensor:
    """The entries of dense matrices (*b, n_rows, n_cols) at a pattern, in the order of values."""
    row, col = positions(layout)
    return dense[..., row, col]


def relative_error(got: Tensor, want: Tensor) -> float:
    """rms(got - want) / rms(want), NaN included; absolute where the reference is zero."""
    assert got.shape == want.shape, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    if want.numel() == 0:
        return 0.0
    got, want = got.to(torch.complex128), want.to(torch.complex128)
    scale = want.abs().square().mean().sqrt().item()
    error = (got - want).abs().square().mean().sqrt().item()
    return error / scale if scale > 0 else error


def _random(n_rows: int, n_cols: int, density: float):
    return sparse.random_array((n_rows, n_cols), density=density, rng=np.random.default_rng(0))


def _with_empty_rows():
    matrix = _random(63, 50, 0.1).tolil()
    matrix[[0, 1, 20, 62]] = 0
    return matrix


def _with_a_huge_row():
    """Rows that are short but for one."""
    matrix = _random(40, 600, 0.002).tolil()
    matrix[17] = 1.0
    return matrix


def _stencil(n: int):
    eye, above = sparse.eye_array(n), sparse.eye_array(n, k=1)
    line = 2 * eye - above - above.T
    return sparse.kron(line, eye) + sparse.kron(eye, line)


SMALL = {
    "1x1": sparse.csr_array([[2.0]]),
    "empty": sparse.csr_array((6, 4)),
    "no rows": sparse.csr_array((0, 4)),
    "no columns": sparse.csr_array((4, 0)),
    "empty rows": _with_empty_rows(),  # 63 x 50
}
LARGE = {
    "63": _random(63, 63, 0.15),
    "500": _random(500, 40, 0.05),
    "huge row": _with_a_huge_row(),
    "stencil": _stencil(12),
}
