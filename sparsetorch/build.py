"""Patterns and values from other forms of a sparse matrix: COO triplets, SciPy, dense."""

from __future__ import annotations

from typing import Any, NamedTuple

import scipy.sparse as sp
import torch
from torch import Tensor

from sparsetorch.algebra import Sparse
from sparsetorch.checks import (
    check_compressed,
    check_index,
    check_integers,
    check_tensor,
    checked_shape,
    unordered_entry,
)
from sparsetorch.foreign import check_scipy, checked_values
from sparsetorch.pattern import Pattern, check_pattern
from sparsetorch.structure import (
    check_places,
    compress_rows,
    finding_structure,
    index_dtypes,
    members,
    plain,
    row_major_order,
    split_keys,
)
from sparsetorch_kernels import permute, spmv


class Assembly(NamedTuple):
    """Where COO triplets go: keep it to assemble new values on a known structure without sorting.

    order: (n,) triplets in row-major order. groups: the pattern of the (nnz, n) 0/1 matrix that
    sums the ordered triplets of each entry, or None when no two triplets meet.
    """

    pattern: Pattern
    order: Tensor
    groups: Pattern | None

    def sum(self, values: Tensor) -> Tensor:
        """(*batch, n) triplet values -> (*batch, nnz), differentiable.

        Duplicates are summed in the order in which they were given, so the result is the same in
        every run, on every number of threads and on every device.

        Raises:
            ValueError: another number of values, or another device.
            TypeError: not a tensor of floating or complex numbers.
        """
        check_tensor("values", values)
        if values.ndim < 1 or values.shape[-1] != self.order.numel():
            raise ValueError(
                f"values: expected {self.order.numel()} in the last dimension, one for each "
                f"triplet, got shape {tuple(values.shape)}"
            )
        if values.device != self.order.device:
            raise ValueError(
                f"values: expected on {self.order.device} like row, got {values.device}"
            )
        if not (values.is_floating_point() or values.is_complex()):
            raise TypeError(f"values: expected floating or complex numbers, got {values.dtype}")
        values = permute(values, self.order)
        if self.groups is None:
            return values
        return spmv(self.groups.layout, values.new_ones(values.shape[-1]), values)


def assembly(row: Tensor, col: Tensor, shape: tuple[int, int]) -> Assembly:
    """Plan the assembly of COO triplets, in any order and with duplicates.

    row, col: (n,) int32 or int64.

    Raises:
        ValueError: not 1-D integer tensors of one length on one device, or an index out of range.
    """
    with finding_structure("assembly"):
        row, col = plain(row), plain(col)
        shape = checked_shape(shape)
        check_integers("row", row)
        check_integers("col", col)
        if row.shape != col.shape or row.device != col.device:
            raise ValueError(
                f"col: expected {row.numel()} indices on {row.device} like row, got "
                f"{col.numel()} on {col.device}"
            )
        check_index("row", row, shape[0])
        check_index("col", col, shape[1])
        check_places(shape)
        place = row_major_order(row, col, shape)
        if place is None:
            order = torch.arange(row.numel(), device=row.device)
        else:
            order, row, col = place, row.index_select(0, place), col.index_select(0, place)
        is_first = torch.ones_like(row, dtype=torch.bool)
        is_first[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
        starts = torch.nonzero(is_first)[:, 0]
        if len(starts) < len(row):
            row, col = row.index_select(0, starts), col.index_select(0, starts)
        dtypes = index_dtypes(shape, row.numel())
        crow = compress_rows(row, shape[0]).to(dtypes.crow)
        pattern = Pattern.trusted(crow, col.to(dtypes.col, copy=True), shape)
        groups = _groups(starts, order.numel()) if pattern.nnz < order.numel() else None
        return Assembly(pattern, order, groups)


def _groups(starts: Tensor, n_triplets: int) -> Pattern:
    """The 0/1 matrix that sums ordered triplets; those of an entry start where `starts` says."""
    shape = (starts.numel(), n_triplets)
    dtype = index_dtypes(shape, n_triplets).crow
    ends = torch.cat([starts, starts.new_full((1,), n_triplets)]).to(dtype)
    triplets = torch.arange(n_triplets, dtype=dtype, device=starts.device)
    return Pattern.trusted(ends, triplets, shape)


def from_coo(row: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Sparse:
    """Assemble COO triplets: row and col (n,), values (*batch, n)."""
    for name, given in (("row", row), ("col", col), ("values", values)):
        check_tensor(name, given)
    plan = assembly(row, col, shape)
    return Sparse(plan.pattern, plan.sum(values))


def from_compressed(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Sparse:
    """From CSR arrays, which are shared where columns increase; else entries are sorted and summed.

    crow (n_rows + 1,), col and values (nnz,).

    Raises:
        ValueError: sizes that do not fit, or an index out of range.
    """
    check_compressed(crow, col, shape)
    if unordered_entry(crow, col) is None:
        return Sparse(Pattern(crow, col, shape), values)
    row = torch.repeat_interleave(torch.arange(shape[0], device=col.device), crow.diff())
    return from_coo(row, col, values, shape)


def from_scipy(
    matrix: Any, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Sparse:
    """Copy any SciPy sparse matrix or array.

    Duplicates are summed and columns sorted; explicit zeros stay. Without `dtype`, values keep the
    matrix's own.
    """
    if not sp.issparse(matrix):
        raise TypeError(
            f"matrix: expected a SciPy sparse matrix or array, got {type(matrix).__name__}; "
            "use from_dense for a dense tensor"
        )
    if matrix.ndim != 2:
        raise ValueError(f"matrix: expected 2 dimensions, got shape {matrix.shape}")
    if dtype is None and matrix.dtype.kind not in "fc":
        raise TypeError(
            f"matrix: its values are {matrix.dtype}, which cannot be differentiated; pass dtype, "
            "for example dtype=torch.float64"
        )
    if dtype is not None and matrix.dtype.kind == "c" and not dtype.is_complex:
        raise TypeError(f"dtype: {dtype} would lose the imaginary part of a {matrix.dtype} matrix")
    check_scipy(matrix)
    csr = sp.csr_array(matrix, copy=True)
    csr.sum_duplicates()
    shape = (matrix.shape[0], matrix.shape[1])
    dtypes = index_dtypes(shape, csr.nnz)
    crow = torch.from_numpy(csr.indptr).to(device, dtypes.crow)
    col = torch.from_numpy(csr.indices).to(device, dtypes.col)
    values = checked_values(csr.data).to(device, dtype)
    return Sparse(Pattern(crow, col, shape), values)


def from_dense(x: Tensor, pattern: Pattern | None = None) -> Sparse:
    """The entries of x (*batch, n, m) on a pattern, by default where any matrix is not zero."""
    check_tensor("x", x)
    if x.layout != torch.strided:
        raise TypeError(f"x: expected a dense tensor, got {x.layout}; use from_torch")
    if x.ndim < 2:
        raise ValueError(f"x: expected (*batch, n, m), got shape {tuple(x.shape)}")
    if pattern is None:
        shape = (x.shape[-2], x.shape[-1])
        with finding_structure("from_dense"):
            stored = members(x).detach() != 0
            while stored.ndim > 2:
                stored = stored.any(0)
            keys = torch.nonzero(stored.flatten())[:, 0]
            pattern = Pattern.trusted(*split_keys(keys, shape), shape)
    else:
        check_pattern("pattern", pattern)
    if pattern.shape != x.shape[-2:]:
        raise ValueError(f"pattern: expected shape {tuple(x.shape[-2:])}, got {pattern.shape}")
    if pattern.device != x.device:
        raise ValueError(f"pattern: expected on {x.device} like x, got {pattern.device}")
    place = pattern.row.long() * pattern.shape[1] + pattern.col
    return Sparse(pattern, x.flatten(-2).index_select(-1, place))


def diagonal_pattern(n: int, device: torch.device | str | None = None) -> Pattern:
    """The pattern of an n x n diagonal matrix."""
    with finding_structure("diagonal_pattern"):
        crow = torch.arange(n + 1, dtype=index_dtypes((n, n), n).crow, device=device)
        return Pattern.trusted(crow, crow[:n], (n, n))
