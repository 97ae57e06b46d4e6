"""Which process owns which rows: blocks that follow one another."""

from __future__ import annotations

import torch
from torch import Tensor


def even_offsets(n: int, size: int) -> list[int]:
    """Blocks of n rows that differ by one row at most: process p has offsets[p]:offsets[p + 1]."""
    return [p * n // size for p in range(size + 1)]


def offsets_of(name: str, partition: Tensor | None, n: int, size: int) -> list[int]:
    """The blocks that a partition describes, (n,): the process of each row; even ones for None.

    Raises:
        ValueError: it is not one process for each row, or the rows of a process are not together.
    """
    if partition is None:
        return even_offsets(n, size)
    if not isinstance(partition, Tensor) or partition.dtype not in (torch.int32, torch.int64):
        kind = partition.dtype if isinstance(partition, Tensor) else type(partition).__name__
        raise ValueError(f"{name}: expected an int32 or int64 tensor, got {kind}")
    if partition.shape != (n,):
        raise ValueError(
            f"{name}: expected the process of each of the {n} rows, shape ({n},), got shape "
            f"{tuple(partition.shape)}"
        )
    if n and (int(partition.min()) < 0 or int(partition.max()) >= size):
        raise ValueError(
            f"{name}: expected processes from 0 to {size - 1}, got {int(partition.min())} to "
            f"{int(partition.max())}"
        )
    falls = torch.nonzero(partition[1:] < partition[:-1])[:, 0]
    if len(falls):
        row = int(falls[0]) + 1
        raise ValueError(
            f"{name}: expected the rows of each process together, in the order of processes, but "
            f"row {row} of process {int(partition[row])} comes after one of process "
            f"{int(partition[row - 1])}; renumber by torch.argsort(partition, stable=True)"
        )
    counts = torch.bincount(partition, minlength=size).tolist()
    return offsets_from(counts)


def offsets_from(counts: list[int]) -> list[int]:
    """0 and the running sums."""
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    return offsets
