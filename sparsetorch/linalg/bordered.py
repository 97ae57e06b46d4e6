"""Singular shifted systems, made regular by a border of eigenvectors; differentiable.

For eigenpairs S V = V diag(w) of a Hermitian S with V^H V = I, and for each column i,

    (S - w_i) u_i + V m_i = r_i,    V^H u_i = c_i.

The matrix is Hermitian, so the adjoint and the tangent of a solution are solutions again, and
derivatives of every order follow: with the solution (z, q) for a gradient of (u, m), the gradients
of r, c, S, w_i and V are z, q, -z u^H, Re z^H u and -(z m^H + u q^H), in PyTorch's convention for
complex numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.direct import Factorization
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, conjugate
from sparsetorch.linalg.full_precision import full_precision
from sparsetorch.linalg.krylov import Operator
from sparsetorch.linalg.minres import minres
from sparsetorch.linalg.solution import Solution
from sparsetorch.linalg.solvers import product
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import nestable, sddmm


def real_products(U: Tensor, V: Tensor) -> Tensor:
    """Re u_i^H v_i of the columns of U and V, (n, k) both."""
    return (conjugate(U) * V).sum(0).real


def widening(dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of double precision for one of single, else None.

    Eigenvectors of single precision are orthonormal to some 1e-6 only, and an iteration that has to
    stay orthogonal to them then stalls above its tolerance.
    """
    return {torch.float32: torch.float64, torch.complex64: torch.complex128}.get(dtype)


def orthonormal(V: Tensor, W: Tensor) -> Tensor:
    """V with V^H W closer to the identity: what is missing is squared (Newton's iteration)."""
    return V @ (1.5 * torch.eye(V.shape[1]).to(V) - 0.5 * (V.mH @ W))


@dataclass(frozen=True)
class Inverse:
    """The factors of S - sigma I, which make systems shifted by something close to sigma easy."""

    factors: Factorization
    sigma: float


@dataclass(frozen=True)
class Border:
    """The pattern of S, how exactly to solve, and an inverse if there is one."""

    pattern: Pattern
    rtol: float | None
    inverse: Inverse | None = None

    def solve(self, values: Tensor, w: Tensor, V: Tensor, R: Tensor, C: Tensor):
        """(U, M) for values (nnz,), w (k,), V (n, k), R (n, k) and C (k, k); no gradients."""
        if self.inverse is None and (wide := widening(values.dtype)) is not None:
            V = V.to(wide)
            given = (values.to(wide), w.double(), orthonormal(V, V), R.to(wide), C.to(wide))
            U, M = replace(self, rtol=self.rtol or DEFAULT_RTOL[values.dtype]).solve(*given)
            return U.to(values.dtype), M.to(values.dtype)
        U = V @ C
        rest = R - self._shifted(values, w, U)
        rest = rest - V @ (V.mH @ rest)
        columns = [self._column(values, w[i], V, rest[:, i], i) for i in range(w.shape[0])]
        U = U + torch.stack(columns, 1)
        return U, V.mH @ (R - self._shifted(values, w, U))

    def _shifted(self, values: Tensor, w: Tensor, U: Tensor) -> Tensor:
        return product(self.pattern.layout, values, U) - U * w

    def _column(self, values: Tensor, w: Tensor, V: Tensor, r: Tensor, i: int) -> Tensor:
        """The solution of (S - w) u = r that is orthogonal to V, as r is."""

        def project(x: Tensor) -> Tensor:
            return x - V @ (V.mH @ x)

        def shifted(x: Tensor) -> Tensor:
            x = project(x)
            return project(product(self.pattern.layout, values, x) - w * x)

        multiply: Operator = shifted
        if self.inverse is not None:
            # F (S - w) = I - (w - sigma) F for F = (S - sigma)^-1: close to I where sigma is.
            factors, distance = self.inverse.factors, w - self.inverse.sigma
            r = project(factors.solve(r))

            def near_identity(x: Tensor) -> Tensor:
                x = project(x)
                return project(x - distance * factors.solve(x))

            multiply = near_identity
        solution = minres(multiply, r, rtol=self.rtol)
        return project(derivative_of(i, solution))


def derivative_of(i: int, solution: Solution) -> Tensor:
    """The x of a solve for a derivative of eigenvector i; its failure says what to try."""
    if not solution.converged:
        detail = (
            f"solving for a derivative of eigenvector {i}, which exists if its eigenvalue is not "
            "one of those left out: try a larger k"
        )
        solution = replace(solution, detail=detail)
    return solution.checked().x


class Bordered(torch.autograd.Function):
    """(U, M) from (values of S, w, V, R, C, border)."""

    @staticmethod
    @full_precision
    def forward(values: Tensor, w: Tensor, V: Tensor, R: Tensor, C: Tensor, border: Border):
        """See `Border.solve`."""
        return border.solve(values, w, V, R, C)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        """Keep what the derivatives read."""
        values, w, V, _, _, ctx.border = inputs
        ctx.save_for_backward(values, w, V, *output)
        ctx.save_for_forward(values, w, V, *output)

    @staticmethod
    @full_precision
    def backward(ctx: Any, *grads: Tensor):
        """See the module."""
        values, w, V, U, M = ctx.saved_tensors
        border = ctx.border

        def adjoint(g_U: Tensor, g_M: Tensor) -> tuple[Tensor, ...]:
            return Bordered.apply(values, w, V, g_U, g_M, border)

        Z, Q = map_gradients(adjoint, *grads)
        g_values = -sddmm(border.pattern.layout, Z, conjugate(U))
        return g_values, real_products(Z, U), -(Z @ M.mH + U @ Q.mH), Z, Q, None

    @staticmethod
    @nestable
    @full_precision
    def jvp(ctx: Any, *tangents: Any):
        """See the module."""
        values, w, V, U, M = ctx.saved_tensors
        zeros = (torch.zeros_like(t) for t in (values, w, V, U, M))
        dS, dw, dV, dR, dC = (z if t is None else t for t, z in zip(tangents, zeros))
        R = dR - product(ctx.border.pattern.layout, dS, U) + U * dw - dV @ M
        return Bordered.apply(values, w, V, R, dC - dV.mH @ U, ctx.border)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any):
        """One member after the other."""
        results = [
            Bordered.apply(*(a if d is None else a.select(d, i) for a, d in zip(args, in_dims)))
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*results)), (0, 0)
