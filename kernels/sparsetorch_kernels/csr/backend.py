"""Which implementation runs: by device and dtype, the fastest one that is there.

Every product has the form that `_register` expects, (layouts, p, q, reduce) -> Tensor, with one
batch dimension, and sums the result over it if `reduce`. Half precision is added up in float32: in
the Triton kernels, and elsewhere by operands that are widened first. The Triton kernels know real
numbers only: there complex products are made of real ones.
"""

import functools
import importlib.util
from types import ModuleType

from torch import Tensor

from sparsetorch_kernels import _native, cusparse
from sparsetorch_kernels._register import Call, Layouts
from sparsetorch_kernels.csr import complex as by_parts
from sparsetorch_kernels.csr import reference
from sparsetorch_kernels.csr.checks import HALF
from sparsetorch_kernels.layout import alike


def spmm(
    layouts: Layouts, values: Tensor, x: Tensor, reduce: bool = False, short_rows: bool = False
) -> Tensor:
    """values (B or 1, nnz), x (B or 1, n_cols, k) -> (B or 1, n_rows, k).

    Whether a pattern's rows are `short_rows` is looked up once, for which a GPU has to be waited;
    patterns that are new each time say so themselves.
    """
    (a,) = layouts
    if values.is_cpu:
        if values.dtype not in HALF and (native := _cpu_ops()) is not None:
            return native.spmm(a.crow, a.col, a.perm, values, x, a.n_cols, reduce)
    elif values.is_cuda and (kernels := _triton()) is not None:
        if values.is_complex():
            return by_parts.spmm(spmm, layouts, values, x, reduce)
        if short_rows or not cusparse.serves(a, values, x):
            return _reduced(kernels.spmm(a, values, x), reduce)
        if values.dtype not in HALF:
            return _reduced(cusparse.spmm(a, values, x), reduce)
    if values.dtype in HALF:
        return _widened(spmm, layouts, values, x, reduce)
    return _reduced(reference.spmm(a, values, x), reduce)


def sddmm(layouts: Layouts, u: Tensor, v: Tensor, reduce: bool = False) -> Tensor:
    """u (B or 1, n_rows, k), v (B or 1, n_cols, k) -> (B or 1, nnz)."""
    (a,) = layouts
    if u.is_cpu:
        if u.dtype not in HALF and (native := _cpu_ops()) is not None:
            return native.sddmm(a.crow, a.col, a.perm, u, v, a.n_cols, reduce)
    elif u.is_cuda and (kernels := _triton()) is not None:
        if u.is_complex():
            return by_parts.sddmm(sddmm, layouts, u, v, reduce)
        return _reduced(kernels.sddmm(a, u, v), reduce)
    if u.dtype in HALF:
        return _widened(sddmm, layouts, u, v, reduce)
    return _reduced(reference.sddmm(a, u, v), reduce)


def spgemm(layouts: Layouts, a_values: Tensor, b_values: Tensor, reduce: bool = False) -> Tensor:
    """a_values (B or 1, nnz_a), b_values (B or 1, nnz_b) -> (B or 1, nnz_c)."""
    a, b, c = layouts
    if a_values.is_cpu:
        if a_values.dtype not in HALF and (native := _cpu_ops()) is not None:
            a, b, c = alike(layouts)
            return native.spgemm(*a[:3], *b[:6], *c[:3], a_values, b_values, reduce)
    elif a_values.is_cuda and (kernels := _triton()) is not None:
        if a_values.is_complex():
            return by_parts.spgemm(spgemm, layouts, a_values, b_values, reduce)
        return _reduced(kernels.spgemm(a, a_values, b, b_values, c), reduce)
    if a_values.dtype in HALF:
        return _widened(spgemm, layouts, a_values, b_values, reduce)
    return _reduced(reference.spgemm(a, a_values, b, b_values, c), reduce)


def backend_info() -> dict[str, str]:
    """Which implementation serves each kind of device: {"cpu": ..., "cuda": ...}, in words."""
    return {
        "cpu": _native.status(),
        "cuda": "triton" if _triton() is not None else "reference (triton is not installed)",
    }


class _Overloads:
    """The native operators, resolved once: attribute look-ups on `torch.ops` cost microseconds."""

    def __init__(self, namespace: ModuleType):
        self.spmm = namespace.spmm.default
        self.sddmm = namespace.sddmm.default
        self.spgemm = namespace.spgemm.default


@functools.cache
def _cpu_ops() -> _Overloads | None:
    namespace = _native.ops()
    return None if namespace is None else _Overloads(namespace)


@functools.cache
def _triton() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None  # normal for PyTorch's CPU builds
    from sparsetorch_kernels.csr import triton

    return triton


def _widened(product: Call, layouts: Layouts, p: Tensor, q: Tensor, reduce: bool) -> Tensor:
    """A product of half precision operands, added up in float32."""
    return product(layouts, p.float(), q.float(), reduce).to(p.dtype)


def _reduced(out: Tensor, reduce: bool) -> Tensor:
    return out.sum(0, keepdim=True) if reduce else out
