"""Structure without values: transposes, the pattern of a product, the places of entries.

On CPU the native library finds them, or SciPy where it is not there; on other devices they are
found by sorting in PyTorch. Index dtypes are kept; nothing here has a gradient.
"""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sparsetorch_kernels import _native
from sparsetorch_kernels.csr.checks import check_layout, check_product
from sparsetorch_kernels.csr.reference import row_ids, scalar_products
from sparsetorch_kernels.layout import Layout, alike


def transpose_structure(crow: Tensor, col: Tensor, n_cols: int) -> tuple[Tensor, Tensor, Tensor]:
    """Transpose a CSR pattern.

    crow (n_rows + 1,), col (nnz,) describe an (n_rows, n_cols) pattern, with the index dtypes that
    `Layout` allows. Returns (t_crow (n_cols + 1,), t_col (nnz,), t_perm (nnz,)), in the dtypes of
    crow, col and crow: the transposed pattern with sorted columns, and the position in the original
    order of each of its entries. Equivalent to `scipy.sparse.csr_array.tocsc` on a matrix whose
    values are 0, 1, 2, ... A symmetric pattern is its own transpose: the arrays that come back may
    be those that were given.
    """
    if col.device.type != "cpu":
        return transpose_by_sorting(crow, col, n_cols)
    if (native := _native.ops()) is not None:
        if crow.numel() - 1 == n_cols:
            mirror = native.mirrored_entries(crow, col)
            if mirror.numel() == col.numel():
                return crow, col, mirror
        return native.transpose_structure(crow, col, n_cols)
    return transpose_by_scipy(crow, col, n_cols)


def spgemm_structure(a: Layout, b: Layout) -> tuple[Tensor, Tensor]:
    """The pattern of the product A B, cancellation ignored.

    a (n, m), b (m, p) -> (crow (n + 1,), col (nnz,)), sorted and unique, in a's index dtypes, but
    crow in int64 where the product has more entries than its dtype can count. Raises ValueError or
    TypeError for layouts that do not fit each other.
    """
    check_layout("a", a)
    check_product(a, b)
    if a.col.device.type != "cpu":
        crow, col = product_by_sorting(a, b)
    elif (native := _native.ops()) is not None:
        a, b = alike((a, b))
        crow, col = native.product_structure(a.crow, a.col, b.crow, b.col, b.n_cols)
    else:
        crow, col = product_by_scipy(a, b)
    return narrowed(crow, a), col.to(a.col.dtype)


def narrowed(crow: Tensor, a: Layout) -> Tensor:
    """Row pointers of a product A B in the dtype of A's, if that can count its entries."""
    fits = int(crow[-1]) <= torch.iinfo(a.crow.dtype).max
    return crow.to(a.crow.dtype) if fits else crow.long()


def find_entries(crow: Tensor, col: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Where the entries at pairs (rows[k], cols[k]) are: (len,) int64, -1 for those not stored.

    crow (n_rows + 1,), col (nnz,) with columns that increase in each row; rows and cols (len,)
    int64, rows from 0 to n_rows - 1. By binary search within each row.
    """
    if col.device.type == "cpu" and (native := _native.ops()) is not None:
        return native.find_entries(crow, col, rows, cols)
    return find_by_bisection(crow, col, rows, cols)


def find_by_bisection(crow: Tensor, col: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """`find_entries`, all pairs a step at a time."""
    low = crow.index_select(0, rows).long()
    end = crow.index_select(0, rows + 1).long()
    if col.numel() == 0 or rows.numel() == 0:
        return torch.full_like(low, -1)
    high, last = end, col.numel() - 1
    for _ in range(int((end - low).max()).bit_length()):
        middle = (low + high) >> 1
        is_below = (col.index_select(0, middle.clamp(max=last)) < cols) & (low < high)
        low, high = torch.where(is_below, middle + 1, low), torch.where(is_below, high, middle)
    stored = (low < end) & (col.index_select(0, low.clamp(max=last)) == cols)
    return torch.where(stored, low, -1)


def principal_blocks(
    crow: Tensor, col: Tensor, first: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The principal submatrices of a square pattern on sets of indices, as one block-diagonal one.

    crow (n + 1,), col (nnz,) with columns that increase in each row; first (S + 1,) and index (N,)
    int64: set k is index[first[k]:first[k + 1]], increasing. Returns (crow (N + 1,), col, source),
    int64: the (N, N) pattern whose rows and columns are numbered through all sets, and the place of
    each of its entries in the given one.
    """
    if col.device.type == "cpu" and (native := _native.ops()) is not None:
        return native.principal_blocks(crow, col, first, index)
    return blocks_by_bisection(crow, col, first, index)


def blocks_by_bisection(
    crow: Tensor, col: Tensor, first: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`principal_blocks`, by a search for the column of each entry of each row."""
    counts = crow.diff().long().index_select(0, index)
    row = torch.repeat_interleave(counts)
    starts = crow.long().index_select(0, index) - (counts.cumsum(0) - counts)
    source = starts.index_select(0, row) + torch.arange(len(row), device=row.device)
    in_set = torch.repeat_interleave(first.diff()).index_select(0, row)
    found = find_by_bisection(first, index, in_set, col.long().index_select(0, source))
    held = found >= 0
    kept = torch.bincount(row[held], minlength=len(index))
    return torch.cat([kept.new_zeros(1), kept.cumsum(0)]), found[held], source[held]


def transpose_by_scipy(crow: Tensor, col: Tensor, n_cols: int) -> tuple[Tensor, Tensor, Tensor]:
    """`transpose_structure` by SciPy's counting sort."""
    order = np.arange(col.numel(), dtype=np.int32 if crow.dtype == torch.int32 else np.int64)
    shape = (crow.numel() - 1, n_cols)
    turned = sparse.csr_array((order, col.numpy(), crow.numpy()), shape=shape).tocsc()
    # SciPy picks an index dtype by size; the kernels expect the caller's.
    t_crow, t_col, t_perm = map(torch.from_numpy, (turned.indptr, turned.indices, turned.data))
    return t_crow.to(crow.dtype), t_col.to(col.dtype), t_perm.to(crow.dtype)


def transpose_by_sorting(crow: Tensor, col: Tensor, n_cols: int) -> tuple[Tensor, Tensor, Tensor]:
    """`transpose_structure` by a stable sort of the columns."""
    ordered, order = torch.sort(col, stable=True)
    bounds = torch.arange(n_cols + 1, dtype=col.dtype, device=col.device)
    t_crow = torch.searchsorted(ordered, bounds)
    return t_crow.to(crow.dtype), row_ids(crow)[order].to(col.dtype), order.to(crow.dtype)


def product_by_scipy(a: Layout, b: Layout) -> tuple[Tensor, Tensor]:
    """`spgemm_structure` as a product of booleans, whose sums are "or": nothing cancels."""
    left, right = (
        sparse.csr_array(
            (np.ones(x.col.numel(), dtype=np.bool_), x.col.numpy(), x.crow.numpy()),
            shape=(x.n_rows, x.n_cols),
        )
        for x in (a, b)
    )
    product = sparse.csr_array(left @ right)
    product.sort_indices()
    return torch.from_numpy(product.indptr), torch.from_numpy(product.indices)


def product_by_sorting(a: Layout, b: Layout) -> tuple[Tensor, Tensor]:
    """`spgemm_structure` by sorting every scalar product; memory grows with their number."""
    row, col, _, _ = scalar_products(a, b)
    keys = torch.unique(row * b.n_cols + col)
    bounds = torch.arange(a.n_rows + 1, device=keys.device) * b.n_cols
    return torch.searchsorted(keys, bounds), keys % max(b.n_cols, 1)
