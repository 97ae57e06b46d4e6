"""The symbolic half: what elimination in a given order does to a symmetric pattern."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Rows of `Elimination.table`.
FIRST, ROWS, PANEL, PARENT, CHILD, SIBLING, UPDATE, TASK = range(8)


def padded(rows: int) -> int:
    """Rows below a diagonal block are stored in multiples of four."""
    return (rows + 3) // 4 * 4


class Elimination(NamedTuple):
    """A symbolic factorization L L^T or L S L^T = P A P^T; all tensors are int64 on the CPU.

    The columns are grouped in supernodes of columns with the same rows. The values of L are panels,
    one per supernode, column-major: the w rows of the diagonal block, then u rows below it, padded
    to a multiple of four. Whoever makes an Elimination by other means than `eliminate` lets kernels
    read memory that is not theirs.

    order: (n,), the column of A that is eliminated k-th.
    table: (8, number of supernodes + 1), for each supernode the first of its columns, where its
        rows and its panel begin, its parent, first child and next sibling (-1 for none), where its
        update is in the workspace, and its task; the last column holds the totals.
    rows: the rows below the diagonal block of each supernode, in the order of elimination.
    relative: the place of each of them in the front of the parent.
    bounds: (tasks, 2), the supernodes that each task begins and ends with.
    place: (nnz,), where each entry of A is among the panels; ~place of its mirror image for those
        of the upper triangle, which are not read.
    crow: (n + 1,), the row pointers of A.
    """

    order: Tensor
    table: Tensor
    rows: Tensor
    relative: Tensor
    bounds: Tensor
    place: Tensor
    crow: Tensor

    @property
    def n(self) -> int:
        """The number of columns."""
        return self.order.numel()

    @property
    def size(self) -> int:
        """The number of values in the panels."""
        return int(self.table[PANEL, -1])

    @property
    def places(self) -> Tensor:
        """(nnz,) where each entry's value is in panels of a symmetric matrix."""
        return self.place.where(self.place >= 0, ~self.place)

    @property
    def diagonal(self) -> Tensor:
        """(n,) where the diagonal of L is among the panels, in the order of elimination."""
        first, rows, start = self.table[FIRST], self.table[ROWS], self.table[PANEL]
        width = first.diff()
        height = width + (rows.diff() + 3) // 4 * 4
        owner = torch.repeat_interleave(torch.arange(len(width)), width)
        within = torch.arange(self.n) - first[owner]
        return start[owner] + within * (height[owner] + 1)
