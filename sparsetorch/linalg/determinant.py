"""Determinants, differentiable through the selected inverse.

    d log det A = tr(A^-1 dA),    gradient of A = A^-T on its pattern.

(Jacobi's formula.) For complex A the real part is the change of log|det A|, the imaginary part that
of the angle, so that the sign changes by i Im tr(A^-1 dA) times itself, and the gradient is
A^-H times g - i Im(conj(h) sign), g and h being those of the logarithm and of the sign. For a
symmetric or Hermitian A that needs no exchanges of rows the gradient costs about as much as the
factorization, and a second derivative 2n solves; see `sparsetorch.linalg.inverse`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.direct import DirectMethod
from sparsetorch.linalg.dtypes import HALF, conjugate, widened
from sparsetorch.linalg.inverse import _Entries
from sparsetorch.linalg.krylov import check_system
from sparsetorch.linalg.solution import SolveError, Status
from sparsetorch.linalg.solvers import DirectSolver
from sparsetorch.structure import refuse_compiled
from sparsetorch_kernels import nestable


def logdet(A: CSRTensor) -> Tensor:
    """log det A of a symmetric positive definite matrix, by Cholesky, or of any complex one; 0-d.

    A: one square matrix on the CPU, both triangles stored. For a complex one, of any kind, the
    result is complex: the logarithm with an angle from -pi to pi. float16 and bfloat16 are computed
    in float32 and rounded once. The gradient with respect to `A.values` is A^-T (A^-H if complex)
    at all stored entries, as of `torch.logdet` of the dense matrix, from the Cholesky factor; it is
    differentiable itself, in reverse and forward mode. Equivalent to `torch.logdet(A.to_dense())`.

    Raises:
        SolveError: A is not positive definite; use `slogdet`.
        ValueError, TypeError: as `factorized`; for a batch, apply `torch.vmap`.
    """
    if isinstance(A, CSRTensor) and A.dtype.is_complex:
        sign, logarithm = slogdet(A)
        return logarithm + sign.log()
    return _log_determinant(A, "cholesky")[1]


def slogdet(A: CSRTensor) -> tuple[Tensor, Tensor]:
    """(sign, log|det A|) of a square matrix, both 0-d, by Cholesky, LDL^T or LU.

    A: one square matrix on the CPU. For a complex one the sign is a number of absolute value 1, and
    has a gradient too. float16 and bfloat16 are computed in float32 and rounded once. A singular
    matrix gives (0, -inf), as `torch.linalg.slogdet` does, but has no gradient. The gradient of the
    logarithm is A^-T on A's pattern: from the Cholesky or LDL^T factor where `factorized` finds
    one, by n solves elsewhere.

    Raises:
        SolveError: in the backward pass, where A is singular.
        ValueError, TypeError: as `factorized`; for a batch, apply `torch.vmap`.
    """
    return _log_determinant(A, "auto")


def det(A: CSRTensor) -> Tensor:
    """det A, 0-d; see `slogdet`. It overflows for all but small matrices: prefer `slogdet`."""
    sign, logarithm = slogdet(A)
    return sign * logarithm.exp()


def _log_determinant(A: CSRTensor, method: DirectMethod) -> tuple[Tensor, Tensor]:
    refuse_compiled("logdet" if method == "cholesky" else "slogdet, det")
    check_system(A, A.values.new_zeros(A.shape[-2]))
    sign, logarithm = _LogDeterminant.apply(widened(A).values, DirectSolver(A.pattern, method))
    return (sign.to(A.dtype), logarithm.to(A.dtype)) if A.dtype in HALF else (sign, logarithm)


class _LogDeterminant(torch.autograd.Function):
    """(sign, log|det A|)."""

    @staticmethod
    def forward(values: Tensor, solver: DirectSolver) -> tuple[Tensor, Tensor]:
        try:
            return solver.factorization(values).slogdet()
        except SolveError as error:
            if error.solution.status is not Status.SINGULAR:
                raise
            return values.new_zeros(()), values.real.new_full((), -torch.inf)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        values, ctx.solver = inputs
        if not values.is_complex():
            ctx.mark_non_differentiable(output[0])
        ctx.save_for_backward(values, output[0])
        ctx.save_for_forward(values, output[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, sign = ctx.saved_tensors
        inverse = conjugate(_Entries.apply(values, ctx.solver.adjoint))
        factor = grads[1]
        if values.is_complex():
            factor = torch.complex(factor, -(grads[0].conj() * sign).imag)
        return factor * inverse, None

    @staticmethod
    @nestable
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, Tensor]:
        values, sign = ctx.saved_tensors
        change = (_Entries.apply(values, ctx.solver.adjoint) * tangents[0]).sum(-1)
        if not values.is_complex():
            return None, change
        return 1j * change.imag * sign, change.real

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], values: Tensor, solver: DirectSolver
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        assert in_dims[0] is not None  # something is mapped
        matrices = values.unbind(in_dims[0])
        results = [_LogDeterminant.apply(v, solver.independent()) for v in matrices]
        signs, logarithms = zip(*results)
        return (torch.stack(signs), torch.stack(logarithms)), (0, 0)
