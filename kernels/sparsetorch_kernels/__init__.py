"""Differentiable kernels for CSR matrices whose structure is known apart from their values."""

from sparsetorch_kernels._register import watched
from sparsetorch_kernels.autocast import as_given, autocasts
from sparsetorch_kernels.cholesky.elimination import Elimination
from sparsetorch_kernels.cholesky.ops import (
    cholesky_factor,
    cholesky_inverse,
    cholesky_is_compiled,
    cholesky_solve,
    eliminate,
    order_by_minimum_degree,
)
from sparsetorch_kernels.csr.at_once import spgemm_at_once
from sparsetorch_kernels.csr.backend import backend_info
from sparsetorch_kernels.csr.checks import HALF
from sparsetorch_kernels.csr.ops import sddmm, spgemm, spmm, spmv
from sparsetorch_kernels.csr.structure import (
    find_entries,
    principal_blocks,
    spgemm_structure,
    transpose_structure,
)
from sparsetorch_kernels.forward_mode import nestable
from sparsetorch_kernels.layout import Layout, forward_layout
from sparsetorch_kernels.moe.ops import few_tokens_mlp, grouped_mlp, routed_mlp
from sparsetorch_kernels.moe.squared_relu import squared_relu
from sparsetorch_kernels.norm.ops import gated_rms_norm, rms_norm
from sparsetorch_kernels.permute import permute
from sparsetorch_kernels.semiring.ops import spmm_extremum, spmm_logsumexp
from sparsetorch_kernels.ssd.conv import causal_conv, causal_conv_step
from sparsetorch_kernels.ssd.mixer_step import mamba2_step
from sparsetorch_kernels.ssd.ops import ssd_scan, ssd_step
from sparsetorch_kernels.triangular.ops import solve_triangular
from sparsetorch_kernels.triangular.reference import SingularTriangleError
from sparsetorch_kernels.triangular.structure import level_sets

__all__ = [
    "HALF",
    "Elimination",
    "Layout",
    "SingularTriangleError",
    "as_given",
    "autocasts",
    "backend_info",
    "causal_conv",
    "causal_conv_step",
    "cholesky_factor",
    "cholesky_inverse",
    "cholesky_is_compiled",
    "cholesky_solve",
    "eliminate",
    "few_tokens_mlp",
    "find_entries",
    "forward_layout",
    "gated_rms_norm",
    "grouped_mlp",
    "level_sets",
    "mamba2_step",
    "nestable",
    "order_by_minimum_degree",
    "permute",
    "principal_blocks",
    "rms_norm",
    "routed_mlp",
    "sddmm",
    "solve_triangular",
    "spgemm",
    "spgemm_at_once",
    "spgemm_structure",
    "spmm",
    "spmm_extremum",
    "spmm_logsumexp",
    "spmv",
    "squared_relu",
    "ssd_scan",
    "ssd_step",
    "transpose_structure",
    "watched",
]
