"""The experts one after another, each by products of its own: fastest on CPU if groups are long.

What belongs to one expert is gathered, multiplied and added in memory for the longest group, which
all experts share: it stays in the cache, and no page of it is new to the system more than once.
Neither the rows of all experts nor their results exist as a whole, and of the activation relu(h) is
kept, whose square is made again in the cache: a root is slow on CPU. Products of all experts in one
call (`torch.nn.functional.grouped_mm`) win where groups are short, and products of padded groups
nowhere (benchmarks/bench_moe.py).

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

    def space(self, scratch: Tensor) -> Tensor:
        return scratch[: self.last - self.first]


def forward(
    x: Tensor, ptr: Tensor, up: Tensor, down: Tensor, routes: Routes | None, keep: bool
) -> tuple[Tensor, Tensor]:
    """See `backend.forward`."""
    groups = list(_groups(ptr))
    square = _scratch(groups, up.shape[1], x.dtype)
    n_rows = x.shape[0] if routes is None else routes.token.shape[0]
    kept = x.new_empty(n_rows, up.shape[1]) if keep else x.new_empty(0)

    def activated(rows: _Rows, x: Tensor) -> Tensor:
        h = rows.of(kept) if keep else rows.space(square)
        r = torch.mm(x, up[rows.expert].T, out=h).relu_()
        return torch.mul(r, r, out=rows.space(square))

    if routes is None:
        y = x.new_empty(x.shape[0], down.shape[1])
        for rows in groups:
            torch.mm(activated(rows, rows.of(x)), down[rows.expert].T, out=rows.of(y))
        return y, kept
    y = torch.zeros_like(x, dtype=routes.gate.dtype)
    own, result = (_scratch(groups, x.shape[1], x.dtype) for _ in range(2))
    weighted = result if x.dtype == y.dtype else _scratch(groups, x.shape[1], y.dtype)
    for rows in groups:
        token = rows.of(routes.token)
        a = activated(rows, _gather(x, rows, token, own))
        z = torch.mm(a, down[rows.expert].T, out=rows.space(result))
        z = torch.mul(z, rows.of(routes.gate)[:, None], out=rows.space(weighted))
        y.index_add_(0, token, z)  # a token meets an expert once: sums are in the experts' order
    return y.to(x.dtype), kept


def backward(
    g: Tensor, x: Tensor, kept: Tensor, ptr: Tensor, up: Tensor, down: Tensor,
    routes: Routes | None, needs: Needs,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """See `backend.backward`."""
    wide = x.dtype if routes is None else routes.gate.dtype
    g_x = torch.zeros_like(x, dtype=wide) if needs.x else None
    g_up = torch.empty_like(up) if needs.up else None
    g_down = torch.empty_like(down) if needs.down else None
    g_gate = torch.zeros_like(routes.gate) if routes is not None and needs.gate else None
    groups = list(_groups(ptr))
    own, result = (_scratch(groups, x.shape[1], x.dtype) for _ in range(2))
    inner, square = (_scratch(groups, up.shape[1], x.dtype) for _ in range(2))
    products = _scratch(groups, up.shape[1], wide) if g_gate is not None else square
    _zero_idle(groups, g_up, g_down)
    for rows in groups:
        e, r = rows.expert, rows.of(kept)
        a = torch.mul(r, r, out=rows.space(square))
        token = None if routes is None else rows.of(routes.token)
        g_y = _gather(g, rows, token, own)
        g_a = torch.mm(g_y, down[e], out=rows.space(inner))
        double: Tensor | float = 2.0  # relu(h)^2 has the derivative 2 relu(h)
        if routes is not None:
            if g_gate is not None:  # <g, down a> = <down^T g, a>: nobody needs the results again
                terms = torch.mul(g_a.to(wide), a, out=rows.space(products))
                torch.sum(terms, 1, out=rows.of(g_gate))
            gate = rows.of(routes.gate).to(x.dtype)[:, None]
            g_y, double = g_y.mul_(gate), gate * 2
        if g_down is not None:
            torch.mm(g_y.T, a, out=g_down[e])
        g_h = g_a.mul_(double).mul_(r)
        if g_up is not None:
            torch.mm(g_h.T, _gather(x, rows, token, own), out=g_up[e])
        if g_x is not None and token is None:
            torch.mm(g_h, up[e], out=rows.of(g_x))
        elif g_x is not None and token is not None:
            product = torch.mm(g_h, up[e], out=rows.space(result))
            g_x.index_add_(0, token, product.to(wide))
    return None if g_x is None else g_x.to(x.dtype), g_up, g_down, g_gate


def few_tokens(x: Tensor, expert: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The sum of each token's experts, one pair after another, without sorting: see `ops`."""
    y = x.new_zeros(x.shape[0], down.shape[1], dtype=gate.dtype)
    for t, (experts, gates) in enumerate(zip(expert.tolist(), gate.tolist())):
        for e, g in zip(experts, gates):
            a = torch.mm(x[t : t + 1], up[e].T).relu_().square_()
            y[t : t + 1].add_(torch.mm(a, down[e].T), alpha=g)
    return y.to(x.dtype)


def _gather(rows_of: Tensor, rows: _Rows, token: Tensor | None, scratch: Tensor) -> Tensor:
    """The rows of one expert, in the scratch if they are not together."""
    if token is None:
        return rows.of(rows_of)
    return torch.index_select(rows_of, 0, token, out=rows.space(scratch))


def _groups(ptr: Tensor) -> Iterator[_Rows]:
    """The rows of each expert that has any."""
    for expert, (first, last) in enumerate(pairwise(ptr.tolist())):
        if first < last:
            yield _Rows(expert, first, last)


def _scratch(groups: list[_Rows], width: int, dtype: torch.dtype) -> Tensor:
    """Memory for the rows of the longest group."""
    longest = max((rows.last - rows.first for rows in groups), default=0)
    return torch.empty(longest, width, dtype=dtype)


def _zero_idle(groups: list[_Rows], *gradients: Tensor | None) -> None:
    """Zeros for the experts without rows, which the loop leaves out."""
    busy = {rows.expert for rows in groups}
    for gradient in gradients:
        if gradient is not None:
            for expert in set(range(len(gradient))) - busy:
                gradient[expert].zero_()
