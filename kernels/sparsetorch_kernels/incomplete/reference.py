"""The specification of the factorizations without fill, in plain PyTorch: any dtype and device."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch_kernels.layout import Layout


class PivotError(ValueError):
    """An incomplete factorization met a pivot that it cannot divide by; `.row` is the first."""

    def __init__(self, row: int):
        super().__init__(f"the pivot of row {row} cannot be divided by")
        self.row = row

    def __reduce__(self):
        return PivotError, (self.row,)


class Elimination(NamedTuple):
    """What each entry of the factors is made of: f_t = (a_t - sum of f_left f_right) / f_pivot.

    target, left, right: (n_products,) int64, entries of the pattern. pivot: (nnz,) int64, or -1
    where nothing is divided by. diagonal: (n,) int64, the entry that is the pivot of each row.
    levels: level sets of the entries, (n_levels, nnz): each needs only those of lower levels.
    symmetric: whether the pivots are square roots (IC) or not (ILU).
    """

    target: Tensor
    left: Tensor
    right: Tensor
    pivot: Tensor
    diagonal: Tensor
    levels: Layout
    symmetric: bool


def factorize(plan: Elimination, values: Tensor) -> Tensor:
    """The factors' entries, one level set of them after the other; values (B, nnz) -> (B, nnz).

    Raises:
        PivotError: a pivot is zero or NaN, or for IC its square is not positive.
    """
    target, left, right, pivot, diagonal, levels, symmetric = plan
    level = levels.transposed[1].long()  # of each entry
    order = torch.argsort(level[target], stable=True)
    counts = torch.bincount(level[target], minlength=levels.n_rows)
    factors = values.clone()
    for here, products in zip(
        levels.col.long().split(levels.crow.diff().tolist()), order.split(counts.tolist())
    ):
        terms = factors[:, left[products]] * factors[:, right[products]]
        factors.index_add_(1, target[products], -terms)
        divided = here[pivot[here] >= 0]
        factors[:, divided] = factors[:, divided] / factors[:, pivot[divided]]
        if symmetric:
            roots = here[pivot[here] < 0]
            factors[:, roots] = factors[:, roots].sqrt()
    pivots = factors[:, diagonal]
    usable = pivots > 0 if symmetric else (pivots != 0) & ~pivots.isnan()
    broken = torch.nonzero(~usable.all(0))[:, 0]
    if broken.numel():
        raise PivotError(int(broken[0]))
    return factors
