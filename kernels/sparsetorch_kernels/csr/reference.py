"""The specification of the CSR products, in plain PyTorch: slow, obvious, any dtype and device.

Every function takes values and dense operands with exactly one batch dimension, of size B or 1
(which is broadcast), and reads values through the layout's permutation.
"""

import torch
from torch import Tensor

from sparsetorch_kernels.layout import Layout


def spmm(layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    """Sparse times dense: y[b, i] = sum over the entries k of row i of values[b, k] x[b, col[k]].

    values (B or 1, nnz), x (B or 1, n_cols, k) -> (B, n_rows, k).
    """
    weights = read(values, layout.perm)
    terms = weights.unsqueeze(-1) * x.index_select(1, layout.col)  # (B, nnz, k)
    out = terms.new_zeros(terms.shape[0], layout.n_rows, x.shape[2])
    return out.index_add(1, row_ids(layout.crow), terms)


def sddmm(layout: Layout, u: Tensor, v: Tensor) -> Tensor:
    """Dense times dense at the entries of a pattern: out[b, k] = <u[b, row[k]], v[b, col[k]]>.

    u (B or 1, n_rows, k), v (B or 1, n_cols, k) -> (B, nnz) in the order of the values.
    """
    row = row_ids(layout.crow)
    products = u.index_select(1, row) * v.index_select(1, layout.col)  # (B, nnz, k)
    return write(products.sum(-1), layout.perm)


def spgemm(a: Layout, a_values: Tensor, b: Layout, b_values: Tensor, c: Layout) -> Tensor:
    """Sparse times sparse on a given pattern: the values of A B at the entries of c.

    a (n, m) with a_values (B or 1, nnz_a), b (m, p) with b_values (B or 1, nnz_b), c (n, p)
    -> (B, nnz_c) in the order of c's values. Entries of the product outside c are dropped; entries
    of c that no product reaches are zero. Expands every scalar product (Gustavson's row form,
    ACM TOMS 4, 1978, without the accumulator), so memory grows with their number.
    """
    i, j, left, right = scalar_products(a, b)
    wanted = row_ids(c.crow) * c.n_cols + c.col.long()  # sorted: rows in order, columns in order
    keys = i * c.n_cols + j
    place = torch.searchsorted(wanted, keys)
    found = place < wanted.numel()
    found[found.clone()] = wanted[place[found]] == keys[found]
    terms = read(a_values, a.perm)[:, left[found]] * read(b_values, b.perm)[:, right[found]]
    view = terms.new_zeros(terms.shape[0], wanted.numel()).index_add(1, place[found], terms)
    return write(view, c.perm)


def row_ids(crow: Tensor) -> Tensor:
    """Row of each entry: crow (n_rows + 1,) -> (nnz,) int64."""
    rows = torch.arange(crow.numel() - 1, device=crow.device)
    return rows.repeat_interleave(crow.diff().long())


def scalar_products(a: Layout, b: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every scalar product of A B: row, column, entry in a's view, entry in b's (int64)."""
    length = b.crow.diff().long()[a.col.long()]  # products that each entry of a takes part in
    left = torch.arange(a.col.numel(), device=a.col.device).repeat_interleave(length)
    first = torch.cumsum(length, 0) - length
    within = torch.arange(left.numel(), device=left.device) - first[left]
    right = b.crow.long()[a.col.long()[left]] + within
    return row_ids(a.crow)[left], b.col.long()[right], left, right


def read(values: Tensor, perm: Tensor | None) -> Tensor:
    """Values (B, nnz) in the order of the view."""
    return values if perm is None else values.index_select(1, perm)


def write(view: Tensor, perm: Tensor | None) -> Tensor:
    """The inverse of `read`: entries (B, nnz) of the view in the order of the values."""
    return view if perm is None else torch.zeros_like(view).index_copy(1, perm.long(), view)
