"""DistributedCSR: a sparse matrix of which each process holds a block of rows."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from sparsetorch.checks import check_tensor
from sparsetorch.csr import CSRTensor
from sparsetorch.distributed.blocks import Blocks, make_blocks, split, stack
from sparsetorch.distributed.groups import Group, check_group
from sparsetorch_kernels import sddmm


class DistributedCSR:
    """A sparse matrix split by blocks of rows over the processes of a torch.distributed group.

    values: (local nnz,), of this process's rows, in their order; they may require gradients. Made
    by `from_global` or `from_local_rows`; vectors are split alike, and `A @ x` takes and returns
    local rows. Differentiable in values and x any number of times, in reverse and forward mode,
    and mapped by `torch.vmap` over x: derivatives exchange the halo in the other direction.

    Cost of a product: the local one, and `n_sent` rows of x out and `n_halo` in, of
    k * itemsize bytes each for x (n, k), by one all_to_all; `A.T @ y` sends the same back. All
    processes make the same calls in the same order; one that raises on its own, because its x does
    not fit, leaves the others waiting until the group's timeout.
    """

    __array_ufunc__ = None

    def __init__(self, blocks: Blocks, values: Tensor, transposed: bool = False):
        check_tensor("values", values)
        pattern = blocks.pattern
        if values.shape != (pattern.nnz,):
            raise ValueError(
                f"values: expected ({pattern.nnz},), one for each entry of this process's rows, "
                f"got shape {tuple(values.shape)}"
            )
        self.blocks = blocks
        self._local = CSRTensor(pattern, values)
        self._transposed = transposed

    @classmethod
    def from_global(
        cls,
        A: CSRTensor,
        group: Group = None,
        partition: Tensor | None = None,
        column_partition: Tensor | None = None,
    ) -> DistributedCSR:
        """The rows that this process owns of a matrix that every process has in whole.

        A: (n, m), one matrix. group: the default one if None. partition: (n,) int32 or int64, the
        process of each row, never decreasing; blocks of even size by default. column_partition:
        (m,), the process of each entry of x; `partition` for a square matrix, even otherwise.
        Differentiable in `A.values`: each process gets the gradients of its own rows.

        Raises:
            ValueError: torch.distributed is not initialised, A is a batch or on a device that the
                group cannot send from, or a partition does not fit; in all processes, if it is so
                in any.
            TypeError: A is not a CSRTensor.
        """
        check_group(group)
        rows, cols = split(A, group, partition, column_partition)
        start, stop = (rows[dist.get_rank(group) + step] for step in (0, 1))
        crow = A.pattern.crow[start : stop + 1]
        first, last = int(crow[0]), int(crow[-1])
        blocks = make_blocks(group, crow - first, A.pattern.col[first:last], rows, cols)
        return cls(blocks, A.values[first:last])

    @classmethod
    def from_local_rows(
        cls, A: CSRTensor, group: Group = None, column_partition: Tensor | None = None
    ) -> DistributedCSR:
        """The matrix whose rows are those of the processes, one block below the other.

        A: (local rows, m), columns numbered as in the whole matrix; local rows may be none.
        column_partition: (m,), the process of each entry of x; by default as the rows where the
        whole matrix is square, even otherwise. Differentiable in `A.values`.

        Raises:
            ValueError, TypeError: as `from_global`, or the processes differ in m or the dtype.
        """
        check_group(group)
        rows, cols = stack(A, group, column_partition)
        return cls(make_blocks(group, A.pattern.crow, A.pattern.col, rows, cols), A.values)

    def with_values(self, values: Tensor) -> DistributedCSR:
        """The matrix with this structure, and other values (local nnz,) in this process.

        Raises:
            ValueError: another shape, or another device than the structure's.
        """
        return DistributedCSR(self.blocks, values, self._transposed)

    # Attributes

    @property
    def values(self) -> Tensor:
        """The values of this process's rows (of the matrix itself, not of its transpose)."""
        return self._local.values

    @property
    def group(self) -> Group:
        """The process group, None for the default one."""
        return self.blocks.group

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the whole matrix."""
        return self._row_offsets[-1], self._col_offsets[-1]

    @property
    def rows(self) -> slice:
        """The rows of the result that this process has."""
        return self._own(self._row_offsets)

    @property
    def cols(self) -> slice:
        """The entries of x that this process has."""
        return self._own(self._col_offsets)

    @property
    def n_halo(self) -> int:
        """Rows of x that a product brings from other processes."""
        return self.blocks.halo.size

    @property
    def n_sent(self) -> int:
        """Rows of x that a product sends to other processes, one that several need for each."""
        return len(self.blocks.halo.sent)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where this process's values and structure are."""
        return self.values.device

    @property
    def T(self) -> DistributedCSR:
        """The transpose: the same rows in the same places, seen as columns."""
        return DistributedCSR(self.blocks, self.values, not self._transposed)

    def detach(self) -> DistributedCSR:
        """The same matrix, cut from the graph of its values."""
        return self.with_values(self.values.detach())

    def diagonal_block(self) -> CSRTensor:
        """The entries of own rows in own columns: local, differentiable in the values.

        Any preconditioner of `sparsetorch.precond` that is made of it is one of the whole matrix:
        Jacobi of it is Jacobi, ILU(0) of it is block Jacobi with one block for each process.
        """
        block = self._local.select(self.blocks.diagonal_block)
        return block.T if self._transposed else block

    # Products

    def matmul(self, x: Tensor) -> Tensor:
        """`A @ x`: the local rows of x, (local,) or (local, k), to those of the result.

        Raises:
            ValueError: sizes or devices differ.
            TypeError: dtypes differ, or x is not a tensor.
        """
        self.check_operand("x", x)
        columns = x[:, None] if x.ndim == 1 else x
        halo = self.blocks.halo
        if self._transposed:
            y = halo.give(self._local.rmatmul(columns.mT).mT)
        else:
            y = self._local.matmul(halo.fetch(columns))
        return y[:, 0] if x.ndim == 1 else y

    __matmul__ = matmul

    def outer(self, u: Tensor, v: Tensor) -> Tensor:
        """The entries of `u v^T` on this process's part of the pattern, like `values`.

        u: like the result of `A @ x`. v: like x. The gradient of the values is such a product.
        """
        if self._transposed:
            u, v = v, u
        u, v = (t[:, None] if t.ndim == 1 else t for t in (u, v))
        return sddmm(self.blocks.pattern.layout, u, self.blocks.halo.fetch(v))

    @property
    def _row_offsets(self) -> list[int]:
        return self.blocks.cols if self._transposed else self.blocks.rows

    @property
    def _col_offsets(self) -> list[int]:
        return self.blocks.rows if self._transposed else self.blocks.cols

    def _own(self, offsets: list[int]) -> slice:
        rank = dist.get_rank(self.group)
        return slice(offsets[rank], offsets[rank + 1])

    def check_operand(self, name: str, x: Tensor) -> None:
        """Raise TypeError or ValueError unless x is what `A @ x` takes."""
        check_tensor(name, x)
        own = self.cols
        n = own.stop - own.start
        if x.ndim not in (1, 2) or x.shape[0] != n:
            raise ValueError(
                f"{name}: expected ({n},) or ({n}, k), rows {own.start} to {own.stop - 1} of the "
                f"whole vector, got shape {tuple(x.shape)}"
            )
        if x.dtype != self.dtype:
            raise TypeError(
                f"{name}: expected {self.dtype} like the matrix, got {x.dtype}; convert one with "
                ".to(dtype)"
            )
        if x.device != self.device:
            raise ValueError(
                f"{name}: expected on {self.device} like the matrix, got {x.device}; move one with "
                ".to(device)"
            )

    def __repr__(self) -> str:
        own = self.rows
        return (
            f"DistributedCSR(shape={self.shape}, rows {own.start} to {own.stop - 1} here, local "
            f"nnz={self.blocks.pattern.nnz}, dtype={self.dtype}, device='{self.device}')"
        )
