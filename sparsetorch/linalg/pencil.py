"""Singular systems of a pencil, A - w_i M, made regular by a border; differentiable.

For eigenpairs A V = M V diag(w) of Hermitian A and M with V^H M V = I, with W = M V, and for each
column i,

    (A - w_i M) u_i + W m_i = r_i,    W^H u_i = c_i.

As in `bordered`, of which this is the form for M /= I, the matrix is Hermitian: with the solution
(z, q) for a gradient of (u, m), the gradients of r, c, A, M, w_i and W are z, q, -z u^H, w_i z u^H,
Re z^H M u and -(z m^H + u q^H).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.bordered import (
    Inverse,
    derivative_of,
    orthonormal,
    real_products,
    widening,
)
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, conjugate
from sparsetorch.linalg.full_precision import full_precision
from sparsetorch.linalg.gmres import gmres
from sparsetorch.linalg.minres import minres
from sparsetorch.linalg.solvers import product
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import nestable, sddmm


@dataclass(frozen=True)
class Pencil:
    """The pattern of A and M, how exactly to solve, and the inverse of A - sigma M if it is there.

    In what follows a and m are values (nnz,), w (k,), W, V and R (n, k), and C (k, k).
    """

    pattern: Pattern
    rtol: float | None
    inverse: Inverse | None = None

    def shifted(self, a: Tensor, m: Tensor, w: Tensor, U: Tensor) -> Tensor:
        """The columns (A - w_i M) u_i, differentiable; w may be one number for a vector U."""
        layout = self.pattern.layout
        return product(layout, a, U) - product(layout, m, U) * w

    def solve(
        self, a: Tensor, m: Tensor, w: Tensor, W: Tensor, V: Tensor, R: Tensor, C: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(U, multipliers); no gradients."""
        if self.inverse is None and (wide := widening(a.dtype)) is not None:
            V, W = V.to(wide), W.to(wide)
            V, W = orthonormal(V, W), orthonormal(W, V)
            given = (a.to(wide), m.to(wide), w.double(), W, V, R.to(wide), C.to(wide))
            U, M = replace(self, rtol=self.rtol or DEFAULT_RTOL[a.dtype]).solve(*given)
            return U.to(a.dtype), M.to(a.dtype)
        U = V @ C
        rest = R - self.shifted(a, m, w, U)
        columns = [self._column(a, m, w[i], W, V, rest[:, i], i) for i in range(w.shape[0])]
        U = U + torch.stack(columns, 1)
        return U, V.mH @ (R - self.shifted(a, m, w, U))

    def _column(
        self, a: Tensor, m: Tensor, w: Tensor, W: Tensor, V: Tensor, r: Tensor, i: int
    ) -> Tensor:
        """The u with W^H u = 0 that solves (A - w M) u = r up to a combination of W."""

        def project(x: Tensor) -> Tensor:
            return x - V @ (W.mH @ x)

        def project_back(x: Tensor) -> Tensor:
            return x - W @ (V.mH @ x)

        if self.inverse is None:
            solution = minres(
                lambda x: project_back(self.shifted(a, m, w, project(x))),
                project_back(r),
                rtol=self.rtol,
            )
        else:
            # F (A - w M) = I - (w - sigma) F M for F = (A - sigma M)^-1: close to I where sigma is,
            # and self-adjoint in the inner product of M only.
            factors, distance = self.inverse.factors, w - self.inverse.sigma
            layout = self.pattern.layout

            def near_identity(x: Tensor) -> Tensor:
                x = project(x)
                return project(x - distance * factors.solve(product(layout, m, x)))

            right = project(factors.solve(project_back(r)))
            solution = gmres(near_identity, right, rtol=self.rtol)
        return project(derivative_of(i, solution))


class BorderedPencil(torch.autograd.Function):
    """(U, multipliers) from (a, m, w, W, V, R, C, pencil); V is known by W, and has no gradient."""

    @staticmethod
    @full_precision
    def forward(
        a: Tensor,
        m: Tensor,
        w: Tensor,
        W: Tensor,
        V: Tensor,
        R: Tensor,
        C: Tensor,
        pencil: Pencil,
    ):
        """See `Pencil.solve`."""
        return pencil.solve(a, m, w, W, V, R, C)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        """Keep what the derivatives read."""
        a, m, w, W, V, _, _, ctx.pencil = inputs
        ctx.save_for_backward(a, m, w, W, V, *output)
        ctx.save_for_forward(a, m, w, W, V, *output)

    @staticmethod
    @full_precision
    def backward(ctx: Any, *grads: Tensor):
        """See the module."""
        a, m, w, W, V, U, multipliers = ctx.saved_tensors
        pencil: Pencil = ctx.pencil
        layout = pencil.pattern.layout

        def adjoint(g_U: Tensor, g_m: Tensor) -> tuple[Tensor, ...]:
            return BorderedPencil.apply(a, m, w, W, V, g_U, g_m, pencil)

        Z, Q = map_gradients(adjoint, *grads)
        g_w = real_products(Z, product(layout, m, U))
        g_W = -(Z @ multipliers.mH + U @ Q.mH)
        conj = conjugate(U)
        return -sddmm(layout, Z, conj), sddmm(layout, Z * w, conj), g_w, g_W, None, Z, Q, None

    @staticmethod
    @nestable
    @full_precision
    def jvp(ctx: Any, *tangents: Any):
        """See the module."""
        a, m, w, W, V, U, multipliers = ctx.saved_tensors
        pencil: Pencil = ctx.pencil
        like = (a, m, w, W, V, U, multipliers)
        da, dm, dw, dW, _, dR, dC = (
            torch.zeros_like(t) if d is None else d for d, t in zip(tangents, like)
        )
        R = dR - pencil.shifted(da, dm, w, U) + product(pencil.pattern.layout, m, U) * dw
        C = dC - dW.mH @ U
        return BorderedPencil.apply(a, m, w, W, V, R - dW @ multipliers, C, pencil)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any):
        """One member after the other."""
        results = [
            BorderedPencil.apply(
                *(t if d is None else t.select(d, i) for t, d in zip(args, in_dims))
            )
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*results)), (0, 0)
