"""A batch of vectors as the columns of one matrix."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def on_columns(function: Callable[[Tensor], Tensor], r: Tensor) -> Tensor:
    """Apply a function of a vector (n,) or of columns (n, k) to vectors (..., n)."""
    if r.ndim == 1:
        return function(r)
    columns = r.reshape(r.shape[:-1].numel(), r.shape[-1]).mT
    return function(columns).mT.reshape(r.shape)
