"""Index arithmetic behind submatrices: which entries have a wanted row and a wanted column.

Wanted places come as a `range`, which costs no more than what it selects, or as a 1-D int64 tensor
in any order, which may repeat. No values, no gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch.structure import (
    INT32_MAX,
    compress_rows,
    entry_keys,
    expand_ranges,
    expand_rows,
    index_dtypes,
    sorting_order,
    split_keys,
    wider,
)

Places = range | Tensor


class Entries(NamedTuple):
    """Some entries in CSR form; positions (n_entries,) says where they are in the whole matrix."""

    crow: Tensor
    col: Tensor
    positions: Tensor


def as_tensor(places: Places, device: torch.device) -> Tensor:
    """The places one by one, int64."""
    if isinstance(places, Tensor):
        return places
    return places.start + places.step * torch.arange(len(places), device=device)


def select_entries(
    crow: Tensor, col: Tensor, n_cols: int, rows: Places, cols: Places
) -> tuple[Tensor, Tensor, Tensor]:
    """Structure of `A[rows][:, cols]`: (crow, col, positions), in dtypes no smaller than A's."""
    if isinstance(rows, range) and rows.step == 1:
        entries = _range_of_rows(crow, col, rows)
    else:
        entries = _list_of_rows(crow, col, as_tensor(rows, col.device))
    if isinstance(cols, range) and cols.step == 1:
        if len(cols) < n_cols:
            entries = _range_of_columns(entries, cols)
    else:
        entries = _list_of_columns(entries, n_cols, as_tensor(cols, col.device))
    shape = (entries.crow.numel() - 1, len(cols))
    dtypes = index_dtypes(shape, entries.col.numel())
    return (
        entries.crow.to(wider(dtypes.crow, crow.dtype)),
        entries.col.to(wider(dtypes.col, col.dtype)),
        entries.positions.to(wider(dtypes.crow, crow.dtype)),
    )


def _range_of_rows(crow: Tensor, col: Tensor, rows: range) -> Entries:
    start, stop = (rows.start, rows.stop) if rows else (0, 0)
    first, end = int(crow[start]), int(crow[stop])
    positions = torch.arange(first, end, dtype=crow.dtype, device=col.device)
    return Entries(crow[start : stop + 1] - first, col[first:end].clone(), positions)


def _list_of_rows(crow: Tensor, col: Tensor, rows: Tensor) -> Entries:
    starts = crow.index_select(0, rows)
    counts = crow.index_select(0, rows + 1) - starts
    new_crow = counts.new_zeros(rows.numel() + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=new_crow[1:])
    size = int(new_crow[-1])
    # In int32 where that will do, and in place: most of the time goes to fresh memory.
    dtype = crow.dtype if size <= INT32_MAX else torch.int64
    shifts = (starts - new_crow[:-1]).to(dtype)
    positions = torch.repeat_interleave(shifts, counts, output_size=size)
    positions += torch.arange(size, dtype=dtype, device=col.device)
    return Entries(new_crow, col.index_select(0, positions), positions)


def _range_of_columns(entries: Entries, cols: range) -> Entries:
    if not cols:
        cols = range(0)
    keep = (entries.col >= cols.start) & (entries.col < cols.stop)
    kept = _kept(entries, keep)
    return kept._replace(col=kept.col - cols.start)


def _kept(entries: Entries, keep: Tensor) -> Entries:
    """The entries where `keep` is true."""
    crow, col, positions = entries
    before = torch.zeros(keep.numel() + 1, dtype=crow.dtype, device=keep.device)
    torch.cumsum(keep, 0, dtype=crow.dtype, out=before[1:])
    chosen = torch.nonzero(keep)[:, 0]
    return Entries(
        before.index_select(0, crow),
        col.index_select(0, chosen),
        positions.index_select(0, chosen),
    )


def _list_of_columns(entries: Entries, n_cols: int, cols: Tensor) -> Entries:
    place = cols.new_full((n_cols,), -1)
    along = torch.arange(cols.numel(), device=cols.device)
    place[cols] = along
    if not torch.equal(place.index_select(0, cols), along):
        return _repeated_columns(entries, n_cols, cols)
    moved = entries._replace(col=place.index_select(0, entries.col))
    kept = _kept(moved, moved.col >= 0)
    shape = (kept.crow.numel() - 1, cols.numel())
    order = sorting_order(entry_keys(expand_rows(kept.crow, kept.col.numel()), kept.col, shape))
    if order is None:
        return kept
    return Entries(kept.crow, kept.col[order], kept.positions[order])


def _repeated_columns(entries: Entries, n_cols: int, cols: Tensor) -> Entries:
    """A column may be asked for several times: list the wanted places of each column."""
    row = expand_rows(entries.crow, entries.col.numel())
    by_column = torch.sort(cols, stable=True).indices
    places = compress_rows(cols, n_cols)
    column = entries.col.long()
    owner, place = expand_ranges(places[column], places[column + 1] - places[column])
    shape = (entries.crow.numel() - 1, cols.numel())
    keys = entry_keys(row[owner], by_column[place], shape)
    order = sorting_order(keys)
    if order is not None:
        keys, owner = keys[order], owner[order]
    return Entries(*split_keys(keys, shape), entries.positions[owner])
