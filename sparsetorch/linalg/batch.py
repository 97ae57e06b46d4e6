"""Systems with a batch of matrices of one pattern, solved one after the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor


def solve_batch(
    solve: Callable[[CSRTensor, Tensor, Tensor | None], Tensor],
    A: CSRTensor,
    b: Tensor,
    x0: Tensor | None,
) -> Tensor:
    """`solve(A, b, x0)` for each matrix of a batch, with the shapes of `torch.linalg.solve`.

    A: values (*batch, nnz). b: (*batch, n); (n,), for all matrices; or (*batch, n, k), whose
    leading dimensions broadcast. x0: of the shape of the result, which is that of b, broadcast.

    Raises:
        ValueError: the shapes do not fit.
    """
    if not isinstance(b, Tensor):
        raise TypeError(f"b: expected a tensor, got {type(b).__name__}")
    batch = A.values.shape[:-1]
    own = (A.shape[-1],) if b.ndim == 1 or b.shape == A.shape[:-1] else b.shape[-2:]
    try:
        full = torch.broadcast_shapes(batch, b.shape[: b.ndim - len(own)])
    except RuntimeError:
        full = None
    if full is None or b.shape[b.ndim - len(own) :] != own or own[0] != A.shape[-1]:
        raise ValueError(
            f"b: expected (*batch, n), (*batch, n, k) or (n,) for matrices of shape "
            f"{tuple(A.shape)}, got {tuple(b.shape)}"
        )
    shape = torch.Size((*full, *own))
    if x0 is not None and x0.shape != shape:
        raise ValueError(f"x0: expected shape {tuple(shape)}, got {tuple(x0.shape)}")
    values = A.values.expand(*full, -1).reshape(full.numel(), A.nnz)
    right = b.expand(shape).reshape(full.numel(), *own)
    guesses = [None] * full.numel() if x0 is None else x0.reshape(full.numel(), *own)
    solutions = [
        solve(A.with_values(v), column, guess) for v, column, guess in zip(values, right, guesses)
    ]
    if not solutions:  # no numbers, but still a function of both
        return right.reshape(shape) + values.sum()
    return torch.stack(solutions).reshape(shape)
