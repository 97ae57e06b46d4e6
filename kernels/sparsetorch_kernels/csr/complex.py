"""Products of complex matrices by products of real ones, for kernels that know real numbers only.

With a = b + ic and x = y + iz, ax = (by - cz) + i(bz + cy). Real and imaginary parts of a dense
operand lie side by side, so they are twice as many real columns, and one real product serves both.
No conjugates are taken: like the real products, these are bilinear.
"""

import torch
from torch import Tensor

from sparsetorch_kernels._register import Call, Layouts


def spmm(real: Call, layouts: Layouts, values: Tensor, x: Tensor, reduce: bool) -> Tensor:
    """values (B or 1, nnz), x (B or 1, n_cols, k) -> (B or 1, n_rows, k), by `real` products."""
    columns = _side_by_side(x)
    product = _joined(real(layouts, values.real.contiguous(), columns, reduce))
    turned = _joined(real(layouts, values.imag.contiguous(), columns, reduce))
    product.real.sub_(turned.imag)
    product.imag.add_(turned.real)
    return product


def sddmm(real: Call, layouts: Layouts, u: Tensor, v: Tensor, reduce: bool) -> Tensor:
    """u (B or 1, n_rows, k), v (B or 1, n_cols, k) -> (B or 1, nnz), by `real` products."""
    rows = _side_by_side(u)
    swapped = torch.stack([v.imag, v.real], -1).reshape(*v.shape[:-1], 2 * v.shape[-1])
    return torch.complex(
        real(layouts, rows, _side_by_side(v.conj()), reduce), real(layouts, rows, swapped, reduce)
    )


def spgemm(real: Call, layouts: Layouts, a: Tensor, b: Tensor, reduce: bool) -> Tensor:
    """a (B or 1, nnz_a), b (B or 1, nnz_b) -> (B or 1, nnz_c), by four `real` products."""
    a_parts, b_parts = ((t.real.contiguous(), t.imag.contiguous()) for t in (a, b))
    (rr, ri), (ir, ii) = ([real(layouts, p, q, reduce) for q in b_parts] for p in a_parts)
    return torch.complex(rr.sub_(ii), ri.add_(ir))


def _side_by_side(x: Tensor) -> Tensor:
    """(..., k) complex -> (..., 2k) real: each real part before its imaginary part."""
    return torch.view_as_real(x.resolve_conj()).reshape(*x.shape[:-1], 2 * x.shape[-1])


def _joined(columns: Tensor) -> Tensor:
    """The inverse of `_side_by_side`."""
    return torch.view_as_complex(columns.reshape(*columns.shape[:-1], columns.shape[-1] // 2, 2))
