"""The public semiring products: arguments checked, batches flattened, derivatives registered.

With messages m_ej = a_e x_cj, or a_e + x_cj, of entry e = (i, c), a row reduces them to y_ij. Then
dy_ij = sum over e of w_ej dm_ej, where w = exp(m - y) for the log-sum-exp, and for an extremum 1
where m = y, over the number of such entries. All derivatives are those of one trilinear form,

    L(p, q, r) = sum over e and j of w_ej p_e q_cj r_ij,

in one of its arguments (`contract`): with G the gradient of y, that of a is dL/dp(x, G) and that of
x is dL/dq(a, G), or with sums for messages dL/dp(1, G) and dL/dq(1, G). The weights of the
log-sum-exp depend on the arguments themselves, dw = w (dm - dy), which is the same form again:

    sum w (da x + a dx - dy) p q r = L(p da, q x, r) + L(p a, q dx, r) - L(p, q, r dy).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsetorch_kernels._register import watched
from sparsetorch_kernels.batches import flatten, unflatten
from sparsetorch_kernels.csr import checks
from sparsetorch_kernels.layout import Layout
from sparsetorch_kernels.semiring import backend
from sparsetorch_kernels.semiring._registration import Gradients, Ops, Options, register
from sparsetorch_kernels.semiring.reference import COLUMNS, ENTRIES, ROWS

DTYPES = (torch.float32, torch.float64)
_SLOTS = (ENTRIES, COLUMNS, ROWS)


class _Contract:
    """L differentiated in one argument: tensors a, x, y, and the other two arguments."""

    name = "semiring_contract"
    options = ("int slot", "bool soft", "bool add")
    tensors = 5
    outputs = 1

    def forward(self, layout: Layout, options: Options, *tensors: Tensor) -> Tensor:
        return backend.contract(layout, *options, *tensors)

    def shape(self, layout: Layout, options: Options, *tensors: Tensor) -> tuple[int, ...]:
        if options[0] == ENTRIES:
            return (layout.col.shape[0],)
        k = tensors[1].shape[2]
        return (layout.n_cols if options[0] == COLUMNS else layout.n_rows, k)

    def keep(self, tensors: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        return tensors

    def pull(
        self,
        ops: Ops,
        layout: Layout,
        options: Options,
        grad: Tensor,
        kept: Sequence[Tensor],
        needs: Sequence[bool],
    ) -> Gradients:
        slot, soft, add = options
        form = _Form(ops, layout, soft, add, *kept[:3])
        given = [s for s in _SLOTS if s != slot]
        full = {slot: grad, given[0]: kept[3], given[1]: kept[4]}
        grads = [form.at(s, full) if need else None for s, need in zip(given, needs[3:])]
        return *(form.weight_gradients(full, needs) if soft else (None,) * 3), *grads

    def push(
        self,
        ops: Ops,
        layout: Layout,
        options: Options,
        kept: Sequence[Tensor],
        tangents: Gradients,
    ) -> Tensor | None:
        slot, soft, add = options
        form = _Form(ops, layout, soft, add, *kept[:3])
        given = [s for s in _SLOTS if s != slot]
        full = dict(zip(given, kept[3:]))
        changes = [
            form.at(slot, full | {s: t}) for s, t in zip(given, tangents[3:]) if t is not None
        ]
        if soft:
            changes += form.weight_tangents(slot, full, tangents[:3])
        return sum(changes[1:], changes[0]) if changes else None


class _Form:
    """L for given weights."""

    def __init__(self, ops: Ops, layout: Layout, soft: bool, add: bool, a, x, y: Tensor):
        self.contract, self.layout, self.options = ops[_Contract.name], layout, (soft, add)
        self.a, self.x, self.y = a, x, y
        # dm = da x + a dx, or da + dx: what p and q are multiplied by
        self.by_a, self.by_x = (None, None) if add else (x, a)

    def at(self, slot: int, arguments: dict[int, Tensor]) -> Tensor:
        """The derivative in one argument; a value of that argument is not used."""
        others = [arguments[s] for s in _SLOTS if s != slot]
        return self.contract(self.layout, (slot, *self.options), self.a, self.x, self.y, *others)

    def weight_gradients(self, full: dict[int, Tensor], needs: Sequence[bool]) -> Gradients:
        """The gradients of L(p, q, r) in a, x and y, through the soft weights."""
        p, q, r = (full[s] for s in _SLOTS)
        times = lambda t, factor: t if factor is None else t * factor  # noqa: E731
        return (
            p * self.at(ENTRIES, full | {COLUMNS: times(q, self.by_a)}) if needs[0] else None,
            q * self.at(COLUMNS, full | {ENTRIES: times(p, self.by_x)}) if needs[1] else None,
            -r * self.at(ROWS, full) if needs[2] else None,
        )

    def weight_tangents(
        self, slot: int, given: dict[int, Tensor], tangents: Gradients
    ) -> list[Tensor]:
        """The tangents of a derivative of L, through the soft weights."""
        da, dx, dy = tangents
        factors = []
        if da is not None:
            factors.append({ENTRIES: da, COLUMNS: self.by_a})
        if dx is not None:
            factors.append({COLUMNS: dx, ENTRIES: self.by_x})
        if dy is not None:
            factors.append({ROWS: -dy})
        return [self._scaled(slot, given, factor) for factor in factors]

    def _scaled(self, slot: int, given: dict[int, Tensor], factor: dict[int, Any]) -> Tensor:
        """All three arguments, the result among them, times their factors."""
        factor = {s: f for s, f in factor.items() if f is not None}
        scaled = {s: t * factor[s] if s in factor else t for s, t in given.items()}
        out = self.at(slot, scaled)
        return out * factor[slot] if slot in factor else out


class _Reduction:
    """What both reductions share: tensors a and x, and derivatives by L."""

    tensors = 2

    def shape(self, layout: Layout, options: Options, *tensors: Tensor) -> tuple[int, ...]:
        return layout.n_rows, tensors[1].shape[2]

    def keep(self, tensors: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        return *tensors, *outputs

    def pull(
        self,
        ops: Ops,
        layout: Layout,
        options: Options,
        grad: Tensor,
        kept: Sequence[Tensor],
        needs: Sequence[bool],
    ) -> Gradients:
        a, x, y, *count = kept
        add = options[-1]
        form = _Form(ops, layout, not count, add, a, x, y)
        full = {ROWS: grad / count[0] if count else grad}
        p, q = _ones(a, x) if add else (a, x)
        return (
            form.at(ENTRIES, full | {COLUMNS: q}) if needs[0] else None,
            form.at(COLUMNS, full | {ENTRIES: p}) if needs[1] else None,
        )

    def push(
        self,
        ops: Ops,
        layout: Layout,
        options: Options,
        kept: Sequence[Tensor],
        tangents: Gradients,
    ) -> Tensor | None:
        a, x, y, *count = kept
        da, dx = tangents
        add = options[-1]
        form = _Form(ops, layout, not count, add, a, x, y)
        p, q = _ones(a, x) if add else (a, x)
        changes = [] if da is None else [form.at(ROWS, {ENTRIES: da, COLUMNS: q})]
        changes += [] if dx is None else [form.at(ROWS, {ENTRIES: p, COLUMNS: dx})]
        change = sum(changes[1:], changes[0]) if changes else None
        return change / count[0] if count and change is not None else change


class _Extremum(_Reduction):
    name = "semiring_extremum"
    options = ("bool largest", "bool add")
    outputs = 2

    def forward(self, layout: Layout, options: Options, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        a, x = tensors
        return backend.extremum(layout, a, x, *options)


class _LogSumExp(_Reduction):
    name = "semiring_logsumexp"
    options = ("bool add",)
    outputs = 1

    def forward(self, layout: Layout, options: Options, *tensors: Tensor) -> Tensor:
        a, x = tensors
        return backend.log_sum_exp(layout, a, x, *options)


def _ones(a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(a[:1]), torch.ones_like(x[:1])


_ops = register("sparsetorch", [_Contract(), _Extremum(), _LogSumExp()])


def spmm_extremum(layout: Layout, values: Tensor, x: Tensor, *, largest: bool, add: bool) -> Tensor:
    """The largest or smallest of the messages of each row's entries; 0 in a row without entries.

    Entry e in column c sends values_e x_c, or with `add` values_e + x_c. values (*b, nnz),
    x (*b, n_cols, k) -> (*b, n_rows, k); the leading dimensions broadcast. float32 or float64.
    Differentiable any number of times, in reverse and forward mode; entries that reach the
    extremum together share the gradient equally. NaN is the extremum of what it is among. Raises
    TypeError or ValueError naming the argument that does not fit.
    """
    return _reduced("semiring_extremum", layout, values, x, (largest, add))


def spmm_logsumexp(layout: Layout, values: Tensor, x: Tensor, *, add: bool) -> Tensor:
    """log sum exp of the messages of each row's entries; -inf in a row without entries.

    Otherwise as `spmm_extremum`.
    """
    return _reduced("semiring_logsumexp", layout, values, x, (add,))


def _reduced(name: str, layout: Layout, values: Tensor, x: Tensor, options: Options) -> Tensor:
    if values.dtype not in DTYPES:
        names = " or ".join(map(str, DTYPES))
        raise TypeError(f"values is {values.dtype}; expected {names}")
    values_tail, x_tail = (layout.col.numel(),), (layout.n_cols, None)
    checks.check_operands("layout", layout, ("values", values, values_tail), ("x", x, x_tail))
    values, x, batch = flatten(values, 1, x, 2)
    if name == "semiring_extremum" and not watched(values, x):  # nobody will share a gradient
        out, _ = backend.extremum(layout, values, x, *options, counted=False)
    else:
        out = _ops[name](layout, options, values, x)
    return unflatten(out[0] if isinstance(out, tuple) else out, batch)
