"""Differentiable sparse linear algebra for PyTorch: a CSR tensor, its algebra and its solvers."""

import sparsetorch.torch_functions  # noqa: F401  (fills the table that CSRTensor looks up)
from sparsetorch import linalg, precond
from sparsetorch.build import Assembly, assembly
from sparsetorch.csr import CSRTensor
from sparsetorch.pattern import Pattern
from sparsetorch.products import galerkin, masked_matmul

__version__ = "0.1.0"

__all__ = [
    "Assembly",
    "CSRTensor",
    "Pattern",
    "assembly",
    "galerkin",
    "linalg",
    "masked_matmul",
    "precond",
]
