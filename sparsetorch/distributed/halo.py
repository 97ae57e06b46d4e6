"""The halo of a block of rows: entries of x that its columns ask for and other processes own.

Planned once: who needs what is structure. `fetch` brings the halo, and `give` is its transpose,
which sends numbers back to the owners and adds them there; each is the other's derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparsetorch.distributed.groups import Group, send_to_all


@dataclass(frozen=True, eq=False)
class Halo:
    """Which rows go where.

    n_own: rows of x that this process owns. below: rows of the halo, all in order, that come before
    the own ones. sent: (n_sent,) int64, own rows in the order in which the processes get them.
    send_counts, receive_counts: rows to and from each process.
    """

    group: Group
    n_own: int
    below: int
    sent: Tensor
    send_counts: list[int]
    receive_counts: list[int]

    @property
    def size(self) -> int:
        """Rows that come from other processes."""
        return sum(self.receive_counts)

    def fetch(self, x: Tensor) -> Tensor:
        """x (n_own, k) and its halo, (n_own + size, k), in the order of the whole vector."""
        halo = _Fetch.apply(x, self)
        return torch.cat([halo[: self.below], x, halo[self.below :]])

    def give(self, y: Tensor) -> Tensor:
        """The transpose of `fetch`: (n_own + size, k), as it is there, to sums (n_own, k)."""
        end = self.below + self.n_own
        halo = torch.cat([y[: self.below], y[end:]])
        return y[self.below : end] + _Give.apply(halo, self)


def plan_halo(group: Group, wanted: Tensor, offsets: list[int]) -> Halo:
    """The halo of a process that wants these rows of x, (n,) int64, increasing, none its own.

    offsets: process p owns rows offsets[p] to offsets[p + 1] - 1. Called by all processes.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    bounds = torch.tensor(offsets, device=wanted.device)
    owners = torch.searchsorted(bounds, wanted, right=True) - 1
    counts = torch.bincount(owners, minlength=size)
    asked = send_to_all(group, counts[:, None], [1] * size, [1] * size)[:, 0].tolist()
    receive_counts = counts.tolist()
    sent = send_to_all(group, wanted[:, None], receive_counts, asked)[:, 0] - offsets[rank]
    below = int((wanted < offsets[rank]).sum())
    return Halo(group, offsets[rank + 1] - offsets[rank], below, sent, asked, receive_counts)


class _Linear(torch.autograd.Function):
    """A linear exchange; the subclasses are each other's transposes. Maps over columns."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.halo = inputs

    @classmethod
    def mapped(cls, in_dims: tuple, x: Tensor, halo: Halo) -> tuple[Tensor, int]:
        """The rule of `torch.vmap`: the mapped dimension joins the columns."""
        columns = x.movedim(in_dims[0], -1)
        result = cls.apply(columns.flatten(1), halo)
        return result.unflatten(1, columns.shape[1:]), 2


class _Fetch(_Linear):
    @staticmethod
    def forward(x: Tensor, halo: Halo) -> Tensor:
        rows = x.index_select(0, halo.sent)
        return send_to_all(halo.group, rows, halo.send_counts, halo.receive_counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Give.apply(grads[0], ctx.halo), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Fetch.apply(tangents[0], ctx.halo)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor, halo: Halo) -> tuple[Tensor, int]:
        return _Fetch.mapped(in_dims, x, halo)


class _Give(_Linear):
    @staticmethod
    def forward(y: Tensor, halo: Halo) -> Tensor:
        arrived = send_to_all(halo.group, y, halo.receive_counts, halo.send_counts)
        x = y.new_zeros(halo.n_own, y.shape[1])
        # One process at a time: no row occurs twice in a call, so sums have a fixed order.
        for rows, part in zip(halo.sent.split(halo.send_counts), arrived.split(halo.send_counts)):
            x.index_add_(0, rows, part)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Fetch.apply(grads[0], ctx.halo), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Give.apply(tangents[0], ctx.halo)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, y: Tensor, halo: Halo) -> tuple[Tensor, int]:
        return _Give.mapped(in_dims, y, halo)
