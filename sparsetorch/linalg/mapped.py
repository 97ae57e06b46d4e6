"""The rule of `torch.vmap` for a solve, whichever way it is registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Dim = int | None
# A solve of (values, b, x0, tensors of the preconditioners), in `vmap` one of many matrices or not.
Apply = Callable[[bool, Tensor, Tensor, Tensor | None, Sequence[Tensor]], Tensor]


def map_solve(
    apply: Apply,
    size: int,
    operands: tuple[Tensor, Tensor, Tensor | None, Sequence[Tensor]],
    dims: tuple[Dim, Dim, Dim, Sequence[Dim]],
) -> tuple[Tensor, int]:
    """The solutions of `size` systems, and their mapped dimension.

    `apply(many, ...)` solves one; `many` says that its matrix is one of several. If only right-hand
    sides are mapped over, they become columns of one block, and one factorization serves all.
    """
    values, b, x0, tensors = operands
    values_dim, b_dim, x0_dim, tensor_dims = dims
    if values_dim is None and all(dim is None for dim in tensor_dims):
        columns = _last(b, b_dim, size)
        guesses = None if x0 is None else _last(x0, x0_dim, size).flatten(1)
        x = apply(False, values, columns.flatten(1), guesses, tensors)
        return x.reshape(columns.shape), columns.ndim - 1
    solutions = [
        apply(
            True,
            _member(values, values_dim, i),
            _member(b, b_dim, i),
            None if x0 is None else _member(x0, x0_dim, i),
            [_member(t, dim, i) for t, dim in zip(tensors, tensor_dims)],
        )
        for i in range(size)
    ]
    if not solutions:
        return (b.new_empty(0, *b.shape), 0) if b_dim is None else (torch.empty_like(b), b_dim)
    return torch.stack(solutions), 0


def _member(t: Tensor, dim: Dim, i: int) -> Tensor:
    return t if dim is None else t.select(dim, i)


def _last(t: Tensor, dim: Dim, size: int) -> Tensor:
    """The tensor with its mapped dimension behind the others, or repeated if it has none."""
    return t.unsqueeze(-1).expand(*t.shape, size) if dim is None else t.movedim(dim, -1)
