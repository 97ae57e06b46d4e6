"""The vectors that preconditioners take: their sizes and dtypes, and batches as columns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsetorch.checks import check_tensor
from sparsetorch.linalg.dtypes import HALF


def on_columns(function: Callable[[Tensor], Tensor], r: Tensor) -> Tensor:
    """Apply a function of a vector (n,) or of columns (n, k) to vectors (..., n)."""
    if r.ndim == 1:
        return function(r)
    columns = r.reshape(r.shape[:-1].numel(), r.shape[-1]).mT
    return function(columns).mT.reshape(r.shape)


def check_vectors(kind: str, r: Tensor, n: int, like: Tensor) -> None:
    """Raise unless r is (..., n), with the dtype and device of the tensor `like`.

    A preconditioner in half precision also takes float32, in which such systems are solved.
    """
    check_tensor("r", r)
    if r.ndim < 1 or r.shape[-1] != n:
        raise ValueError(
            f"r: expected (..., {n}), as the matrix of this {kind} preconditioner has, got shape "
            f"{tuple(r.shape)}"
        )
    if r.dtype != like.dtype and not (like.dtype in HALF and r.dtype == torch.float32):
        raise TypeError(
            f"r: expected {like.dtype} like the matrix of this {kind} preconditioner, got "
            f"{r.dtype}; nothing is cast silently: convert one with .to(dtype)"
        )
    if r.device != like.device:
        raise ValueError(
            f"r: expected on {like.device} like the matrix of this {kind} preconditioner, got "
            f"{r.device}; move one with .to(device)"
        )
