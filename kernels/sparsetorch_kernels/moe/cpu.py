"""The experts one after another, each by matrix products of its own: fastest on CPU.

What belongs to one expert is gathered, multiplied and added while it is in the cache; neither the
rows of all experts nor their results exist as a whole. Beside these loops, products of all experts
in one call (`torch.nn.functional.grouped_mm`) take as long, and products of padded groups about
twice as long (benchmarks/bench_moe.py).

The functions have the form that `backend` describes; shapes as in `reference`.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch_kernels.moe.routes import Needs, Routes


class _Rows(NamedTuple):
    """The rows of one expert, from `first` to before `last`."""

    expert: int
    first: int
    last: int

    def of(self, tensor: Tensor) -> Tensor:
        return tensor[self.first : self.last]


def forward(
    x: Tensor, ptr: Tensor, up: Tensor, down: Tensor, routes: Routes | None
) -> tuple[Tensor, Tensor]:
    """See `backend.forward`."""
    act = x.new_empty(n_rows(x, routes), up.shape[1])
    if routes is None:
        y = x.new_empty(x.shape[0], down.shape[1])
        for rows in _groups(ptr):
            a = rows.of(act)
            torch.mm(rows.of(x), up[rows.expert].T, out=a).relu_().square_()
            torch.mm(a, down[rows.expert].T, out=rows.of(y))
        return y, act
    y = x.new_zeros(x.shape[0], down.shape[1], dtype=routes.gate.dtype)
    for rows in _groups(ptr):
        a, token = rows.of(act), rows.of(routes.token)
        torch.mm(x.index_select(0, token), up[rows.expert].T, out=a).relu_().square_()
        z = torch.mm(a, down[rows.expert].T)
        # A token meets an expert once, so that sums are made in the order of the experts.
        y.index_add_(0, token, z * rows.of(routes.gate)[:, None])
    return y.to(x.dtype), act


def backward(
    g: Tensor, x: Tensor, act: Tensor, ptr: Tensor, up: Tensor, down: Tensor,
    routes: Routes | None, needs: Needs,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """See `backend.backward`."""
    wide = x.dtype if routes is None else routes.gate.dtype
    g_x = torch.zeros_like(x, dtype=wide) if needs.x else None
    g_up = torch.empty_like(up) if needs.up else None
    g_down = torch.empty_like(down) if needs.down else None
    g_gate = torch.zeros_like(routes.gate) if routes is not None and needs.gate else None
    _zero_idle(ptr, g_up, g_down)
    for rows in _groups(ptr):
        e, a = rows.expert, rows.of(act)
        token = None if routes is None else rows.of(routes.token)
        g_y = rows.of(g) if token is None else g.index_select(0, token)
        g_a = torch.mm(g_y, down[e])
        if routes is not None:
            if g_gate is not None:  # <g, down a> = <down^T g, a>: nobody needs the results again
                torch.sum(g_a.to(wide) * a, 1, out=rows.of(g_gate))
            gate = rows.of(routes.gate).to(x.dtype)[:, None]
            g_y, g_a = g_y.mul_(gate), g_a.mul_(gate)
        if g_down is not None:
            torch.mm(g_y.T, a, out=g_down[e])
        g_h = g_a.mul_(a.sqrt()).mul_(2)  # a = relu(h)^2, so its derivative is 2 sqrt(a)
        if g_up is not None:
            x_e = rows.of(x) if token is None else x.index_select(0, token)
            torch.mm(g_h.T, x_e, out=g_up[e])
        if g_x is not None and token is None:
            torch.mm(g_h, up[e], out=rows.of(g_x))
        elif g_x is not None and token is not None:
            g_x.index_add_(0, token, torch.mm(g_h, up[e]).to(wide))
    return None if g_x is None else g_x.to(x.dtype), g_up, g_down, g_gate


def few_tokens(x: Tensor, expert: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The sum of each token's experts, one pair after another, without sorting: see `ops`."""
    y = x.new_zeros(x.shape[0], down.shape[1], dtype=gate.dtype)
    for t, (experts, gates) in enumerate(zip(expert.tolist(), gate.tolist())):
        for e, g in zip(experts, gates):
            a = torch.mm(x[t : t + 1], up[e].T).relu_().square_()
            y[t : t + 1].add_(torch.mm(a, down[e].T), alpha=g)
    return y.to(x.dtype)


def n_rows(x: Tensor, routes: Routes | None) -> int:
    """Rows of all experts together."""
    return x.shape[0] if routes is None else routes.token.shape[0]


def _zero_idle(ptr: Tensor, *gradients: Tensor | None) -> None:
    """Zeros for the experts without rows, which the loop leaves out."""
    for expert in (ptr.diff() == 0).nonzero()[:, 0].tolist():
        for gradient in gradients:
            if gradient is not None:
                gradient[expert].zero_()


def _groups(ptr: Tensor) -> Iterator[_Rows]:
    """The rows of each expert that has any."""
    bounds = ptr.tolist()
    for expert, (first, last) in enumerate(pairwise(bounds)):
        if first < last:
            yield _Rows(expert, first, last)
