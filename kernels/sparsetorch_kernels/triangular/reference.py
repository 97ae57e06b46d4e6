"""The specification of the triangular solve, in plain PyTorch: any dtype and device."""

import torch
from torch import Tensor

from sparsetorch_kernels.csr.reference import row_ids
from sparsetorch_kernels.layout import Layout


class SingularTriangleError(RuntimeError):
    """A triangle has a zero on its diagonal, or lacks an entry of it; `.row` is the first."""

    def __init__(self, row: int):
        super().__init__(f"the diagonal of row {row} is zero or not stored")
        self.row = row

    def __reduce__(self):
        return SingularTriangleError, (self.row,)


def solve_triangular(
    triangle: Layout, levels: Layout, values: Tensor, b: Tensor, lower: bool, unit: bool
) -> Tensor:
    """x with T x = b: one level set after the other, for all right-hand sides at once.

    values (B or 1, nnz), b (B or 1, n, k) -> (B, n, k). Once the unknowns of a level are known,
    they are taken out of the equations that hold them. Entries beyond the triangle, and with `unit`
    those of the diagonal, are ignored. Raises SingularTriangleError.
    """
    batch = max(values.shape[0], b.shape[0]) if min(values.shape[0], b.shape[0]) else 0
    row, col = row_ids(triangle.crow), triangle.col.long()
    view = values if triangle.perm is None else values.index_select(1, triangle.perm)
    diagonal = diagonal_of(triangle, values, unit)
    beside = torch.nonzero(row > col if lower else row < col)[:, 0]
    level = levels.transposed[1].long()  # of each row
    entries = beside[torch.argsort(level[col[beside]], stable=True)]
    counts = torch.bincount(level[col[entries]], minlength=levels.n_rows)
    known = levels.col.long().split(levels.crow.diff().tolist())
    leaving = entries.split(counts.tolist())
    x = b.expand(batch, *b.shape[1:]).clone()
    for step in range(levels.n_rows):
        at = step if lower else levels.n_rows - 1 - step
        here, out = known[at], leaving[at]
        x[:, here] = x[:, here] / diagonal[:, here, None]
        x.index_add_(1, row[out], -view[:, out, None] * x[:, col[out]])
    return x


def diagonal_of(triangle: Layout, values: Tensor, unit: bool) -> Tensor:
    """(B or 1, n). Raises SingularTriangleError where an entry is zero or not stored."""
    if unit:
        return values.new_ones(1, triangle.n_rows)
    row = row_ids(triangle.crow)
    at = torch.nonzero(row == triangle.col)[:, 0]
    stored = values[:, at if triangle.perm is None else triangle.perm[at]]
    diagonal = values.new_zeros(values.shape[0], triangle.n_rows).index_copy(1, row[at], stored)
    singular = torch.nonzero((diagonal == 0).any(0))[:, 0]
    if singular.numel():
        raise SingularTriangleError(int(singular[0]))
    return diagonal
