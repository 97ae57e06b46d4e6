"""Differentiable kernels for CSR matrices whose structure is known apart from their values."""

from sparsetorch_kernels.csr.backend import backend_info
from sparsetorch_kernels.csr.ops import sddmm, spgemm, spmm, spmv
from sparsetorch_kernels.csr.structure import spgemm_structure, transpose_structure
from sparsetorch_kernels.layout import Layout
from sparsetorch_kernels.triangular.ops import solve_triangular
from sparsetorch_kernels.triangular.reference import SingularTriangleError
from sparsetorch_kernels.triangular.structure import level_sets

__all__ = [
    "Layout",
    "SingularTriangleError",
    "backend_info",
    "level_sets",
    "sddmm",
    "solve_triangular",
    "spgemm",
    "spgemm_structure",
    "spmm",
    "spmv",
    "transpose_structure",
]
