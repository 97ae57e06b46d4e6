"""Matrices made of matrices: stacked, in blocks, on a diagonal, and Kronecker products.

Batches broadcast. Everything is differentiable in the values: those of the result are values of the
parts in another order, and for `kron` products of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from sparsetorch.algebra import Sparse
from sparsetorch.csr import CSRTensor
from sparsetorch.pattern import Pattern
from sparsetorch.structure import entry_keys, finding_structure, sorting_order, split_keys, wider
from sparsetorch.tensor_like import same_entries
from sparsetorch_kernels import permute

Block = tuple[int, int, CSRTensor]  # its place in the grid of blocks, and the block


def vstack(blocks: Iterable[CSRTensor]) -> CSRTensor:
    """One matrix above the other, with equal numbers of columns. As `scipy.sparse.vstack`.

    Raises:
        ValueError: no matrices, or sizes or devices that differ.
        TypeError: something else than a CSRTensor, or dtypes that differ.
    """
    return bmat([[block] for block in blocks])


def hstack(blocks: Iterable[CSRTensor]) -> CSRTensor:
    """One matrix beside the other, with equal numbers of rows. As `scipy.sparse.hstack`.

    Raises like `vstack`.
    """
    return bmat([list(blocks)])


def block_diag(blocks: Iterable[CSRTensor]) -> CSRTensor:
    """The matrices along the diagonal, zero elsewhere. As `scipy.sparse.block_diag`.

    Raises like `vstack`.
    """
    present = [(i, i, b) for i, b in enumerate(blocks)]
    return _assembled(present, len(present), len(present))


def bmat(blocks: Sequence[Sequence[CSRTensor | None]]) -> CSRTensor:
    """A matrix of blocks, given by rows; None is a block of zeros. As `scipy.sparse.block_array`.

    Raises:
        ValueError: rows of different lengths, a row or column without any block, or sizes or
            devices that differ.
        TypeError: something else than a CSRTensor, or dtypes that differ.
    """
    widths = {len(row) for row in blocks}
    if len(widths) != 1 or widths == {0}:
        raise ValueError(f"blocks: expected rows of one length, got {[len(row) for row in blocks]}")
    present = [
        (i, j, b) for i, row in enumerate(blocks) for j, b in enumerate(row) if b is not None
    ]
    return _assembled(present, len(blocks), widths.pop())


def _assembled(present: list[Block], n_block_rows: int, n_block_cols: int) -> CSRTensor:
    """The matrix of the given blocks, in a grid of so many."""
    _check(present)
    tops = _starts("row", [(i, f"({i}, {j})", b.pattern.shape[0]) for i, j, b in present],
                   n_block_rows)  # fmt: skip
    lefts = _starts("column", [(j, f"({i}, {j})", b.pattern.shape[1]) for i, j, b in present],
                    n_block_cols)  # fmt: skip
    shape = (tops[-1], lefts[-1])
    with finding_structure("vstack, hstack, block_diag, bmat"):
        keys = torch.cat(
            [
                entry_keys(b.pattern.row.long() + tops[i], b.pattern.col.long() + lefts[j], shape)
                for i, j, b in present
            ]
        )
        order = sorting_order(keys)
        ordered = keys if order is None else keys[order]
        pattern = _pattern(ordered, shape, [b.pattern for _, _, b in present])
    batch = torch.broadcast_shapes(*(b.values.shape[:-1] for _, _, b in present))
    values = torch.cat([b.values.expand(*batch, -1) for _, _, b in present], -1)
    return CSRTensor._of(Sparse(pattern, values if order is None else permute(values, order)))


def kron(A: CSRTensor, B: CSRTensor) -> CSRTensor:
    """The Kronecker product: block (i, j) is `a_ij B`. As `scipy.sparse.kron`.

    Raises like `vstack`.
    """
    _check([(0, 0, A), (0, 1, B)])
    (n, m), (p, q) = A.pattern.shape, B.pattern.shape
    shape = (n * p, m * q)
    with finding_structure("kron"):
        row = A.pattern.row.long()[:, None] * p + B.pattern.row
        col = A.pattern.col.long()[:, None] * q + B.pattern.col
        keys = entry_keys(row.flatten(), col.flatten(), shape)
        order = torch.argsort(keys)
        pattern = _pattern(keys[order], shape, [A.pattern, B.pattern])
    values = (A.values.unsqueeze(-1) * B.values.unsqueeze(-2)).flatten(-2)
    return CSRTensor._of(Sparse(pattern, permute(values, order)))


def _pattern(keys: Tensor, shape: tuple[int, int], parts: list[Pattern]) -> Pattern:
    """The pattern of sorted keys, with int64 indices if they need it or any of the parts has it."""
    crow, col = split_keys(keys, shape)
    for part in parts:
        crow = crow.to(wider(crow.dtype, part.crow.dtype))
        col = col.to(wider(col.dtype, part.dtype))
    return Pattern.trusted(crow, col, shape)


def _check(present: list[Block]) -> None:
    if not present:
        raise ValueError("blocks: expected at least one matrix")
    first = present[0][2]
    for i, j, block in present:
        if not isinstance(block, CSRTensor):
            raise TypeError(f"block ({i}, {j}): expected a CSRTensor, got {type(block).__name__}")
        if block.dtype != first.dtype:
            raise TypeError(
                f"block ({i}, {j}): is {block.dtype} and the first one {first.dtype}; convert one "
                "with .to(dtype)"
            )
        if block.device != first.device:
            raise ValueError(f"block ({i}, {j}): is on {block.device}, the first on {first.device}")


def _starts(what: str, found: list[tuple[int, str, int]], count: int) -> list[int]:
    """Where each row (column) of blocks starts, and the end, from the sizes of their blocks."""
    sizes: dict[int, int] = {}
    for index, name, size in found:
        if sizes.setdefault(index, size) != size:
            raise ValueError(
                f"block {name}: expected {sizes[index]} {what}s like the others of block {what} "
                f"{index}, got {size}"
            )
    missing = [index for index in range(count) if index not in sizes]
    if missing:
        raise ValueError(
            f"blocks: {what} {missing[0]} has only None, so its size is unknown; put an empty "
            "matrix there"
        )
    return [0, *accumulate(sizes[index] for index in range(count))]


def stack(matrices: Iterable[CSRTensor]) -> CSRTensor:
    """A batch of matrices with the same entries, along a new first dimension. As `torch.stack`.

    Its pattern is that of the first matrix; the others may have equal ones of their own. Matrices
    with other entries have to be on one pattern first: `A + 0 * B` has the entries of both.
    `DataLoader` makes batches of CSRTensors with this function. Its worker processes send each
    batch with a pattern of its own, on which nothing is kept for the next one.

    Raises:
        ValueError: no matrices, other entries, or devices or batches that differ.
        TypeError: something else than a CSRTensor, or dtypes that differ.
    """
    present = list(matrices)
    _check([(0, i, A) for i, A in enumerate(present)])
    first = present[0]
    for i, A in enumerate(present):
        if A.shape != first.shape or not same_entries(A.pattern, first.pattern):
            raise ValueError(
                f"matrix {i}: expected the shape {tuple(first.shape)} and the {first.nnz} entries "
                f"of the first one, got shape {tuple(A.shape)} and {A.nnz} entries that differ; "
                "put matrices on one pattern (A + 0 * B), or on a diagonal (block_diag), or, in a "
                "DataLoader, pass collate_fn=list"
            )
    return CSRTensor._of(Sparse(first.pattern, torch.stack([A.values for A in present])))


def _collated(batch: Sequence[CSRTensor], *, collate_fn_map: Any = None) -> CSRTensor:
    return stack(batch)


default_collate_fn_map[CSRTensor] = _collated
