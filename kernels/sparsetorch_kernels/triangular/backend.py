"""Which implementation of the triangular solve runs: C++ on the CPU, cuSPARSE, the reference."""

import functools
import re
from collections.abc import Callable

from torch import Tensor

from sparsetorch_kernels import _native, cusparse
from sparsetorch_kernels._register import Layouts
from sparsetorch_kernels.layout import uniform
from sparsetorch_kernels.triangular import reference
from sparsetorch_kernels.triangular.reference import SingularTriangleError


def solve(
    layouts: Layouts, values: Tensor, b: Tensor, reduce: bool, *, lower: bool, unit: bool
) -> Tensor:
    """values (B or 1, nnz), b (B or 1, n, k) -> (B, n, k); layouts are triangle and level sets.

    Raises:
        SingularTriangleError: a diagonal entry is zero or missing.
    """
    assert not reduce
    triangle, levels = layouts
    if values.is_cpu and (native := _cpu_op()) is not None:
        try:
            values, b = values.resolve_conj(), b.resolve_conj()
            return native(*uniform(triangle)[:6], values, b, lower, unit)
        except RuntimeError as error:
            if (named := re.search(r"no diagonal in row (\d+)", str(error))) is None:
                raise
            raise SingularTriangleError(int(named[1])) from None
    if values.is_cuda and values.numel() and b.numel():
        reference.diagonal_of(triangle, values, unit)  # which must have no zero
        return cusparse.solve_triangular(triangle, values, b, lower, unit)
    return reference.solve_triangular(triangle, levels, values, b, lower, unit)


@functools.cache
def _cpu_op() -> Callable | None:
    namespace = _native.ops()
    return None if namespace is None else namespace.solve_triangular.default
