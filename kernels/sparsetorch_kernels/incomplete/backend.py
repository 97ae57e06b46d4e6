"""Incomplete factorizations on the pattern of the matrix: C++ on the CPU, else the reference.

No derivatives are recorded here; `sparsetorch.precond` has them.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from sparsetorch_kernels import _native
from sparsetorch_kernels.csr import checks
from sparsetorch_kernels.incomplete import reference
from sparsetorch_kernels.incomplete.reference import Elimination, PivotError
from sparsetorch_kernels.layout import Layout

_REAL = (torch.float32, torch.float64)
_COMPLEX = (torch.complex64, torch.complex128)


def ilu0(layout: Layout, values: Tensor, plan: Callable[[], Elimination]) -> Tensor:
    """L and U with (L U)_ij = a_ij on the pattern, in one array.

    layout: square, with the whole diagonal stored. values (*b, nnz), float32, float64,
    complex64 or complex128 -> (*b, nnz): L below the diagonal (its ones are not stored), U on and
    above it. plan: makes what the reference needs, where it runs.

    Raises:
        PivotError: a pivot is zero or NaN.
        TypeError, ValueError: an argument does not fit.
    """
    return _factorize("ilu0", (*_REAL, *_COMPLEX), layout, values, plan)


def ic0(layout: Layout, values: Tensor, plan: Callable[[], Elimination]) -> Tensor:
    """L with (L L^T)_ij = a_ij on the pattern of a lower triangle; real, otherwise as `ilu0`.

    Raises:
        PivotError: the square of a pivot is not positive.
        TypeError, ValueError: an argument does not fit.
    """
    return _factorize("ic0", _REAL, layout, values, plan)


def _factorize(
    name: str,
    dtypes: tuple[torch.dtype, ...],
    layout: Layout,
    values: Tensor,
    plan: Callable[[], Elimination],
) -> Tensor:
    nnz = layout.col.shape[0]
    if values.dtype not in dtypes:
        raise TypeError(f"values is {values.dtype}; expected one of {', '.join(map(str, dtypes))}")
    checks.check_operands("layout", layout, ("values", values, (nnz,)), ("values", values, (nnz,)))
    if layout.n_rows != layout.n_cols or layout.perm is not None:
        raise ValueError(
            f"layout has shape ({layout.n_rows}, {layout.n_cols}); expected a square one in the "
            "order of its values"
        )
    flat = values.resolve_conj().reshape(values.shape[:-1].numel(), nnz)
    native = _native.ops() if values.is_cpu else None
    if native is None:
        return reference.factorize(plan(), flat).reshape(values.shape)
    try:
        factors = getattr(native, name)(
            layout.crow, layout.col.to(layout.crow.dtype), flat, layout.n_cols
        )
    except RuntimeError as error:
        if (named := re.search(r"no pivot in row (\d+)", str(error))) is None:
            raise
        raise PivotError(int(named[1])) from None
    return factors.reshape(values.shape)
