"""Determinants, differentiable through the selected inverse.

    d log|det A| = tr(A^-1 dA),    gradient of A = A^-T on its pattern.

(Jacobi's formula.) For a symmetric positive definite A the gradient costs about as much as the
factorization, and a second derivative 2n solves; see `sparsetorch.linalg.inverse`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.inverse import _Entries
from sparsetorch.linalg.krylov import check_system
from sparsetorch.linalg.solution import SolveError, Status
from sparsetorch.linalg.solvers import DirectSolver


def logdet(A: CSRTensor) -> Tensor:
    """log det A of a symmetric positive definite matrix, 0-d, by Cholesky.

    A: one square float32 or float64 matrix on the CPU, both triangles stored. The gradient with
    respect to `A.values` is A^-T at all stored entries, as of `torch.logdet` of the dense matrix,
    from the Cholesky factor; it is differentiable itself, in reverse and forward mode. Equivalent
    to `torch.logdet(A.to_dense())`.

    Raises:
        SolveError: A is not positive definite; use `slogdet`.
        ValueError, TypeError: as `factorized`; for a batch, apply `torch.vmap`.
    """
    return _log_determinant(A, DirectSolver(A.pattern, "cholesky"))[1]


def slogdet(A: CSRTensor) -> tuple[Tensor, Tensor]:
    """(sign, log|det A|) of a square matrix, both 0-d, by Cholesky or LU.

    A: one square float32 or float64 matrix on the CPU. A singular matrix gives (0, -inf), as
    `torch.linalg.slogdet` does, but has no gradient. The gradient of the logarithm is A^-T on A's
    pattern: from the Cholesky factor where A is symmetric positive definite, by n solves elsewhere.

    Raises:
        SolveError: in the backward pass, where A is singular.
        ValueError, TypeError: as `factorized`; for a batch, apply `torch.vmap`.
    """
    return _log_determinant(A, DirectSolver(A.pattern))


def det(A: CSRTensor) -> Tensor:
    """det A, 0-d; see `slogdet`. It overflows for all but small matrices: prefer `slogdet`."""
    sign, logarithm = slogdet(A)
    return sign * logarithm.exp()


def _log_determinant(A: CSRTensor, solver: DirectSolver) -> tuple[Tensor, Tensor]:
    check_system(A, A.values.new_zeros(A.shape[-2]))
    return _LogDeterminant.apply(A.values, solver)


class _LogDeterminant(torch.autograd.Function):
    """(sign, log|det A|)."""

    @staticmethod
    def forward(values: Tensor, solver: DirectSolver) -> tuple[Tensor, Tensor]:
        try:
            return solver.factorization(values).slogdet()
        except SolveError as error:
            if error.solution.status is not Status.SINGULAR:
                raise
            return values.new_zeros(()), values.new_full((), -torch.inf)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        values, ctx.solver = inputs
        ctx.mark_non_differentiable(output[0])
        ctx.save_for_backward(values)
        ctx.save_for_forward(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        return grads[1] * _Entries.apply(values, ctx.solver.adjoint), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, Tensor]:
        (values,) = ctx.saved_tensors
        inverse = _Entries.apply(values, ctx.solver.adjoint)
        return None, (inverse * tangents[0]).sum(-1)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], values: Tensor, solver: DirectSolver
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        assert in_dims[0] is not None  # something is mapped
        matrices = values.unbind(in_dims[0])
        results = [_LogDeterminant.apply(v, solver.independent()) for v in matrices]
        signs, logarithms = zip(*results)
        return (torch.stack(signs), torch.stack(logarithms)), (0, 0)
