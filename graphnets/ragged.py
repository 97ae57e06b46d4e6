"""Rows of different lengths, one after another in one tensor."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """Row i is `values[ptr[i] : ptr[i + 1]]`.

    Attributes:
        ptr: (n + 1,) int64, from 0 to the number of values, never falling.
        values: (n_values, *), of any dtype.
    """

    ptr: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        """Refuse pointers that are not as described."""
        ptr = self.ptr
        if ptr.ndim != 1 or ptr.dtype != torch.int64 or not len(ptr):
            raise ValueError(
                f"ptr: expected int64 of shape (n + 1,), got {ptr.dtype} of shape "
                f"{tuple(ptr.shape)}"
            )
        if int(ptr[0]) != 0 or int(ptr[-1]) != len(self.values) or bool((ptr.diff() < 0).any()):
            raise ValueError(
                f"ptr: expected to rise from 0 to {len(self.values)}, the number of values, got "
                f"{ptr.tolist()[:5]} ... {int(ptr[-1])}"
            )

    @classmethod
    def from_lengths(cls, lengths: Tensor, values: Tensor) -> Self:
        """Rows of these lengths (n,), that are one after another in `values`."""
        return cls(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), values)

    @classmethod
    def from_rows(cls, row: Tensor, values: Tensor, n: int) -> Self:
        """From the row (n_values,) int64 of each value, never falling, from 0 to n - 1.

        Raises:
            ValueError: a row does not exist, or they fall.
        """
        if len(row) and (int(row.min()) < 0 or int(row.max()) >= n):
            raise ValueError(
                f"row: expected 0 to {n - 1}, got {int(row.min())} to {int(row.max())}"
            )
        if bool((row.diff() < 0).any()):
            raise ValueError("row: expected rows one after another, got some that fall; sort first")
        return cls.from_lengths(torch.bincount(row, minlength=n), values)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.ptr) - 1

    def __getitem__(self, i: int) -> Tensor:
        """Row i; from the end if i is negative.

        Raises:
            IndexError: there is no such row.
        """
        n, place = len(self), operator.index(i)
        if not -n <= place < n:
            raise IndexError(f"i: expected a row from {-n} to {n - 1} of {n} rows, got {place}")
        place %= n
        return self.values[int(self.ptr[place]) : int(self.ptr[place + 1])]

    @cached_property
    def lengths(self) -> Tensor:
        """(n,) int64."""
        return self.ptr.diff()

    @cached_property
    def row(self) -> Tensor:
        """The row of each value, (n_values,) int64."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.values))

    def with_values(self, values: Tensor) -> Self:
        """Other values in the same rows."""
        return type(self)(self.ptr, values)

    def to(self, device: torch.device | str) -> Self:
        """These rows on a device."""
        return type(self)(self.ptr.to(device), self.values.to(device))

    def select(self, rows: Tensor) -> tuple[Self, Tensor]:
        """Some rows (k,) int64, in that order, and the positions that their values had.

        Raises:
            ValueError: a row does not exist.
        """
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
            raise ValueError(
                f"rows: expected 0 to {len(self) - 1}, got {int(rows.min())} to {int(rows.max())}"
            )
        lengths = self.lengths[rows]
        chosen = self.from_lengths(lengths, lengths.new_empty(int(lengths.sum())))
        begins = self.ptr[rows] - chosen.ptr[:-1]
        positions = torch.arange(len(chosen.values), device=begins.device) + begins[chosen.row]
        return type(self)(chosen.ptr, self.values[positions]), positions


def concatenate(blocks: Sequence[Ragged]) -> Ragged:
    """The rows of all blocks, one after another.

    Raises:
        ValueError: there is no block.
    """
    if not blocks:
        raise ValueError("blocks: expected at least one")
    return Ragged.from_lengths(
        torch.cat([block.lengths for block in blocks]),
        torch.cat([block.values for block in blocks]),
    )


def blocks(lengths: Tensor, size: int) -> Iterator[Tensor]:
    """The numbers of rows of these lengths (n,), in blocks of at most `size` values, or one row."""
    ends = lengths.cumsum(0)
    start, done = 0, 0
    while start < len(lengths):
        stop = max(int(torch.searchsorted(ends, done + size, right=True)), start + 1)
        yield torch.arange(start, stop)
        start, done = stop, int(ends[stop - 1])


def segment_max(rows: Ragged) -> Tensor:
    """The largest values of each row, (n, *); differentiable; -inf for empty rows."""
    return torch.segment_reduce(rows.values, "max", lengths=rows.lengths, axis=0, unsafe=True)
