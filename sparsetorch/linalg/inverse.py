"""Entries of the inverse on the pattern of the matrix, and what follows from them.

With S the entries of A^-1 on A's pattern and a gradient G of S (sparse, on the same pattern),

    dS = -(A^-1 dA A^-1),    gradient of A = -(A^-H G A^-H),    both on the pattern.

S itself comes from the Cholesky or LDL^T factor, at two (2-D) to four times (3-D) the cost of
factorizing new values. Its derivatives, and S where there is no such factor or, for LDL^T, rounding
has grown, take solves with the columns of the identity, in blocks: n solves for S, 2n for each
derivative, and memory for BLOCK vectors at a time. They are made of differentiable solves and
products, so derivatives of every order are exact; those of order three and more keep all blocks,
O(n^2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.cholesky import SymmetricFactorization
from sparsetorch.linalg.dtypes import conjugate, widened
from sparsetorch.linalg.krylov import check_system
from sparsetorch.linalg.solve import solve_by
from sparsetorch.linalg.solvers import DirectSolver, product
from sparsetorch.structure import refuse_compiled
from sparsetorch_kernels import nestable

BLOCK = 64  # columns that are solved for together


def selected_inverse(A: CSRTensor) -> CSRTensor:
    """The entries of A^-1 on A's pattern; its diagonal holds a Gaussian field's variances.

    A: one square matrix on the CPU; float16 and bfloat16 are computed in float32 and rounded once.
    Where A is symmetric or Hermitian and needs no exchanges of rows, by Takahashi's equations from
    its Cholesky or LDL^T factor (Takahashi, Fagan, Chin 1973; Lin et al., ACM TOMS 37, 2011), at a
    small multiple of the factorization's cost; elsewhere by n solves with its factors.
    Differentiable any number of times, in reverse and forward mode; each derivative costs 2n
    solves. Equivalent to the stored entries of `scipy.linalg.inv(A.toarray())`.

    Raises:
        SolveError: A is singular.
        ValueError, TypeError: as `factorized`; for a batch, apply `torch.vmap`.
    """
    refuse_compiled("selected_inverse")
    check_system(A, A.values.new_zeros(A.shape[-2]))
    entries = _Entries.apply(widened(A).values, DirectSolver(A.pattern))
    return A.with_values(entries.to(A.dtype))


class _Entries(torch.autograd.Function):
    """Entries of A^-1 on A's pattern, or of A^-T with the adjoint solver, (nnz,)."""

    @staticmethod
    def forward(values: Tensor, solver: DirectSolver) -> Tensor:
        factors = solver.factorization(values)
        if isinstance(factors, SymmetricFactorization):
            entries = factors.inverse_entries()
            if entries is not None:
                return conjugate(entries) if solver.transposed else entries

        def inverse(columns: Tensor) -> Tensor:
            return factors.solve(columns, solver.transposed)

        return _by_blocks(solver, values, inverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        values, ctx.solver = inputs
        ctx.save_for_backward(values)
        ctx.save_for_forward(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        solver = ctx.solver if ctx.solver.transposed else ctx.solver.adjoint

        def adjoint(g: Tensor) -> Tensor:
            return conjugate(_change(solver, values, ctx.solver, conjugate(g)))

        return map_gradients(adjoint, *grads), None

    @staticmethod
    @nestable
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (values,) = ctx.saved_tensors
        return _change(ctx.solver, values, ctx.solver, tangents[0])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], values: Tensor, solver: DirectSolver
    ) -> tuple[Tensor, int]:
        assert in_dims[0] is not None  # something is mapped
        matrices = values.unbind(in_dims[0])
        return torch.stack([_Entries.apply(v, solver.independent()) for v in matrices]), 0


def _change(solver: DirectSolver, values: Tensor, middle: DirectSolver, d: Tensor) -> Tensor:
    """-(M^-1 D M^-1) on A's pattern: M what `solver` solves with, D as `middle` reads values d."""

    def twice(columns: Tensor) -> Tensor:
        once = solve_by(solver, values, columns)
        return -solve_by(solver, values, product(middle.layout, d, once))

    return _by_blocks(solver, values, twice)


def _by_blocks(solver: DirectSolver, values: Tensor, function: Any) -> Tensor:
    """The entries on A's pattern of a matrix, given as a function of columns of the identity."""
    pattern = solver.pattern
    (t_crow, t_col), n = pattern.layout.transposed, pattern.shape[1]
    parts = []
    for first in range(0, n, BLOCK):
        columns = torch.arange(first, min(first + BLOCK, n))
        identity = torch.zeros(n, len(columns), dtype=values.dtype)
        identity[columns, columns - first] = 1
        # The transposed pattern lists the entries column by column.
        counts = t_crow[first : first + len(columns) + 1].long()
        within = torch.repeat_interleave(columns - first, counts.diff())
        rows = t_col[int(counts[0]) : int(counts[-1])].long()
        found = function(identity).reshape(-1)
        parts.append(found.index_select(0, rows * len(columns) + within))
    if not parts:
        return values.new_zeros(0)
    back = pattern.T.layout.t_perm
    assert back is not None
    return torch.cat(parts).index_select(0, back)
