"""Incomplete factorizations as differentiable functions of the matrix: values in, factors out.

Their factors f, one number for each entry of a pattern S, are determined by the pattern equations
(Chow and Patel, SIAM J. Sci. Comput. 37, 2015, eq. 2.3)

    ILU(0):  sum over k <= min(i, j) of l_ik u_kj = a_ij,  l_ii = 1,     (i, j) in S
    IC(0):   sum over k <= j of l_ik l_jk = a_ij,                        (i, j) in S, j <= i

with products only of entries in S. So a change da of the matrix changes them by df with

    M(f) df = w da,   row (i, j) of M df:  sum over k of dl_ik u_kj + l_ik du_kj,

w = 1. For IC(0) the equation of a diagonal entry is halved, w = 1/2, so that its row reads
sum over k of l_ik dl_ik. Each entry of M is thus a single factor, or 1: M is known by a pattern
(nnz by nnz) and by which factor each of its entries is. An equation has products only of entries in
earlier rows, and in the same row further left, so in the order of CSR M is lower triangular, with
the pivots on its diagonal. Hence

    the tangent is df = M^-1 (w da),   and the gradient a_bar = w M^-H f_bar:

triangular solves of as many operations as the factorization. Both are differentiable functions of
f, through the values of M, so derivatives of every order are exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.triangular import solve_triangular
from sparsetorch.pattern import Pattern
from sparsetorch.structure import (
    entry_keys,
    expand_ranges,
    split_keys,
)
from sparsetorch.triangles import triangle_levels
from sparsetorch_kernels import nestable
from sparsetorch_kernels.incomplete import Elimination, ic0, ilu0


class Products(NamedTuple):
    """The products f_left f_right in the equation of each entry, and what it is divided by.

    target, left, right: (n_products,), entries of the pattern. pivot: (nnz,), -1 where there is
    none: in U, and on the diagonal for IC(0).
    """

    target: Tensor
    left: Tensor
    right: Tensor
    pivot: Tensor


class System(NamedTuple):
    """M as a pattern, and which factor each of its entries is; nnz stands for the number 1."""

    pattern: Pattern
    source: Tensor


class Equations:
    """The pattern equations of ILU(0) on a pattern, or of IC(0) on a lower triangle.

    The pattern is square and holds the whole diagonal. Products and M are found when a derivative
    (or the reference) first needs them, and kept on the pattern.
    """

    def __init__(self, pattern: Pattern, symmetric: bool):
        self.pattern = pattern
        self.symmetric = symmetric
        self._kind = "IC(0)" if symmetric else "ILU(0)"

    @property
    def products(self) -> Products:
        """The products in each equation."""
        find = _products_of_cholesky if self.symmetric else _products_of_lu
        return self.pattern.kept(f"products of {self._kind}", find)

    @property
    def system(self) -> System:
        """The derivative M of the equations."""
        products, symmetric = self.products, self.symmetric
        return self.pattern.kept(
            f"derivative of {self._kind}", lambda pattern: _derivative(products, pattern, symmetric)
        )

    @property
    def plan(self) -> Elimination:
        """What the reference needs."""
        levels = triangle_levels(self.system.pattern, lower=True)
        diagonal = self.pattern.diagonal.positions.long()
        return Elimination(*self.products, diagonal, levels, self.symmetric)

    def factors(self, values: Tensor) -> Tensor:
        """The factors of values (*batch, nnz), without derivatives."""
        factorize = ic0 if self.symmetric else ilu0
        return factorize(self.pattern.layout, values, lambda: self.plan)

    def solve(self, factors: Tensor, right: Tensor, *, transpose: bool = False) -> Tensor:
        """M^-1 or M^-T times vectors (*batch, nnz), M for factors (*batch, nnz)."""
        pattern, source = self.system
        with_one = torch.cat([factors, torch.ones_like(factors[..., :1])], -1)
        M = CSRTensor(pattern, with_one.index_select(-1, source))
        return solve_triangular(M, right.unsqueeze(-1), transpose=transpose).squeeze(-1)

    def weighted(self, values: Tensor) -> Tensor:
        """w times values."""
        if not self.symmetric:
            return values
        weights = torch.ones(self.pattern.nnz, dtype=values.dtype, device=values.device)
        return values * weights.index_fill(0, self.pattern.diagonal.positions.long(), 0.5)


class _Factorize(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, equations: Equations) -> Tensor:
        return equations.factors(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.equations = inputs
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        equations: Equations = ctx.equations
        pulled = equations.solve(factors, grads[0].conj(), transpose=True).conj().resolve_conj()
        return equations.weighted(pulled), None

    @staticmethod
    @nestable
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (factors,) = ctx.saved_tensors
        equations: Equations = ctx.equations
        return equations.solve(factors, equations.weighted(tangents[0]))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, values: Tensor, equations: Equations) -> tuple[Tensor, int]:
        return _Factorize.apply(values.movedim(in_dims[0], 0), equations), 0


def factorize(values: Tensor, equations: Equations) -> Tensor:
    """The factors (*batch, nnz) of values (*batch, nnz), differentiable any number of times.

    Raises:
        PivotError: a pivot cannot be divided by.
        TypeError: the values are not float32 or float64, or for ILU(0) complex64 or complex128.
    """
    return _Factorize.apply(values, equations)


def _products_of_lu(pattern: Pattern) -> Products:
    """l_ik u_kj for (i, k), (k, j), (i, j) in the pattern and k < i, k < j."""
    row, col = pattern.row.long(), pattern.col.long()
    left = torch.nonzero(col < row)[:, 0]
    after = pattern.diagonal.positions.long() + 1  # in each row, the first entry right of it
    owner, right = _ranges(after, pattern.crow.long()[1:], col[left])
    target, found = _find(pattern, row[left][owner], col[right])
    # An entry of L is divided by the pivot of its column.
    pivot = pattern.diagonal.positions.long()[col].where(col < row, -1)
    return Products(target, left[owner][found], right[found], pivot)


def _products_of_cholesky(pattern: Pattern) -> Products:
    """l_ik l_jk for (i, k), (j, k), (i, j) in the lower triangle and k < j <= i."""
    row, col = pattern.row.long(), pattern.col.long()
    left = torch.nonzero(col < row)[:, 0]
    layout = pattern.layout
    assert layout.t_perm is not None
    t_crow = layout.transposed[0].long()
    starts, stops = t_crow[:-1] + 1, t_crow[1:]  # the diagonal is first
    owner, place = _ranges(starts, stops, col[left])
    right = layout.t_perm.long()[place]
    wanted = row[right] <= row[left][owner]
    owner, right = owner[wanted], right[wanted]
    target, found = _find(pattern, row[left][owner], row[right])
    pivot = pattern.diagonal.positions.long()[col].where(col < row, -1)
    return Products(target, left[owner][found], right[found], pivot)


def _ranges(starts: Tensor, stops: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers from starts[w] to stops[w] for each w of a list, and whose each of them is."""
    return expand_ranges(starts[which], stops[which] - starts[which])


def _find(pattern: Pattern, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """The entries at those (row, col) that are stored, and which of them are."""
    stored = entry_keys(pattern.row, pattern.col, pattern.shape)
    wanted = entry_keys(row, col, pattern.shape)
    place = torch.searchsorted(stored, wanted)
    padded = torch.cat([stored, stored.new_full((1,), -1)])
    found = torch.nonzero(padded[place] == wanted)[:, 0]
    return place[found], found


def _derivative(products: Products, pattern: Pattern, symmetric: bool) -> System:
    """M, from the products of each equation."""
    target, left, right, pivot = products
    nnz = pattern.nnz
    every = torch.arange(nnz, device=pattern.device)
    divided, whole = every[pivot >= 0], every[pivot < 0]
    differ = left != right  # the square of an entry, halved, has it once
    row, col, source = (
        torch.cat(parts)
        for parts in (
            (target, target[differ], divided, divided, whole),
            (left, right[differ], pivot[divided], divided, whole),
            (right, left[differ], divided, pivot[divided], whole),
        )
    )
    if not symmetric:  # the derivative of u_ij by itself
        source[source.numel() - whole.numel() :] = nnz
    keys, order = torch.sort(entry_keys(row, col, (nnz, nnz)))
    crow, col = split_keys(keys, (nnz, nnz))
    return System(Pattern.trusted(crow, col, (nnz, nnz)), source[order])
