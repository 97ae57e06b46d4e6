"""What functions of `torch` do when they are given a CSRTensor."""

from __future__ import annotations

from typing import Any

import torch

from sparsetorch.csr import CSRTensor
from sparsetorch.overrides import TORCH_FUNCTIONS
from sparsetorch.semiring import Reduce, spmm
from sparsetorch.stacking import hstack, stack, vstack


def _matmul(a: Any, b: Any) -> Any:
    return a.matmul(b) if isinstance(a, CSRTensor) else b.rmatmul(a)


def _mm(a: Any, b: Any) -> Any:
    _check_dimensions("mm", (a, b), (2, 2), "torch.matmul and @ take vectors and batches")
    return _matmul(a, b)


def _mv(a: Any, b: Any) -> Any:
    if not isinstance(a, CSRTensor) or isinstance(b, CSRTensor):
        raise TypeError("mv: expected a CSRTensor and a vector; write x @ A, or A @ B")
    _check_dimensions("mv", (a, b), (2, 1), "torch.matmul and @ take more, A.matvec batches")
    return a.matvec(b)


# What `torch.sparse.mm` calls the reductions of `sparsetorch.spmm`.
REDUCTIONS: dict[str, Reduce] = {"sum": "sum", "mean": "mean", "amax": "max", "amin": "min"}


def _sparse_mm(a: Any, b: Any, reduce: str | None = None) -> Any:
    if reduce is None:
        return _mm(a, b)
    if reduce not in REDUCTIONS:
        known = ", ".join(map(repr, REDUCTIONS))
        raise ValueError(f"reduce: expected {known}, got {reduce!r}")
    return spmm(a, b, REDUCTIONS[reduce])


def _check_dimensions(function: str, operands: Any, expected: tuple[int, int], remedy: str) -> None:
    given = tuple(len(operand.shape) for operand in operands)
    if given != expected:
        raise ValueError(
            f"{function}: expected operands of {expected[0]} and {expected[1]} dimensions, got "
            f"{given[0]} and {given[1]}; {remedy}"
        )


def _tensor_matmul(a: Any, b: Any) -> Any:
    """`Tensor.matmul`, which is what `x @ A` calls; inside torch.compile, `A @ x` does so too."""
    if torch.compiler.is_compiling():
        raise TypeError(
            "@ between a CSRTensor and a tensor is ambiguous in compiled code, where PyTorch swaps "
            "the operands; write torch.matmul(A, x), torch.matmul(x, A) or A.matmul(x)"
        )
    return _matmul(a, b)


def _add(a: Any, b: Any, *, alpha: Any = 1) -> CSRTensor:
    scaled = b if alpha == 1 else b * alpha
    return a.add(scaled) if isinstance(a, CSRTensor) else b.add(a)


def _sub(a: Any, b: Any, *, alpha: Any = 1) -> CSRTensor:
    scaled = b if alpha == 1 else b * alpha
    return a.sub(scaled) if isinstance(a, CSRTensor) else b.add(a)


def _rsub(a: Any, b: Any, *, alpha: Any = 1) -> CSRTensor:
    return _sub(b, a, alpha=alpha)


def _mul(a: Any, b: Any) -> CSRTensor:
    return a.mul(b) if isinstance(a, CSRTensor) else b.mul(a)


def _div(a: Any, b: Any) -> CSRTensor:
    if not isinstance(a, CSRTensor):
        raise TypeError("division by a CSRTensor is not defined; use sparsetorch.linalg.solve")
    return a.div(b)


def _transpose(A: CSRTensor, dim0: int = 0, dim1: int = 1) -> CSRTensor:
    last = {dim + A.ndim if dim < 0 else dim for dim in (dim0, dim1)}
    if last != {A.ndim - 2, A.ndim - 1}:
        raise ValueError(
            f"transpose: expected the last two dimensions of {A!r}, got {dim0} and {dim1}"
        )
    return A.T


def _diagonal(A: CSRTensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    if [dim % A.ndim for dim in (dim1, dim2)] != [A.ndim - 2, A.ndim - 1]:
        raise ValueError(
            f"diagonal: expected the last two dimensions of {A!r}, got {dim1} and {dim2}; "
            "write A.diagonal(offset)"
        )
    return A.diagonal(offset)


def _pow(base: Any, exponent: Any) -> CSRTensor:
    if not isinstance(base, CSRTensor):
        raise TypeError(f"pow: expected a CSRTensor to a power, got one as the power of {base!r}")
    return base.pow(exponent)


def _cat(matrices: Any, dim: int = 0) -> CSRTensor:
    if any(isinstance(A, CSRTensor) and A.ndim != 2 for A in matrices):
        raise ValueError("cat: expected matrices without batch dimensions; use vstack or hstack")
    if dim not in (0, 1, -1, -2):
        raise ValueError(f"dim: expected 0 or 1, got {dim}")
    return vstack(matrices) if dim in (0, -2) else hstack(matrices)


def _stack(matrices: Any, dim: int = 0) -> CSRTensor:
    if dim != 0:
        raise ValueError(f"dim: expected 0, got {dim}: batch dimensions come first")
    return stack(matrices)


# Functions that leave zero at zero act on the stored values; others, such as exp, would fill the
# matrix, and are refused with the way to say what is meant.
ZERO_PRESERVING = (
    torch.abs,
    torch.relu,
    torch.nn.functional.relu,
    torch.sqrt,
    torch.square,
    torch.sign,
    torch.sin,
    torch.tan,
    torch.asin,
    torch.atan,
    torch.sinh,
    torch.tanh,
    torch.asinh,
    torch.atanh,
    torch.expm1,
    torch.log1p,
    torch.floor,
    torch.ceil,
    torch.round,
    torch.trunc,
)


def _mapped(function: Any) -> Any:
    def apply(A: CSRTensor) -> CSRTensor:
        return A.map(function)

    return apply


def _like(function: Any) -> Any:
    """`zeros_like` or `empty_like`: other values on the same pattern, moved if need be."""

    def make(A: CSRTensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False):
        values = function(A.values, dtype=dtype, device=device, requires_grad=requires_grad)
        return CSRTensor(A.pattern.to(values.device), values)

    return make


TORCH_FUNCTIONS.update({function: _mapped(function) for function in ZERO_PRESERVING})
TORCH_FUNCTIONS.update(
    {
        torch.matmul: _matmul,
        torch.mm: _mm,
        torch.Tensor.mm: _mm,
        torch.sparse.mm: _sparse_mm,
        torch.mv: _mv,
        torch.Tensor.matmul: _tensor_matmul,
        torch.add: _add,
        torch.Tensor.add: _add,
        torch.sub: _sub,
        torch.Tensor.sub: _sub,
        torch.rsub: _rsub,
        torch.mul: _mul,
        torch.Tensor.mul: _mul,
        torch.div: _div,
        torch.Tensor.div: _div,
        torch.neg: CSRTensor.neg,
        torch.t: _transpose,
        torch.transpose: _transpose,
        torch.pow: _pow,
        torch.conj: CSRTensor.conj,
        torch.clone: CSRTensor.clone,
        torch.zeros_like: _like(torch.zeros_like),
        torch.empty_like: _like(torch.empty_like),
        torch.is_floating_point: CSRTensor.is_floating_point,
        torch.is_complex: CSRTensor.is_complex,
        torch.diagonal: _diagonal,
        torch.linalg.norm: CSRTensor.norm,
        torch.sum: CSRTensor.sum,
        torch.mean: CSRTensor.mean,
        torch.amax: CSRTensor.amax,
        torch.amin: CSRTensor.amin,
        torch.trace: CSRTensor.trace,
        torch.tril: CSRTensor.tril,
        torch.triu: CSRTensor.triu,
        torch.cat: _cat,
        torch.stack: _stack,
    }
)
