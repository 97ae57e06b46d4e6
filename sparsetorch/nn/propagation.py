"""The product of a sparse matrix with features, under automatic mixed precision too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch_kernels import HALF


def propagate(A: CSRTensor | Tensor, x: Tensor) -> Tensor:
    """`A x`; inside `torch.autocast` in its dtype, where `torch.matmul` of tensors is so too.

    The features come from layers that autocast runs in half precision, the matrix does not: without
    this they would not fit each other. float64 and complex numbers are left alone, as they are
    there.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        A, x = (_cast(operand, dtype) for operand in (A, x))
    return A.matmul(x)


def _cast(operand: Any, dtype: torch.dtype) -> Any:
    return operand.to(dtype) if operand.dtype in (*HALF, torch.float32) else operand
