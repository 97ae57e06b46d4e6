"""The dtypes that solves take: float16 and bfloat16 are solved in float32 and rounded once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.solution import Solution
from sparsetorch_kernels import HALF

DEFAULT_RTOL = {
    torch.float32: 1e-6,
    torch.float64: 1e-10,
    torch.complex64: 1e-6,
    torch.complex128: 1e-10,
}
REAL = (torch.float32, torch.float64)
SOLVABLE = (*HALF, *DEFAULT_RTOL)


def names(dtypes: Collection[torch.dtype]) -> str:
    """The dtypes in words: "float32 or float64"."""
    *others, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
    return f"{', '.join(others)} or {last}"


def widened(operand: Any) -> Any:
    """A tensor or CSRTensor of half precision in float32; anything else as it is."""
    half = isinstance(operand, Tensor | CSRTensor) and operand.dtype in HALF
    return operand.to(torch.float32) if half else operand


def rounded(solution: Solution, dtype: torch.dtype) -> Solution:
    """The solution with x in the dtype that came."""
    return solution if solution.x.dtype == dtype else replace(solution, x=solution.x.to(dtype))


def conjugate(t: Tensor) -> Tensor:
    """The complex conjugate, written out: gradients reach users, and NumPy refuses lazy ones."""
    return t.conj().resolve_conj() if t.is_complex() else t
