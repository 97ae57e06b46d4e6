"""Dense products within each subdomain, of vectors on all local unknowns, (N, k).

Each row has k^2 products. They are formed for a slice of the rows at a time: those of all of them
would take k times the memory of the vectors, and more time, since slices stay in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

PRODUCTS = 2**18
"""Of one slice: 2 MiB in double precision."""


def segment_sums(x: Tensor, segment: Tensor, count: int) -> Tensor:
    """Sums of the rows of x (N, ...) in each of `count` segments, (count, ...).

    Args:
        x: values.
        segment: (N,) integers, the segment of each row.
        count: number of segments.
    """
    return x.new_zeros(count, *x.shape[1:]).index_add(0, segment, x)


def gram(X: Tensor, Y: Tensor, segment: Tensor, count: int) -> Tensor:
    """`X_i^H Y_i` of the rows (N, k) and (N, j) in each segment i, (count, k, j)."""
    found = X.new_zeros(count, X.shape[1], Y.shape[1])
    rows = _rows(found)
    for x, y, at in zip(X.split(rows), Y.split(rows), segment.split(rows)):
        found.index_add_(0, at, x.conj()[:, :, None] * y[:, None, :])
    return found


def turned(X: Tensor, directions: Tensor, segment: Tensor) -> Tensor:
    """`X_i Q_i` of the rows (N, k) in each segment i, for `directions` Q (count, k, j): (N, j)."""
    rows = _rows(directions)
    return torch.cat(
        [
            torch.einsum("nk,nkj->nj", x, directions[at])
            for x, at in zip(X.split(rows), segment.split(rows))
        ]
    )


def _rows(matrices: Tensor) -> int:
    """Rows of a slice, for matrices (count, k, j)."""
    return max(1, PRODUCTS // (matrices.shape[1] * matrices.shape[2]))
