"""The structure of a distributed matrix: which process owns what, and the plan of its halo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.distributed.groups import Group, check_device, together, told
from sparsetorch.distributed.halo import Halo, plan_halo
from sparsetorch.distributed.partition import even_offsets, offsets_from, offsets_of
from sparsetorch.pattern import Pattern, Selection

Offsets = list[int]  # process p owns offsets[p]:offsets[p + 1]


@dataclass(frozen=True, eq=False)
class Blocks:
    """The structure of a distributed matrix: what each process owns, and the plan of its halo.

    rows, cols: process p owns rows[p]:rows[p + 1] of the result, cols[p]:cols[p + 1] of x.
    pattern: the block of rows, over the columns that it has entries in and the own ones, in order.
    """

    group: Group
    rows: Offsets
    cols: Offsets
    pattern: Pattern
    halo: Halo

    @property
    def diagonal_block(self) -> Selection:
        """The entries in own columns; found once and kept on the pattern."""
        start, own = self.halo.below, self.halo.n_own

        def find(pattern: Pattern) -> Selection:
            return pattern.submatrix(slice(None), slice(start, start + own))

        return self.pattern.kept(f"diagonal block {start} {own}", find)


def split(
    A: CSRTensor, group: Group, partition: Tensor | None, column_partition: Tensor | None
) -> tuple[Offsets, Offsets]:
    """Who owns which rows and columns of a matrix that all processes have; raises in all of them.

    Raises:
        ValueError, TypeError: see `DistributedCSR.from_global`.
    """

    def offsets() -> tuple[Offsets, Offsets]:
        _check_matrix(A, group)
        n, m = A.shape
        size = dist.get_world_size(group)
        rows = offsets_of("partition", partition, n, size)
        if column_partition is None:
            return rows, rows if n == m else even_offsets(m, size)
        return rows, offsets_of("column_partition", column_partition, m, size)

    rows, cols = together(group, offsets)
    kinds = told(group, (tuple(A.shape), A.nnz, str(A.dtype), rows, cols))
    for rank, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"A: expected one matrix and one partition in all processes, but (shape, nnz, "
                f"dtype, first rows, first columns) are {kinds[0]} in process 0 and {kind} in "
                f"process {rank}"
            )
    return rows, cols


def stack(A: CSRTensor, group: Group, column_partition: Tensor | None) -> tuple[Offsets, Offsets]:
    """Who owns what of a matrix of which each process has some rows; raises in all processes.

    Raises:
        ValueError, TypeError: see `DistributedCSR.from_local_rows`.
    """
    together(group, lambda: _check_matrix(A, group))
    kinds = told(group, (A.shape[0], A.shape[1], str(A.dtype)))
    rows = offsets_from([kind[0] for kind in kinds])
    for rank, kind in enumerate(kinds):
        if kind[1:] != kinds[0][1:]:
            raise ValueError(
                f"A: expected the columns and the dtype of process 0, {kinds[0][1:]}, in all "
                f"processes, got {kind[1:]} in process {rank}"
            )

    def columns() -> Offsets:
        m = A.shape[1]
        if column_partition is None and m == rows[-1]:
            return rows
        size = dist.get_world_size(group)
        return offsets_of("column_partition", column_partition, m, size)

    return rows, together(group, columns)


def make_blocks(group: Group, crow: Tensor, col: Tensor, rows: Offsets, cols: Offsets) -> Blocks:
    """The structure of this process's rows, whose columns are numbered as in the whole matrix.

    Its own columns are renumbered in order, so that values stay where they are.
    """
    rank = dist.get_rank(group)
    start, stop = cols[rank], cols[rank + 1]
    outside = torch.unique(col[(col < start) | (col >= stop)].long())
    halo = plan_halo(group, outside, cols)
    own = torch.arange(start, stop, device=col.device)
    seen = torch.cat([outside[: halo.below], own, outside[halo.below :]])
    local = torch.searchsorted(seen, col.long())
    pattern = Pattern(crow, local, (len(crow) - 1, len(seen)))
    return Blocks(group, rows, cols, pattern, halo)


def _check_matrix(A: CSRTensor, group: Group) -> None:
    if not isinstance(A, CSRTensor):
        raise TypeError(f"A: expected a CSRTensor, got {type(A).__name__}")
    if A.ndim != 2:
        raise ValueError(f"A: expected one matrix, got a batch of shape {tuple(A.shape[:-2])}")
    check_device(group, A.device)
