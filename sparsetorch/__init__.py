"""Differentiable sparse linear algebra for PyTorch: a CSR tensor, its algebra and its solvers."""

import sparsetorch.torch_functions  # noqa: F401  (fills the table that CSRTensor looks up)
from sparsetorch import graph, linalg, nn, precond
from sparsetorch.build import Assembly, assembly
from sparsetorch.csr import CSRTensor
from sparsetorch.generators import diags, eye, poisson, random
from sparsetorch.io import load, save
from sparsetorch.pattern import Pattern
from sparsetorch.products import galerkin, masked_matmul, sddmm
from sparsetorch.semiring import spmm
from sparsetorch.stacking import block_diag, bmat, hstack, kron, stack, vstack
from sparsetorch.typed import TypedCSR

__version__ = "0.1.0"

__all__ = [
    "Assembly",
    "CSRTensor",
    "Pattern",
    "TypedCSR",
    "assembly",
    "block_diag",
    "bmat",
    "diags",
    "eye",
    "galerkin",
    "graph",
    "hstack",
    "kron",
    "linalg",
    "load",
    "masked_matmul",
    "nn",
    "poisson",
    "precond",
    "random",
    "save",
    "sddmm",
    "spmm",
    "stack",
    "vstack",
]
