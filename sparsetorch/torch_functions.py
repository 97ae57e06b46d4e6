"""What functions of `torch` do when they are given a CSRTensor."""

from __future__ import annotations

from typing import Any

import torch

from sparsetorch.csr import TORCH_FUNCTIONS, CSRTensor


def _matmul(a: Any, b: Any) -> Any:
    return a.matmul(b) if isinstance(a, CSRTensor) else b.rmatmul(a)


def _tensor_matmul(a: Any, b: Any) -> Any:
    """`Tensor.matmul`, which is what `x @ A` calls; inside torch.compile, `A @ x` does so too."""
    if torch.compiler.is_compiling():
        raise TypeError(
            "@ between a CSRTensor and a tensor is ambiguous in compiled code, where PyTorch swaps "
            "the operands; write torch.matmul(A, x), torch.matmul(x, A) or A.matmul(x)"
        )
    return _matmul(a, b)


def _add(a: Any, b: Any) -> CSRTensor:
    return a.add(b) if isinstance(a, CSRTensor) else b.add(a)


def _sub(a: Any, b: Any) -> CSRTensor:
    return a.sub(b) if isinstance(a, CSRTensor) else b.add(a)


def _mul(a: Any, b: Any) -> CSRTensor:
    return a.mul(b) if isinstance(a, CSRTensor) else b.mul(a)


def _div(a: Any, b: Any) -> CSRTensor:
    if not isinstance(a, CSRTensor):
        raise TypeError("division by a CSRTensor is not defined; use sparsetorch.linalg.solve")
    return a.div(b)


def _transpose(A: CSRTensor, dim0: int = 0, dim1: int = 1) -> CSRTensor:
    if {dim0 % A.ndim, dim1 % A.ndim} != {A.ndim - 2, A.ndim - 1}:
        raise ValueError(
            f"transpose: expected the last two dimensions of {A!r}, got {dim0} and {dim1}"
        )
    return A.T


TORCH_FUNCTIONS.update(
    {
        torch.matmul: _matmul,
        torch.mm: _matmul,
        torch.mv: _matmul,
        torch.Tensor.matmul: _tensor_matmul,
        torch.add: _add,
        torch.Tensor.add: _add,
        torch.sub: _sub,
        torch.Tensor.sub: _sub,
        torch.mul: _mul,
        torch.Tensor.mul: _mul,
        torch.div: _div,
        torch.Tensor.div: _div,
        torch.neg: CSRTensor.neg,
        torch.t: _transpose,
        torch.transpose: _transpose,
    }
)
