"""Indexing, and selections of entries by place or value: what `A[...]`, `tril`, `prune` do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsetorch.algebra import Sparse
from sparsetorch.checks import check_count, checked_integer
from sparsetorch.pattern import Pattern, Selection
from sparsetorch.selection import Places, as_tensor
from sparsetorch.structure import compress_rows, finding_structure, members


def select(pattern: Pattern, keep: Tensor) -> Selection:
    """The entries where `keep` (nnz,) is true, on the same shape."""
    positions = torch.nonzero(keep)[:, 0]
    dtype = pattern.crow.dtype
    crow = compress_rows(pattern.row[positions], pattern.shape[0]).to(dtype)
    kept = Pattern.trusted(crow, pattern.col[positions], pattern.shape)
    return Selection(kept, positions.to(dtype))


def triangle(pattern: Pattern, diagonal: int, *, lower: bool) -> Selection:
    """The entries on and below (or above) a diagonal; 0 is the main one, 1 that above it."""
    with finding_structure("tril, triu"):
        offset = pattern.col.long() - pattern.row
        return select(pattern, offset <= diagonal if lower else offset >= diagonal)


def diagonal_places(pattern: Pattern, offset: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the places on a diagonal, stored or not; 1 is the one above the main."""
    offset = checked_integer("offset", offset)
    n_rows, n_cols = pattern.shape
    with finding_structure("diagonal"):
        first = max(0, -offset)
        row = torch.arange(first, max(first, min(n_rows, n_cols - offset)), device=pattern.device)
        return row, row + offset


def larger_than(A: Sparse, threshold: float) -> Selection:
    """The entries that are larger than a threshold, or NaN, in any matrix of the batch."""
    if not threshold >= 0:
        raise ValueError(f"threshold: expected a number of at least 0, got {threshold}")
    with finding_structure("prune"):
        large = ~(members(A.values).detach().abs() <= threshold)
        return select(A.pattern, large.reshape(large.shape[:-1].numel(), A.pattern.nnz).any(0))


def largest_per_row(A: Sparse, k: int) -> Selection:
    """The k entries of each row with the largest |a| (over the batch), the first of equal ones."""
    k = check_count("k", k, "entries per row", least=0)
    pattern = A.pattern
    with finding_structure("topk_per_row"):
        values = members(A.values).detach()
        if values.numel() == 0:
            none = torch.zeros(pattern.nnz, dtype=torch.bool, device=pattern.device)
            return select(pattern, none)
        size = values.abs().reshape(-1, pattern.nnz).amax(0)
        # By row, then by size: two stable sorts, the less important key first.
        by_size = torch.argsort(size, descending=True, stable=True)
        order = by_size[torch.argsort(pattern.row[by_size], stable=True)]
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        return select(pattern, rank - pattern.crow.long()[pattern.row.long()] < k)


def lookup(A: Sparse, rows: Tensor, cols: Tensor) -> Tensor:
    """The entries at pairs (rows[i], cols[i]), (*batch, len); zero where nothing is stored."""
    place = A.pattern.find(rows, cols)
    if A.pattern.nnz == 0:
        return A.values.new_zeros(*A.values.shape[:-1], rows.numel())
    return torch.where(place >= 0, A.values.index_select(-1, place.clamp(min=0)), 0)


Key = Any  # an integer, a slice, or integers or booleans as a tensor, an array or a sequence


class Axis:
    """One index of `A[i, j]`: the wanted places, or a single number `scalar`."""

    def __init__(self, key: Key, size: int, device: torch.device, name: str):
        self.scalar: int | None = None
        self.places: Places = range(0)
        number = isinstance(key, Tensor) and key.ndim == 0
        if isinstance(key, bool) or key is None or key is Ellipsis or (number and _cut(key)):
            raise TypeError(f"{name}: expected an integer, a slice, a list or a mask, got {key!r}")
        if isinstance(key, slice):
            self.places = range(size)[key]
        elif isinstance(key, int | np.integer) or number:
            self.scalar = _wrapped(name, int(key), size)
        else:
            self.places = _positions(name, key, size).to(device)


def _cut(key: Tensor) -> bool:
    """Whether `int(key)` would make an integer of something else, without a word."""
    return key.dtype == torch.bool or key.dtype.is_floating_point or key.dtype.is_complex


def _positions(name: str, key: Key, size: int) -> Tensor:
    index = torch.as_tensor(np.asarray(key) if isinstance(key, Sequence) else key)
    if index.numel() == 0 and index.dtype.is_floating_point:
        index = index.long()  # an empty list
    if index.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tuple(index.shape)}")
    if index.dtype == torch.bool:
        if index.numel() != size:
            raise ValueError(f"{name}: expected a mask of length {size}, got {index.numel()}")
        return torch.nonzero(index)[:, 0]
    if index.dtype.is_floating_point or index.dtype.is_complex:
        raise TypeError(f"{name}: expected integers or booleans, got {index.dtype}")
    index = index.long()
    if index.numel() and (int(index.min()) < -size or int(index.max()) >= size):
        raise IndexError(
            f"{name}: expected indices from {-size} to {size - 1}, got {int(index.min())} to "
            f"{int(index.max())}"
        )
    return torch.where(index < 0, index + size, index)


def _wrapped(name: str, index: int, size: int) -> int:
    if not -size <= index < size:
        raise IndexError(f"{name}: index {index} is out of range for size {size}")
    return index % size


def get(A: Sparse, key: Key) -> Sparse | Tensor:
    """`A[key]`, see `CSRTensor.__getitem__`."""
    keys = key if isinstance(key, tuple) else (key, slice(None))
    if len(keys) == 1:
        keys = (keys[0], slice(None))
    if len(keys) != 2:
        raise IndexError(f"A[...]: expected one or two indices, got {len(keys)}")
    n_rows, n_cols = A.pattern.shape
    rows = Axis(keys[0], n_rows, A.values.device, "A[rows]")
    cols = Axis(keys[1], n_cols, A.values.device, "A[:, cols]")
    if rows.scalar is not None and cols.scalar is not None:
        return _entry(A, rows.scalar, cols.scalar)
    if rows.scalar is not None:
        return _part(_row(A, rows.scalar), cols.places)
    if cols.scalar is not None:
        return _part(_column(A, cols.scalar), rows.places)
    if isinstance(rows.places, Tensor) and isinstance(cols.places, Tensor):
        return lookup(A, rows.places, cols.places)
    pattern, positions = A.pattern.selected(rows.places, cols.places)
    return Sparse(pattern, A.values.index_select(-1, positions))


def _span(crow: Tensor, row: int) -> tuple[int, int]:
    """Where the entries of a row start and end."""
    start, end = crow[row : row + 2].tolist()
    return start, end


def _entry(A: Sparse, row: int, col: int) -> Tensor:
    """One entry as a number, (*batch,)."""
    with finding_structure("A[i, j]"):
        start, end = _span(A.pattern.crow, row)
        place = start + int(torch.searchsorted(A.pattern.col[start:end], col))
        stored = place < end and int(A.pattern.col[place]) == col
    # The sum of nothing is a zero that knows its graph.
    return A.values.select(-1, place) if stored else A.values[..., :0].sum(-1)


def _row(A: Sparse, row: int) -> Tensor:
    """One row as a dense vector, (*batch, n_cols)."""
    with finding_structure("A[i]"):
        start, end = _span(A.pattern.crow, row)
        index = A.pattern.col[start:end]
    stored = A.values[..., start:end]
    zeros = stored.new_zeros(*stored.shape[:-1], A.pattern.shape[1])
    return zeros.index_add(-1, index, stored)


def _column(A: Sparse, col: int) -> Tensor:
    """One column as a dense vector, (*batch, n_rows)."""
    layout = A.pattern.forward_layout
    if layout.t_perm is None:
        with finding_structure("A[:, j]"):
            positions = torch.nonzero(A.pattern.col == col)[:, 0]
            index = A.pattern.row[positions]
    else:
        with finding_structure("A[:, j]"):
            t_crow, t_col = layout.transposed
            start, end = _span(t_crow, col)
            index, positions = t_col[start:end], layout.t_perm[start:end]
    stored = A.values.index_select(-1, positions)
    zeros = stored.new_zeros(*stored.shape[:-1], A.pattern.shape[0])
    return zeros.index_add(-1, index, stored)


def _part(x: Tensor, places: Places) -> Tensor:
    if isinstance(places, range) and places == range(x.shape[-1]):
        return x
    return x.index_select(-1, as_tensor(places, x.device))
