"""What two sparse vectors have in common, for many pairs of rows of one matrix."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

BLOCK = 1 << 24  # entries of rows multiplied at once


def pair_products(vectors: sp.csr_array, pairs: Tensor) -> Iterator[sp.csr_array]:
    """Products by entry of the two rows of each pair (k, 2) int64, block by block, in order."""
    lengths = np.diff(vectors.indptr).astype(np.int64)
    first, second = pairs.numpy().T
    block = np.cumsum(lengths[first] + lengths[second]) // BLOCK
    bounds = [0, *(np.nonzero(np.diff(block))[0] + 1).tolist(), len(pairs)]
    for begin, end in pairwise(bounds):
        rows = vectors[first[begin:end]].multiply(vectors[second[begin:end]])
        yield sp.csr_array(rows)


def pair_cosines(vectors: sp.csr_array, pairs: Tensor) -> Tensor:
    """Scalar products of the rows of pairs, (k,) float32, for unit rows their cosines."""
    if not len(pairs):
        return torch.zeros(0)
    blocks = [_row_sums(rows, rows.data) for rows in pair_products(vectors, pairs)]
    return torch.from_numpy(np.concatenate(blocks)).float()


def shared_tokens(vectors: sp.csr_array, idf: np.ndarray, pairs: Tensor) -> Tensor:
    """How many tokens the devices of a pair share, and the sum and the greatest of their weights.

    Args:
        vectors: (n, n_tokens), not zero where a device has a token.
        idf: (n_tokens,), positive.
        pairs: (k, 2) int64.

    Returns:
        (k, 3) float32; zeros where they share none.
    """
    blocks = [np.zeros((0, 3))]
    for rows in pair_products(vectors, pairs) if len(pairs) else ():
        weight = idf[rows.indices]
        count = np.diff(rows.indptr)
        greatest = np.zeros(len(count))
        full = np.nonzero(count)[0]
        greatest[full] = np.maximum.reduceat(weight, rows.indptr[full]) if len(full) else 0
        blocks.append(np.stack([count, _row_sums(rows, weight), greatest], 1))
    return torch.from_numpy(np.concatenate(blocks)).float()


def _row_sums(rows: sp.csr_array, values: np.ndarray) -> np.ndarray:
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    return np.bincount(row, values, minlength=rows.shape[0])
