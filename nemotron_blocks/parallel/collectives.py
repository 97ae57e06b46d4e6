"""Messages between the ranks of a process group, with their derivatives.

Every rank has to take part in each, forward and backward: what depends on the result of one on some
rank has to on all.

R: ranks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

# Their names before torch 2.13.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def copied(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """x, the same on each rank; its gradient is the sum of the ranks' gradients."""
    return _Copied.apply(x, group)


def averaged(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """x; its gradient, in which the ranks' losses are added up, becomes that of their mean."""
    return _Averaged.apply(x, dist.get_world_size(group))


def summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum of the ranks' x, on each; gradients, the same on each rank, pass unchanged."""
    return _Summed.apply(x, group)


def gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(R, ...): the x of all ranks, of one shape; gradients of a part are summed at its rank."""
    return _Gathered.apply(x, group)


def exchanged(
    x: Tensor, sent: Sequence[int], received: Sequence[int], group: dist.ProcessGroup
) -> Tensor:
    """Rows for each rank, one rank's after the other's -> those from each rank; gradients go back.

    Args:
        x: (sum of sent, ...).
        sent, received: (R,) how many rows go to, and come from, each rank; zero is fine.
        group: of the ranks.
    """
    return _Exchanged.apply(x, list(sent), list(received), group)


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        return _sum(change, ctx.group), None


class _Averaged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        return change / ctx.ranks, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        return change, None


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        found = x.new_empty(dist.get_world_size(group), *x.shape)
        _all_gather(found.flatten(), x.contiguous().flatten(), group=group)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        found = torch.empty_like(change[0], memory_format=torch.contiguous_format)
        _reduce_scatter(found.flatten(), change.contiguous().flatten(), group=ctx.group)
        return found, None


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _exchange(x, sent, received, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        return _exchange(change, ctx.received, ctx.sent, ctx.group), None, None, None


def _sum(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    found = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(found, group=group)
    return found


def _exchange(x: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    found = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(found, x.contiguous(), received, sent, group=group)
    return found
