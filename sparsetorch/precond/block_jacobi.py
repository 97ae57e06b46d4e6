"""Block Jacobi: the inverses of diagonal blocks (Saad, Iterative Methods, section 12.2.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch.checks import check_count, check_index
from sparsetorch.csr import CSRTensor
from sparsetorch.dense_inverse import inverses
from sparsetorch.linalg.full_precision import in_full_precision
from sparsetorch.pattern import Pattern
from sparsetorch.precond.jacobi import check_square
from sparsetorch.precond.pytrees import register
from sparsetorch.precond.vectors import check_vectors
from sparsetorch.structure import finding_structure, members, outside_transforms


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
        with in_full_precision(r.device):
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
    unknown, from 0 on, instead. What depends on the pattern and a block size is found once. Takes
    the memory of all blocks at the size m of the largest, n_blocks m^2. Symmetric (Hermitian if
    complex) positive definite if A is. Applied outside a solver it is differentiable in `A.values`
    and r.

    Raises:
        ValueError: A is a batch or not square, a block is singular (which compiled code cannot look
            for: there a solve diverges), both or none of block_size and
            partition are given, or one does not fit.
        TypeError: A is not a CSRTensor, or block_size no number.
    """
    check_square(A)
    structure = _structure(A.pattern, block_size, partition)
    inverse, info = inverses(structure.blocks_of(A.values))
    if not torch.compiler.is_compiling():
        _refuse_singular(info, structure)
    return BlockJacobi(inverse, structure.slots)


class _Structure(NamedTuple):
    """Where the diagonal blocks are.

    size: (n_blocks, m). slots: (n,), as in `BlockJacobi`. inside: which entries of the matrix are
    in a block. place: where each of these goes among the n_blocks m m entries of all blocks.
    """

    size: tuple[int, int]
    slots: Tensor
    inside: Tensor
    place: Tensor

    def blocks_of(self, values: Tensor) -> Tensor:
        """The diagonal blocks, (n_blocks, m, m), with ones on the diagonal after a block's end."""
        n_blocks, m = self.size
        used = values.new_zeros(n_blocks * m).index_fill(0, self.slots, 1)
        flat = torch.diag_embed(1 - used.view(n_blocks, m)).flatten()
        flat = flat.index_copy(0, self.place, values.index_select(0, self.inside))
        return flat.view(n_blocks, m, m)


def _structure(pattern: Pattern, block_size: int | None, partition: Tensor | None) -> _Structure:
    """The structure, which a pattern keeps for a block size."""
    n = pattern.shape[0]
    if (block_size is None) == (partition is None):
        raise ValueError("block_size, partition: expected one of the two")
    if block_size is not None:
        size = check_count("block_size", block_size, "unknown")

        def find(pattern: Pattern) -> _Structure:
            return _found(pattern, torch.arange(n, device=pattern.device) // size)

        return pattern.kept(f"blocks of {size}", find)
    assert partition is not None
    with finding_structure("block_jacobi with a partition"):
        check_index("partition", partition, n)
        if partition.shape != (n,):
            raise ValueError(
                f"partition: expected ({n},) like A, got shape {tuple(partition.shape)}"
            )
        return _found(pattern, partition.to(pattern.device, torch.int64))


def _found(pattern: Pattern, labels: Tensor) -> _Structure:
    """The structure from the block of each unknown, (n,) int64."""
    sizes = torch.bincount(labels)
    n_blocks, m = len(sizes), int(sizes.max()) if len(sizes) else 0
    order = torch.argsort(labels, stable=True)
    within = torch.arange(len(labels), device=pattern.device)
    within = within - (sizes.cumsum(0) - sizes)[labels[order]]
    slots = torch.empty_like(labels)
    slots[order] = labels[order] * m + within
    row, col = pattern.row.long(), pattern.col.long()
    inside = torch.nonzero(labels[row] == labels[col])[:, 0]
    place = slots[row[inside]] * m + slots[col[inside]] % m
    return _Structure((n_blocks, m), slots, inside, place)


def _refuse_singular(info: Tensor, structure: _Structure) -> None:
    with outside_transforms():
        singular = torch.nonzero(members(info))[:, -1]
        if len(singular):
            first = int(singular.min())
            row = torch.nonzero(structure.slots == first * structure.size[1])[0]
            raise ValueError(
                f"A: {len(singular)} diagonal blocks are singular, the first of them block "
                f"{first}, which starts with row {int(row)}"
            )
