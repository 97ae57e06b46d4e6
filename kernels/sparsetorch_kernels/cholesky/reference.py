"""The specification of the sparse Cholesky factorization, in plain PyTorch: slow and obvious.

The symbolic half makes every column a supernode of its own; the numeric half takes any supernodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch_kernels.cholesky.elimination import (
    CHILD,
    FIRST,
    PANEL,
    PARENT,
    ROWS,
    SIBLING,
    UPDATE,
    Elimination,
    padded,
)


def eliminate(crow: Tensor, col: Tensor, mirror: Tensor, order: Tensor) -> Elimination:
    """Eliminate the columns one by one: each joins the columns of its rows to one another.

    The rows of column j of the factor are those of A, and those of its children, beyond j; its
    parent is the first of them (Schreiber, ACM TOMS 8, 1982).
    """
    n = order.numel()
    position = torch.empty_like(order).index_copy_(0, order, torch.arange(n)).tolist()
    columns = col.tolist()
    pointers = crow.tolist()
    rows: list[list[int]] = []
    children: list[list[int]] = [[] for _ in range(n)]
    parent = [-1] * n
    for j, i in enumerate(order.tolist()):
        below = {position[c] for c in columns[pointers[i] : pointers[i + 1]]}
        below = below.union(*(rows[c] for c in children[j]))
        rows.append(sorted(k for k in below if k > j))
        if rows[j]:
            parent[j] = rows[j][0]
            children[parent[j]].append(j)
    table = torch.full((8, n + 1), -1)
    lengths = torch.tensor([len(r) for r in rows], dtype=torch.int64)
    sizes = torch.tensor([1 + padded(len(r)) for r in rows], dtype=torch.int64)
    table[FIRST] = torch.arange(n + 1)
    table[ROWS] = _starts(lengths)
    table[PANEL] = _starts(sizes)
    table[UPDATE] = 0
    table[PARENT, :n] = torch.tensor(parent, dtype=torch.int64)
    relative: list[int] = []
    for j in range(n):
        for previous, child in zip([None, *children[j]], children[j]):
            if previous is None:
                table[CHILD, j] = child
            else:
                table[SIBLING, previous] = child
        front = {k: at for at, k in enumerate([parent[j], *rows[parent[j]]])} if rows[j] else {}
        relative += [front[k] for k in rows[j]]
    place = torch.empty_like(col)
    for j, i in enumerate(order.tolist()):
        at = {k: int(table[PANEL, j]) + k_at for k_at, k in enumerate([j, *rows[j]])}
        for e in range(pointers[i], pointers[i + 1]):
            k = position[columns[e]]
            if k >= j:
                place[mirror[e]] = ~at[k]
                place[e] = at[k]
    all_rows = torch.tensor([k for own in rows for k in own], dtype=torch.int64)
    no_tasks = torch.empty((0, 2), dtype=torch.int64)
    places = torch.tensor(relative, dtype=torch.int64)
    return Elimination(order, table, all_rows, places, no_tasks, place, crow)


def cholesky_factor(
    l: Elimination, values: Tensor, indefinite: bool = False
) -> tuple[Tensor, Tensor]:
    """The panels of L, and (column, pivot) where a pivot is not above rounding, else (-1, 0).

    Each front is the matrix's own entries plus the updates of the children; the update that it
    hands on is what remains after its columns are eliminated.
    """
    panels = values.new_zeros(l.size)
    lower = l.place >= 0
    panels[l.place[lower]] = values[lower]
    scale = _largest_of_rows(l, values) if indefinite else None
    updates: dict[int, Tensor] = {}
    for s in supernodes(l):
        front = values.new_zeros(s.w + s.u, s.w + s.u)
        own = s.panel(panels)
        front[:, : s.w] = own[: s.w + s.u]
        compared = front.diagonal()[: s.w].abs()
        if scale is not None:
            compared = scale[l.order[s.first : s.first + s.w]]
        floor = torch.finfo(values.dtype).eps * compared
        for child in s.children:
            relative = l.relative[l.table[ROWS, child] : l.table[ROWS, child + 1]]
            front[relative[:, None], relative] += updates.pop(child)
        for j in range(s.w):
            pivot = front[j, j].clone()
            if not (pivot.abs() if indefinite else pivot) > floor[j]:
                column = float(l.order[s.first + j])
                return panels, torch.tensor([column, float(pivot)], dtype=torch.float64)
            sign = pivot.sign()
            front[j + 1 :, j] /= pivot.abs().sqrt()
            front[j, j] = sign * pivot.abs().sqrt()
            rest = front[j + 1 :, j]
            front[j + 1 :, j + 1 :] -= sign * torch.tril(torch.outer(rest, rest))
        own[: s.w + s.u] = torch.tril(front)[:, : s.w]
        updates[s.index] = torch.tril(front[s.w :, s.w :])
    return panels, torch.tensor([-1.0, 0.0], dtype=torch.float64)


def _largest_of_rows(l: Elimination, values: Tensor) -> Tensor:
    """(n,) the largest absolute value of each row, 0 for empty ones."""
    row = torch.repeat_interleave(torch.arange(l.n), l.crow.diff())
    return values.new_zeros(l.n).scatter_reduce(0, row, values.abs(), "amax")


def cholesky_solve(l: Elimination, panels: Tensor, b: Tensor) -> Tensor:
    """x with A x = b, both (n, k): by columns of L, the signs of its diagonal, then its rows."""
    x = b[l.order]
    blocks = list(supernodes(l))
    for s in blocks:
        panel, own = s.panel(panels), slice(s.first, s.first + s.w)
        x[own] = torch.linalg.solve_triangular(panel[: s.w].tril(), x[own], upper=False)
        x[s.rows] -= panel[s.w : s.w + s.u] @ x[own]
    x *= panels[l.diagonal].sign()[:, None]
    for s in reversed(blocks):
        panel, own = s.panel(panels), slice(s.first, s.first + s.w)
        rest = x[own] - panel[s.w : s.w + s.u].mT @ x[s.rows]
        x[own] = torch.linalg.solve_triangular(panel[: s.w].tril().mT, rest, upper=True)
    return torch.empty_like(x).index_copy_(0, l.order, x)


def cholesky_inverse(l: Elimination, panels: Tensor) -> Tensor:
    """A^-1 at the places of the panels, from the dense inverse."""
    inverse = cholesky_solve(l, panels, torch.eye(l.n, dtype=panels.dtype))
    inverse = inverse[l.order][:, l.order]
    out = torch.zeros_like(panels)
    for s in supernodes(l):
        columns = inverse[:, s.first : s.first + s.w]
        panel = s.panel(out)
        panel[: s.w] = columns[s.first : s.first + s.w].tril()
        panel[s.w : s.w + s.u] = columns[s.rows]
    return out


class Supernode(NamedTuple):
    """Columns first .. first + w, and u rows below them."""

    index: int
    first: int
    w: int
    u: int
    rows: Tensor
    start: int
    children: list[int]

    def panel(self, panels: Tensor) -> Tensor:
        """Its part of the panels as a matrix, (w + padded u, w)."""
        height = self.w + padded(self.u)
        return panels[self.start : self.start + self.w * height].view(self.w, height).mT


def supernodes(l: Elimination) -> Iterator[Supernode]:
    """The supernodes of a factorization, children before parents."""
    first, at, start, _, child, sibling, *_ = l.table.tolist()
    for s in range(len(first) - 1):
        children, c = [], child[s]
        while c != -1:
            children.append(c)
            c = sibling[c]
        w, u = first[s + 1] - first[s], at[s + 1] - at[s]
        yield Supernode(s, first[s], w, u, l.rows[at[s] : at[s + 1]], start[s], children)


def _starts(lengths: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
