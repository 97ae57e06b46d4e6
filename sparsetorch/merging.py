"""Which entries two sparsity patterns have together, and which they share. No values, no gradients.

On the CPU SciPy adds up two matrices of marks, 1 for an entry of the first pattern and 2 for one of
the second; elsewhere sorted numbers of the places are merged by binary search.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sparsetorch.structure import entry_keys, expand_rows, index_dtypes, split_keys

Compressed = tuple[Tensor, Tensor]  # crow and col of a pattern


class Merged(NamedTuple):
    """A pattern made of two, and where its entries are in them, or theirs in it, int64."""

    crow: Tensor
    col: Tensor
    left: Tensor
    right: Tensor


def union(first: Compressed, second: Compressed, shape: tuple[int, int]) -> Merged:
    """All entries of either; left and right are the places of the entries of each in the union."""
    if first[0].device.type != "cpu":
        return _union_of_keys(_keys(first, shape), _keys(second, shape), shape)
    crow, col, marks = _marked(first, second, shape)
    return _narrowed(crow, col, shape, _where(marks & 1), _where(marks & 2))


def intersection(first: Compressed, second: Compressed, shape: tuple[int, int]) -> Merged:
    """The entries of both; left and right are their places in each of the two."""
    if first[0].device.type != "cpu":
        return _intersection_of_keys(_keys(first, shape), _keys(second, shape), shape)
    crow, col, marks = _marked(first, second, shape)
    shared = _where(marks == 3)
    before = np.concatenate([[0], np.cumsum(marks == 3)])
    left, right = (_where(marks[(marks & own) > 0] == 3) for own in (1, 2))
    return _narrowed(torch.from_numpy(before)[crow.long()], col[shared], shape, left, right)


def _narrowed(
    crow: Tensor, col: Tensor, shape: tuple[int, int], left: Tensor, right: Tensor
) -> Merged:
    """In the smallest index dtypes that will do, which SciPy does not always take."""
    dtypes = index_dtypes(shape, col.numel())
    return Merged(crow.to(dtypes.crow), col.to(dtypes.col), left, right)


def _marked(
    first: Compressed, second: Compressed, shape: tuple[int, int]
) -> tuple[Tensor, Tensor, np.ndarray]:
    """The union's crow and col, and the mark of each entry: 3 where both have it."""
    matrices = []
    for (crow, col), mark in ((first, 1), (second, 2)):
        marks = np.full(col.numel(), mark, np.int8)
        matrices.append(sp.csr_array((marks, col.numpy(), crow.numpy()), shape))
        matrices[-1].has_canonical_format = True  # as every pattern is
    total = matrices[0] + matrices[1]
    return torch.from_numpy(total.indptr), torch.from_numpy(total.indices), total.data


def _where(condition: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(condition))


def _keys(pattern: Compressed, shape: tuple[int, int]) -> Tensor:
    crow, col = pattern
    return entry_keys(expand_rows(crow, col.numel()), col, shape)


def _union_of_keys(left: Tensor, right: Tensor, shape: tuple[int, int]) -> Merged:
    place = torch.searchsorted(left, right)
    padded = torch.cat([left, left.new_full((1,), -1)])
    is_new = padded[place] != right
    new = right[is_new]
    left_position = torch.arange(left.numel(), device=left.device) + torch.searchsorted(new, left)
    new_position = torch.arange(new.numel(), device=left.device) + place[is_new]
    right_position = torch.empty_like(place)
    right_position[is_new] = new_position
    right_position[~is_new] = left_position[place[~is_new]]
    keys = left.new_empty(left.numel() + new.numel())
    keys[left_position] = left
    keys[new_position] = new
    return Merged(*split_keys(keys, shape), left_position, right_position)


def _intersection_of_keys(left: Tensor, right: Tensor, shape: tuple[int, int]) -> Merged:
    place = torch.searchsorted(left, right)
    padded = torch.cat([left, left.new_full((1,), -1)])
    shared = torch.nonzero(padded[place] == right)[:, 0]
    return Merged(*split_keys(right[shared], shape), place[shared], shared)
