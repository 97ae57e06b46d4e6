"""Random sparse matrices, and the dense matrices that they stand for."""

import torch
from torch import Tensor

from sparsetorch import CSRTensor, Pattern

MIXED = "int32 columns, int64 row pointers"
IndexDtype = torch.dtype | str | None


def random_pattern(
    n: int, m: int, density: float, seed: int, index_dtype: IndexDtype = None
) -> Pattern:
    """Each place is stored with probability `density`; empty rows and columns do occur."""
    generator = torch.Generator().manual_seed(seed)
    stored = torch.rand(n, m, generator=generator) < density
    col = stored.nonzero()[:, 1]
    crow = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
    if index_dtype == MIXED:
        return Pattern(crow, col, (n, m), crow_dtype=torch.int64)
    assert not isinstance(index_dtype, str)
    return Pattern(crow, col, (n, m), index_dtype)


def random_csr(
    n: int,
    m: int,
    density: float = 0.4,
    seed: int = 0,
    *,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    index_dtype: IndexDtype = None,
) -> CSRTensor:
    pattern = random_pattern(n, m, density, seed, index_dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    kind = torch.complex128 if dtype.is_complex else torch.float64
    values = torch.randn(*batch, pattern.nnz, generator=generator, dtype=kind)
    return CSRTensor(pattern, values.to(dtype).requires_grad_())


def random_square(n: int, seed: int = 0, *, symmetric: bool = False) -> CSRTensor:
    """Well conditioned; symmetric positive definite if `symmetric`, else in no way symmetric."""
    stored = random_pattern(n, n, 0.3, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    dense = torch.zeros(n, n, dtype=torch.float64)
    dense[stored.row, stored.col] = torch.randn(
        stored.nnz, generator=generator, dtype=torch.float64
    )
    if symmetric:
        dense = dense + dense.T
    dense = dense / dense.abs().sum(1).max().clamp(min=1) + torch.eye(n, dtype=torch.float64)
    return CSRTensor.from_dense(dense).requires_grad_()


def dense(A: CSRTensor) -> Tensor:
    """The dense matrix, differentiable, by other means than `A.to_dense()`."""
    row, col = A.pattern.row.long(), A.pattern.col.long()
    zeros = A.values.new_zeros(A.shape)
    place = row * A.shape[-1] + col
    return zeros.flatten(-2).index_copy(-1, place, A.values).reshape(A.shape)


def random_complex(
    n: int, kind: str = "general", seed: int = 0, dtype: torch.dtype = torch.complex128
) -> CSRTensor:
    """Well conditioned and complex: "general", "positive" definite, "hermitian" or "symmetric"."""
    stored = random_pattern(n, n, 0.3, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    dense = torch.zeros(n, n, dtype=torch.complex128)
    dense[stored.row, stored.col] = torch.randn(
        stored.nnz, generator=generator, dtype=torch.complex128
    )
    if kind == "symmetric":
        dense = dense + dense.T
    elif kind != "general":
        dense = dense + dense.mH
    dense = 0.9 * dense / dense.abs().sum(1).max().clamp(min=1)
    signs = torch.ones(n, dtype=torch.complex128)
    if kind == "hermitian":
        signs[::2] = -1
    return CSRTensor.from_dense((dense + signs.diag()).to(dtype)).requires_grad_()
