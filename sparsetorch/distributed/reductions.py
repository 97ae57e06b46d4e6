"""Sums over all processes, with the gradients that go with them.

A number that all processes have is one number, and its gradient, too, is the same in all of them.
So the derivative of `total` hands that gradient to every part, and the derivative of `shared`,
where a number goes into what each process computes for itself, adds up what comes back: each is
the other's transpose.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparsetorch.distributed.groups import Group, check_group


def total(part: Tensor, group: Group = None) -> Tensor:
    """The sum over all processes of their parts, tensors of one shape; the same in each of them.

    Differentiable any number of times. Whatever follows has to be computed by all processes alike;
    to use the result in what each computes for itself, pass it through `shared`.

    Raises:
        ValueError: torch.distributed is not initialised.
    """
    check_group(group)
    return _Total.apply(part, group)


def shared(number: Tensor, group: Group = None) -> Tensor:
    """The same tensor, for use in what each process computes for itself.

    number: a tensor that is equal in all processes, such as a parameter or a `dot`. Its gradient
    becomes the sum of those that the processes have.

    Raises:
        ValueError: torch.distributed is not initialised.
    """
    check_group(group)
    return _Shared.apply(number, group)


def dot(x: Tensor, y: Tensor, group: Group = None) -> Tensor:
    """The inner product of two distributed vectors, x conjugated; the same in each process.

    x, y: the local rows, (n,) or (n, k) for the products of columns -> 0-d or (k,). One all_reduce.
    Differentiable as `total`. Equivalent to `torch.linalg.vecdot(x, y, dim=0)` of whole vectors.

    Raises:
        ValueError: shapes that differ, or torch.distributed is not initialised.
        TypeError: dtypes that differ.
    """
    if x.shape != y.shape or x.ndim not in (1, 2):
        raise ValueError(
            f"y: expected the shape (n,) or (n, k) of x, got {tuple(y.shape)} for {tuple(x.shape)}"
        )
    if x.dtype != y.dtype:
        raise TypeError(f"y: expected {x.dtype} like x, got {y.dtype}; convert one with .to(dtype)")
    return total((x.conj() * y).sum(0), group)


def norm(x: Tensor, group: Group = None) -> Tensor:
    """The 2-norm of a distributed vector (n,), or of each column of (n, k): 0-d or (k,).

    One all_reduce. Differentiable as `total`, with subgradient 0 at 0.

    Raises:
        ValueError: x has another shape, or torch.distributed is not initialised.
    """
    check_group(group)
    if x.ndim not in (1, 2):
        raise ValueError(f"x: expected shape (n,) or (n, k), got {tuple(x.shape)}")
    # A norm of norms, not a root of a sum: that would overflow, and have no gradient at 0.
    own = torch.linalg.vector_norm(x, dim=0)
    place = torch.arange(dist.get_world_size(group), device=x.device) == dist.get_rank(group)
    parts = torch.where(place.view(-1, *(1,) * own.ndim), own, 0)
    return torch.linalg.vector_norm(total(parts, group), dim=0)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(part: Tensor, group: Group) -> Tensor:
        result = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(torch.view_as_real(result) if result.is_complex() else result, group=group)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Shared.apply(grads[0], ctx.group), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Total.apply(tangents[0], ctx.group)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, part: Tensor, group: Group) -> tuple[Tensor, int]:
        return _Total.apply(part, group), in_dims[0]


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(number: Tensor, group: Group) -> Tensor:
        return number.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Total.apply(grads[0], ctx.group), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Shared.apply(tangents[0], ctx.group)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, number: Tensor, group: Group) -> tuple[Tensor, int]:
        return _Shared.apply(number, group), in_dims[0]
