"""The solve inside compiled code: one operator that a graph holds and does not look into.

Its derivatives are those of `solve`, written with itself and the products that compile:
A^-H g for the gradient of b, minus its outer product with x for that of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.chebyshev import Bounds
from sparsetorch.linalg.described import Described, describe, restore
from sparsetorch.linalg.dtypes import conjugate
from sparsetorch.linalg.krylov import Preconditioner
from sparsetorch.linalg.mapped import map_solve
from sparsetorch.linalg.methods import solver_for
from sparsetorch.linalg.solvers import DirectSolver
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import Layout

# The forward and the backward half of a step are two calls with the same matrix, and what they
# share has no place in a graph.
KEPT_FACTORS = 4
_RECENT: list[tuple[DirectSolver, Tensor]] = []

SCHEMA = """(
    Tensor crow, Tensor col, Tensor? perm, Tensor t_crow, Tensor t_col, Tensor? t_perm,
    SymInt n_rows, SymInt n_cols, Tensor values, Tensor b, Tensor? x0, bool transposed, str method,
    str kind, Tensor[] tensors, SymInt number, str kind_T, Tensor[] tensors_T, SymInt number_T,
    float? rtol, float atol, SymInt? maxiter, SymInt? restart, float[]? bounds
) -> Tensor"""


class Call(NamedTuple):
    """The operator's arguments behind the layout, as in `SCHEMA`."""

    values: Tensor
    b: Tensor
    x0: Tensor | None
    transposed: bool
    method: str
    kind: str
    tensors: list[Tensor]
    number: int
    kind_T: str
    tensors_T: list[Tensor]
    number_T: int
    rtol: float | None
    atol: float
    maxiter: int | None
    restart: int | None
    bounds: Sequence[float] | None


def compiled_solve(
    A: CSRTensor,
    b: Tensor,
    method: str,
    x0: Tensor | None,
    *,
    preconditioner: Preconditioner | None,
    preconditioner_T: Preconditioner | None,
    rtol: float | None,
    atol: float,
    maxiter: int | None,
    restart: int | None,
    bounds: Bounds | None,
) -> Tensor:
    """`solve` for one matrix, where the compiler traces; failures raise when the graph runs.

    Raises:
        NotImplementedError: under forward-mode differentiation.
    """
    if forward_ad._current_level >= 0:  # a custom op's tangent would be zero
        raise NotImplementedError(
            "solve: forward-mode derivatives do not compile; take them outside torch.compile, or "
            "reverse mode inside"
        )
    return torch.ops.sparsetorch.solve(
        *A.pattern.layout,
        A.values,
        b,
        None if x0 is None else x0.detach(),
        False,
        method,
        *describe("preconditioner", preconditioner),
        *describe("preconditioner_T", preconditioner_T),
        rtol,
        atol,
        maxiter,
        restart,
        None if bounds is None else list(bounds),
    )


def _split(arguments: Sequence[Any]) -> tuple[Layout, Call]:
    width = len(Layout._fields)
    return Layout(*arguments[:width]), Call(*arguments[width:])


def _solve(*arguments: Any) -> Tensor:
    layout, call = _split(arguments)
    solver = solver_for(
        Pattern.of_layout(layout),
        call.values.dtype,
        call.method,
        preconditioner=restore(Described(call.kind, call.tensors, call.number)),
        preconditioner_T=restore(Described(call.kind_T, call.tensors_T, call.number_T)),
        rtol=call.rtol,
        atol=call.atol,
        maxiter=call.maxiter,
        restart=call.restart,
        bounds=None if call.bounds is None else (call.bounds[0], call.bounds[1]),
    )
    if isinstance(solver, DirectSolver):
        solver = _factored(solver, call.values)
    if call.transposed:
        solver = solver.adjoint
    with _lazy_conjugates():
        x = solver.solve(call.values, call.b, call.x0).checked().x
    return x.contiguous()


def _lazy_conjugates() -> AbstractContextManager:
    """Where `t.conj()`, which PyTorch puts off, is what it says.

    The first time that AOTAutograd runs a graph, a dispatch mode watches custom operators, under
    which products read a tensor that is conjugated lazily as if it were not.
    """
    keys = torch._C.DispatchKey
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (keys.Conjugate, keys.Negative):
        excluded = excluded.remove(key)
    included = torch._C._dispatch_tls_local_include_set()
    return torch._C._ForceDispatchKeyGuard(included, excluded)


def _factored(solver: DirectSolver, values: Tensor) -> DirectSolver:
    """The solver, with factors if this matrix is one of the last that was factorized."""
    for known, old in _RECENT:
        alike = (known.pattern, known.method, old.dtype) == (
            solver.pattern,
            solver.method,
            values.dtype,
        )
        if alike and torch.equal(old, values):
            return known
    _RECENT.append((solver, values.clone()))
    del _RECENT[:-KEPT_FACTORS]
    return solver


def _fake(*arguments: Any) -> Tensor:
    _, call = _split(arguments)
    return call.b.new_empty(call.b.shape)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.layout, call = _split(inputs)
    ctx.call = call._replace(values=None, b=None, x0=None, tensors=None, tensors_T=None)
    ctx.own = len(call.tensors)
    ctx.save_for_backward(call.values, output, *call.tensors, *call.tensors_T)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    values, x, *tensors = ctx.saved_tensors
    own, others = tensors[: ctx.own], tensors[ctx.own :]
    right = conjugate(grad)
    call = ctx.call._replace(values=values, b=right, tensors=own, tensors_T=others)
    adjoint = call._replace(transposed=not call.transposed)
    multiplier = conjugate(torch.ops.sparsetorch.solve(*ctx.layout, *adjoint))
    gradient = None
    if ctx.needs_input_grad[len(ctx.layout)]:
        layout = ctx.layout.T if call.transposed else ctx.layout
        u, v = (t if t.ndim == 2 else t[:, None] for t in (multiplier, conjugate(x)))
        gradient = -torch.ops.sparsetorch.sddmm(*layout, u[None], v[None], False)[0]
    none = dict.fromkeys(Call._fields)
    none |= {"tensors": [None] * len(own), "tensors_T": [None] * len(others)}
    return *(None,) * len(ctx.layout), *(none | {"values": gradient, "b": multiplier}).values()


def _vmap(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Tensor, int]:
    layout, call = _split(arguments)
    layout_dims: tuple
    dims: Any
    layout_dims, dims = _split(in_dims)  # in the places of what they are the dimensions of
    if any(dim is not None for dim in layout_dims):
        raise ValueError("a sparsity pattern cannot be mapped over; vmap values or operands")

    def apply(_: bool, values: Tensor, b: Tensor, x0: Tensor | None, tensors: Any) -> Tensor:
        own, others = list(tensors[: len(call.tensors)]), list(tensors[len(call.tensors) :])
        member = call._replace(values=values, b=b, x0=x0, tensors=own, tensors_T=others)
        return torch.ops.sparsetorch.solve(*layout, *member)

    operands = (call.values, call.b, call.x0, [*call.tensors, *call.tensors_T])
    of_tensors = [*dims.tensors, *dims.tensors_T]
    return map_solve(apply, info.batch_size, operands, (dims.values, dims.b, dims.x0, of_tensors))


_operator = torch.library.custom_op(
    "sparsetorch::solve", _solve, mutates_args=(), schema=" ".join(SCHEMA.split())
)
_operator.register_fake(_fake)
_operator.register_autograd(_backward, setup_context=_setup_context)
_operator.register_vmap(_vmap)
