"""Which implementation of the semiring products runs: C++ on the CPU, else the reference."""

import functools
from types import ModuleType

from torch import Tensor

from sparsetorch_kernels import _native
from sparsetorch_kernels.layout import Layout, uniform
from sparsetorch_kernels.semiring import reference
from sparsetorch_kernels.semiring.reference import COLUMNS, ENTRIES


def extremum(
    layout: Layout, values: Tensor, x: Tensor, largest: bool, add: bool, counted: bool = True
) -> tuple[Tensor, Tensor]:
    """See `reference.extremum`; `counted` is False where the count is not needed."""
    if values.is_cpu and (native := _cpu_ops()) is not None:
        a = uniform(layout)
        return native.extremum(a.crow, a.col, a.perm, values, x, a.n_cols, largest, add)
    return reference.extremum(layout, values, x, largest, add, counted)


def log_sum_exp(layout: Layout, values: Tensor, x: Tensor, add: bool) -> Tensor:
    """See `reference.log_sum_exp`."""
    if values.is_cpu and (native := _cpu_ops()) is not None:
        a = uniform(layout)
        return native.log_sum_exp(a.crow, a.col, a.perm, values, x, a.n_cols, add)
    return reference.log_sum_exp(layout, values, x, add)


def contract(
    layout: Layout,
    slot: int,
    soft: bool,
    add: bool,
    values: Tensor,
    x: Tensor,
    y: Tensor,
    first: Tensor,
    second: Tensor,
) -> Tensor:
    """See `reference.contract`."""
    if not values.is_cpu or (native := _cpu_ops()) is None:
        return reference.contract(layout, slot, soft, add, values, x, y, first, second)
    a = uniform(layout.T if slot == COLUMNS else layout)
    operands = (a.crow, a.col, a.perm, values, x, y, first, second, a.n_cols)
    if slot == ENTRIES:
        return native.contract_entries(*operands, soft, add)
    return native.contract_rows(*operands, slot == COLUMNS, soft, add)


class _Overloads:
    """The native operators, resolved once: attribute look-ups on `torch.ops` cost microseconds."""

    def __init__(self, namespace: ModuleType):
        self.extremum = namespace.extremum.default
        self.log_sum_exp = namespace.log_sum_exp.default
        self.contract_rows = namespace.contract_rows.default
        self.contract_entries = namespace.contract_entries.default


@functools.cache
def _cpu_ops() -> _Overloads | None:
    namespace = _native.ops()
    return None if namespace is None else _Overloads(namespace)
