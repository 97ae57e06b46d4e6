"""The CSR products as Triton kernels, for CUDA.

The functions have the signatures of `reference.py` beside it, which is their specification. All
index arithmetic is done in int64: an offset such as col * k leaves int32 long before a matrix
fills the memory of a GPU.

Import this module only where Triton is installed. With `TRITON_INTERPRET=1` in the environment
before the first import of Triton, the kernels run on CPU tensors, which is how they are tested
without a GPU.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.launch import on_device_of
from sparsetorch_kernels.layout import Layout


@triton.jit
def _spmv_kernel(
    crow, col, perm, values, x, out, n_rows, row_blocks, values_step, x_step,
    HAS_PERM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """out[b, i] for ROWS rows of one batch, read in tiles of [ROWS, WIDTH] entries."""
    program = tl.program_id(0).to(tl.int64)
    batch = program // row_blocks
    row = (program % row_blocks) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    inside = row < n_rows
    first = tl.load(crow + row, mask=inside, other=0).to(tl.int64)
    last = tl.load(crow + row + 1, mask=inside, other=0).to(tl.int64)
    total = tl.zeros([ROWS, WIDTH], dtype=SUM)
    lane = tl.arange(0, WIDTH).to(tl.int64)
    for start in range(0, tl.max(last - first, axis=0), WIDTH):
        entry = first[:, None] + start + lane[None, :]
        valid = entry < last[:, None]
        place = tl.load(perm + entry, mask=valid, other=0).to(tl.int64) if HAS_PERM else entry
        value = tl.load(values + batch * values_step + place, mask=valid, other=0.0).to(SUM)
        column = tl.load(col + entry, mask=valid, other=0).to(tl.int64)
        # Masked too: 0 * inf in a lane without an entry would be a NaN.
        total += value * tl.load(x + batch * x_step + column, mask=valid, other=0.0).to(SUM)
    tl.store(out + batch * n_rows + row, tl.sum(total, axis=1), mask=inside)


@triton.jit
def _spmm_kernel(
    crow, col, perm, values, x, out, n_rows, k, row_blocks, column_blocks, values_step, x_step,
    HAS_PERM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """out[b, i, j] for ROWS rows and COLUMNS columns: one entry of every row at a time."""
    program = tl.program_id(0).to(tl.int64)
    j = (program % column_blocks) * COLUMNS + tl.arange(0, COLUMNS).to(tl.int64)
    program = program // column_blocks
    batch = program // row_blocks
    row = (program % row_blocks) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    inside = row < n_rows
    first = tl.load(crow + row, mask=inside, other=0).to(tl.int64)
    last = tl.load(crow + row + 1, mask=inside, other=0).to(tl.int64)
    total = tl.zeros([ROWS, COLUMNS], dtype=SUM)
    for step in range(0, tl.max(last - first, axis=0)):
        entry = first + step
        valid = entry < last
        place = tl.load(perm + entry, mask=valid, other=0).to(tl.int64) if HAS_PERM else entry
        value = tl.load(values + batch * values_step + place, mask=valid, other=0.0).to(SUM)
        column = tl.load(col + entry, mask=valid, other=0).to(tl.int64)
        x_row = x + batch * x_step + column * k
        total += value[:, None] * tl.load(
            x_row[:, None] + j[None, :], mask=valid[:, None] & (j < k)[None, :], other=0.0
        ).to(SUM)
    to = out + (batch * n_rows + row)[:, None] * k + j[None, :]
    tl.store(to, total, mask=inside[:, None] & (j < k)[None, :])


@triton.jit
def _row_of(crow, entry, n_rows, search_steps):
    """The row that holds each entry: the last one that begins at or before it."""
    low = entry * 0
    high = low + n_rows  # crow[low] <= entry < crow[high]
    for _ in range(0, search_steps):
        middle = (low + high) // 2
        before = tl.load(crow + middle).to(tl.int64) <= entry
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def _sddmm_kernel(
    crow, col, perm, u, v, out, n_rows, nnz, k, search_steps, entry_blocks, u_step, v_step,
    HAS_PERM: tl.constexpr, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """out[b, e] for ENTRIES entries; rows of any length are equal work."""
    program = tl.program_id(0).to(tl.int64)
    batch = program // entry_blocks
    entry = (program % entry_blocks) * ENTRIES + tl.arange(0, ENTRIES).to(tl.int64)
    valid = entry < nnz
    entry = tl.minimum(entry, nnz - 1)  # searches run on every lane
    u_row = u + batch * u_step + _row_of(crow, entry, n_rows, search_steps) * k
    v_row = v + batch * v_step + tl.load(col + entry).to(tl.int64) * k
    total = tl.zeros([ENTRIES], dtype=SUM)
    for start in range(0, k, COLUMNS):
        j = start + tl.arange(0, COLUMNS).to(tl.int64)
        both = valid[:, None] & (j < k)[None, :]
        left = tl.load(u_row[:, None] + j[None, :], mask=both, other=0.0).to(SUM)
        right = tl.load(v_row[:, None] + j[None, :], mask=both, other=0.0).to(SUM)
        total += tl.sum(left * right, axis=1)
    place = tl.load(perm + entry).to(tl.int64) if HAS_PERM else entry
    tl.store(out + batch * nnz + place, total, mask=valid)


@triton.jit
def _spgemm_kernel(
    a_crow, a_col, a_perm, a_values, bt_crow, bt_col, bt_perm, b_values, c_crow, c_col, c_perm, out,
    n_rows, nnz, row_steps, search_steps, entry_blocks, a_step, b_step,
    A_PERM: tl.constexpr, BT_PERM: tl.constexpr, C_PERM: tl.constexpr, ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """out[b, e] for ENTRIES entries (i, j) of c: row i of A times row j of B transposed.

    Each entry of row i is looked up in the sorted row j.
    """
    program = tl.program_id(0).to(tl.int64)
    batch = program // entry_blocks
    entry = (program % entry_blocks) * ENTRIES + tl.arange(0, ENTRIES).to(tl.int64)
    valid = entry < nnz
    entry = tl.minimum(entry, nnz - 1)
    i = _row_of(c_crow, entry, n_rows, row_steps)
    j = tl.load(c_col + entry).to(tl.int64)
    first = tl.load(a_crow + i).to(tl.int64)
    last = tl.load(a_crow + i + 1).to(tl.int64)
    t_first = tl.load(bt_crow + j).to(tl.int64)
    t_last = tl.load(bt_crow + j + 1).to(tl.int64)
    total = tl.zeros([ENTRIES], dtype=SUM)
    for step in range(0, tl.max(last - first, axis=0)):
        e = first + step
        here = valid & (e < last)
        wanted = tl.load(a_col + e, mask=here, other=0).to(tl.int64)
        low = t_first
        high = t_last
        for _ in range(0, search_steps):  # lower bound of `wanted` in [t_first, t_last)
            middle = (low + high) // 2
            open_ = here & (low < high)
            smaller = open_ & (tl.load(bt_col + middle, mask=open_, other=0).to(tl.int64) < wanted)
            high = tl.where(open_ & (smaller == 0), middle, high)
            low = tl.where(smaller, middle + 1, low)
        found = here & (low < t_last)
        found = found & (tl.load(bt_col + low, mask=found, other=-1).to(tl.int64) == wanted)
        a_place = tl.load(a_perm + e, mask=found, other=0).to(tl.int64) if A_PERM else e
        b_place = tl.load(bt_perm + low, mask=found, other=0).to(tl.int64) if BT_PERM else low
        a_value = tl.load(a_values + batch * a_step + a_place, mask=found, other=0.0).to(SUM)
        b_value = tl.load(b_values + batch * b_step + b_place, mask=found, other=0.0).to(SUM)
        total += a_value * b_value
    place = tl.load(c_perm + entry).to(tl.int64) if C_PERM else entry
    tl.store(out + batch * nnz + place, total, mask=valid)


def spmm(layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    """values (B or 1, nnz), x (B or 1, n_cols, k) -> (B, n_rows, k). See `reference.spmm`."""
    values, x = _in_memory(values), _in_memory(x)
    batch, k, n_rows = _batch(values, x), x.shape[2], layout.n_rows
    out = values.new_empty(batch, n_rows, k)
    if out.numel() == 0:
        return out
    row_length = max(layout.col.shape[0] // n_rows, 1)
    steps = _step(values), _step(x)
    has_perm = layout.perm is not None
    with on_device_of(values):
        if k == 1:
            width = min(triton.next_power_of_2(row_length), 128)
            rows = max(512 // width, 4)
            row_blocks = triton.cdiv(n_rows, rows)
            _spmv_kernel[(row_blocks * batch,)](
                *_view(layout), values, x, out, n_rows, row_blocks, *steps,
                HAS_PERM=has_perm, ROWS=rows, WIDTH=width, SUM=_sum_type(values),
            )  # fmt: skip
        else:
            columns = min(triton.next_power_of_2(k), 128)
            rows = max(512 // columns, 4)
            row_blocks, column_blocks = triton.cdiv(n_rows, rows), triton.cdiv(k, columns)
            _spmm_kernel[(row_blocks * column_blocks * batch,)](
                *_view(layout), values, x, out, n_rows, k, row_blocks, column_blocks, *steps,
                HAS_PERM=has_perm, ROWS=rows, COLUMNS=columns, SUM=_sum_type(values),
            )  # fmt: skip
    return out


def sddmm(layout: Layout, u: Tensor, v: Tensor) -> Tensor:
    """u (B or 1, n_rows, k), v (B or 1, n_cols, k) -> (B, nnz). See `reference.sddmm`."""
    u, v = _in_memory(u), _in_memory(v)
    batch, k, nnz = _batch(u, v), u.shape[2], layout.col.shape[0]
    out = u.new_empty(batch, nnz)
    if out.numel() == 0:
        return out
    columns = min(triton.next_power_of_2(max(k, 1)), 64)
    entries = max(1024 // columns, 16)
    entry_blocks = triton.cdiv(nnz, entries)
    with on_device_of(u):
        _sddmm_kernel[(entry_blocks * batch,)](
            *_view(layout), u, v, out, layout.n_rows, nnz, k, layout.n_rows.bit_length(),
            entry_blocks, _step(u), _step(v),
            HAS_PERM=layout.perm is not None, ENTRIES=entries, COLUMNS=columns,
            SUM=_sum_type(u),
        )  # fmt: skip
    return out


def spgemm(a: Layout, a_values: Tensor, b: Layout, b_values: Tensor, c: Layout) -> Tensor:
    """a_values (B or 1, nnz_a), b_values (B or 1, nnz_b) -> (B, nnz_c). See `reference.spgemm`."""
    a_values, b_values = _in_memory(a_values), _in_memory(b_values)
    batch, nnz = _batch(a_values, b_values), c.col.shape[0]
    out = a_values.new_empty(batch, nnz)
    if out.numel() == 0:
        return out
    entries = 128
    entry_blocks = triton.cdiv(nnz, entries)
    bt = b.T
    with on_device_of(a_values):
        _spgemm_kernel[(entry_blocks * batch,)](
            *_view(a), a_values, *_view(bt), b_values, *_view(c), out,
            c.n_rows, nnz, c.n_rows.bit_length(), bt.n_cols.bit_length() + 1, entry_blocks,
            _step(a_values), _step(b_values),
            A_PERM=a.perm is not None, BT_PERM=bt.perm is not None, C_PERM=c.perm is not None,
            ENTRIES=entries, SUM=_sum_type(a_values),
        )  # fmt: skip
    return out


def _view(layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous crow, col and perm; col stands in for a perm that is not read."""
    col = layout.col.contiguous()
    perm = col if layout.perm is None else layout.perm.contiguous()
    return layout.crow.contiguous(), col, perm


def _in_memory(t: Tensor) -> Tensor:
    """Contiguous, and with the signs that it has: the imaginary part of a conjugate is negated
    lazily, and where it is one number it counts as contiguous without a copy."""
    return t.resolve_neg().contiguous()


def _batch(p: Tensor, q: Tensor) -> int:
    return q.shape[0] if p.shape[0] == 1 else p.shape[0]


def _step(t: Tensor) -> int:
    """Elements from one batch to the next; 0 where the only one serves all."""
    return 0 if t.shape[0] == 1 else t[0].numel()


def _sum_type(t: Tensor) -> tl.dtype:
    """The precision in which products are added up: float32 at least."""
    return tl.float64 if t.dtype == torch.float64 else tl.float32
