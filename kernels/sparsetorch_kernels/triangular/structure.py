"""Level sets: which unknowns of a triangular system can be found at the same time."""

from itertools import pairwise

import torch
from torch import Tensor

from sparsetorch_kernels import _native
from sparsetorch_kernels.csr.structure import transpose_structure


def level_sets(crow: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """The level sets of a lower triangle, as a CSR pattern of shape (n_levels, n).

    crow (n + 1,), col (nnz,), both int32 or int64; entries above the diagonal are ignored. Row l of
    the result holds the unknowns of level l, which depend on none but those of lower levels, and on
    one of level l - 1 if l > 0 (Anderson and Saad, Int. J. High Speed Comput. 1, 1989). From the
    last level to the first the same sets serve the transposed triangle. For an upper triangle, pass
    its transpose. Found on the CPU.

    Returns (starts (n_levels + 1,), rows (n,)), in the dtype and on the device of col.
    """
    native = _native.ops()
    find = levels_by_rows if native is None else native.levels_of_rows
    level = find(crow.cpu(), col.cpu().to(crow.dtype)).to(col.dtype)
    n_levels = int(level.max()) + 1 if level.numel() else 0
    each = torch.arange(level.numel() + 1, dtype=level.dtype)
    starts, rows, _ = transpose_structure(each, level, n_levels)
    return starts.to(col.device), rows.to(col.device)


def levels_by_rows(crow: Tensor, col: Tensor) -> Tensor:
    """The level of each row, (n,): one more than the largest of those it depends on."""
    starts, columns = crow.tolist(), col.tolist()
    level: list[int] = []
    for i, (first, last) in enumerate(pairwise(starts)):
        level.append(max((level[j] + 1 for j in columns[first:last] if j < i), default=0))
    return torch.tensor(level, dtype=col.dtype)
