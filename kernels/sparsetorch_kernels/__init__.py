"""Differentiable kernels for CSR matrices whose structure is known apart from their values."""

from sparsetorch_kernels.cholesky.elimination import Elimination
from sparsetorch_kernels.cholesky.ops import (
    cholesky_factor,
    cholesky_inverse,
    cholesky_is_compiled,
    cholesky_solve,
    eliminate,
)
from sparsetorch_kernels.csr.backend import backend_info
from sparsetorch_kernels.csr.ops import sddmm, spgemm, spmm, spmv
from sparsetorch_kernels.csr.structure import spgemm_structure, transpose_structure
from sparsetorch_kernels.layout import Layout

__all__ = [
    "Elimination",
    "Layout",
    "backend_info",
    "cholesky_factor",
    "cholesky_inverse",
    "cholesky_is_compiled",
    "cholesky_solve",
    "eliminate",
    "sddmm",
    "spgemm",
    "spgemm_structure",
    "spmm",
    "spmv",
    "transpose_structure",
]
