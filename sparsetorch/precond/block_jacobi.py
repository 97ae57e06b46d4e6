"""Block Jacobi: the inverses of diagonal blocks (Saad, Iterative Methods, section 12.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.checks import check_index
from sparsetorch.csr import CSRTensor
from sparsetorch.dense_inverse import inverses
from sparsetorch.precond.jacobi import check_square
from sparsetorch.precond.pytrees import register
from sparsetorch.precond.vectors import check_vectors


class BlockJacobi:
    """The preconditioner z_B = A_BB^-1 r_B, for disjoint sets B of unknowns.

    inverses: (n_blocks, m, m), smaller blocks in the upper left corner. slots: (n,) int64, the
    place of each unknown among the n_blocks m rows of all blocks. Made by `block_jacobi`.
    """

    def __init__(self, inverses: Tensor, slots: Tensor):
        self.inverses = inverses
        self.slots = slots

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n); another size or dtype is refused, as in `Jacobi`."""
        check_vectors("block Jacobi", r, self.slots.shape[-1], self.inverses)
        n_blocks, m, _ = self.inverses.shape
        parts = r.new_zeros(*r.shape[:-1], n_blocks * m).index_copy(-1, self.slots, r)
        images = self.inverses @ parts.unflatten(-1, (n_blocks, m))[..., None]
        return images.flatten(-3).index_select(-1, self.slots)

    @property
    def T(self) -> BlockJacobi:
        """The same for the transposed matrix."""
        return BlockJacobi(self.inverses.mT, self.slots)


register(BlockJacobi, ("inverses", "slots"))


def block_jacobi(
    A: CSRTensor, block_size: int | None = None, *, partition: Tensor | None = None
) -> BlockJacobi:
    """Invert the diagonal blocks of A that a block size or a partition describes.

    A: one square CSRTensor, (n, n). block_size: unknowns 0, ..., block_size - 1 are the first
    block, and so on; the last one may be smaller. partition: (n,) int32 or int64, the block of each
    unknown, from 0 on, instead. Takes the memory of all blocks at the size m of the largest,
    n_blocks m^2. Symmetric (Hermitian if complex) positive definite if A is. Applied outside a
    solver it is differentiable in `A.values` and r.

    Raises:
        ValueError: A is a batch or not square, a block is singular, both or none of block_size and
            partition are given, or one does not fit.
    """
    check_square(A)
    labels = _labels(A, block_size, partition)
    sizes = torch.bincount(labels)
    n_blocks, m = len(sizes), int(sizes.max()) if len(sizes) else 0
    order = torch.argsort(labels, stable=True)
    within = torch.arange(len(labels), device=A.device) - (sizes.cumsum(0) - sizes)[labels[order]]
    slots = torch.empty_like(labels)
    slots[order] = labels[order] * m + within
    blocks = _gathered(A, labels, slots, n_blocks, m)
    inverse, info = inverses(blocks)
    singular = torch.nonzero(info)[:, 0]
    if len(singular):
        first = int(singular[0])
        raise ValueError(
            f"A: {len(singular)} diagonal blocks are singular, the first of them block {first}, "
            f"which starts with row {int(order[labels[order] == first][0])}"
        )
    return BlockJacobi(inverse, slots)


def _labels(A: CSRTensor, block_size: int | None, partition: Tensor | None) -> Tensor:
    """The block of each unknown, (n,) int64."""
    n = A.shape[0]
    if (block_size is None) == (partition is None):
        raise ValueError("block_size, partition: expected one of the two")
    if partition is None:
        assert block_size is not None
        if block_size < 1:
            raise ValueError(f"block_size: expected at least 1, got {block_size}")
        return torch.arange(n, device=A.device) // block_size
    check_index("partition", partition, n)
    if partition.shape != (n,):
        raise ValueError(f"partition: expected ({n},) like A, got shape {tuple(partition.shape)}")
    return partition.to(A.device, torch.int64)


def _gathered(A: CSRTensor, labels: Tensor, slots: Tensor, n_blocks: int, m: int) -> Tensor:
    """The diagonal blocks, (n_blocks, m, m), with ones on the diagonal where a block has ended."""
    row, col = A.pattern.row.long(), A.pattern.col.long()
    inside = torch.nonzero(labels[row] == labels[col])[:, 0]
    place = slots[row[inside]] * m + slots[col[inside]] % m
    used = A.values.new_zeros(n_blocks * m).index_fill(0, slots, 1)
    flat = torch.diag_embed(1 - used.view(n_blocks, m)).flatten()
    return flat.index_copy(0, place, A.values[inside]).view(n_blocks, m, m)
