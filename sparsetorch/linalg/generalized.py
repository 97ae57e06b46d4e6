"""Some eigenpairs of A v = w M v, and their derivatives.

With A v_i = w_i M v_i, V^H M V = I and tangents dA and dM, whose forms in V are
X_ij = v_i^H dA v_j and Y_ij = v_i^H dM v_j,

    dw_i = X_ii - w_i Y_ii,
    dv_i = sum over j of v_j ((X_ji - (w_i + w_j) / 2 Y_ji) / (w_i - w_j) - Y_ji / 2)  +  u_i,
    (A - w_i M) u_i = -(dA - w_i dM) v_i, on the M-orthogonal complement of V,

where the quotient is none for j = i (Giles 2008, section 3.1, for M = I; the rest from the
derivative of V^H M V = I). All of it is differentiable, as in `eigsh`, where it is also said what
becomes of the phases of complex vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.bordered import real_products
from sparsetorch.linalg.columns import unit_scale
from sparsetorch.linalg.direct import factorized
from sparsetorch.linalg.dtypes import conjugate
from sparsetorch.linalg.eigenproblem import Gaps, Mass, Problem, in_order, kind, once_differentiable
from sparsetorch.linalg.full_precision import full_precision
from sparsetorch.linalg.krylov import Operator
from sparsetorch.linalg.pencil import BorderedPencil, Pencil
from sparsetorch.linalg.solution import SolveError
from sparsetorch.linalg.solvers import product
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import nestable, sddmm


def generalized_eigsh(A: CSRTensor, M: CSRTensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """(w, V) with A V = M V diag(w), V^H M V = I; `eigsh` has checked A, and says the rest."""
    _check(A, M)
    scale = _power_of_four(unit_scale(M.values))
    M = M / scale
    sigma = None if problem.sigma is None else problem.sigma * scale
    pattern, left, right = A.pattern.union(M.pattern)
    a, m = (
        B.values.new_zeros(pattern.nnz).index_add(0, places, B.values)
        for B, places in ((A, left), (M, right))
    )
    asked = {**vars(problem), "pattern": pattern, "sigma": sigma}
    w, V = _Generalized.apply(a, m, PencilProblem(**asked, mass=M.pattern, places=right))
    return w / scale, V / math.sqrt(scale)


def _power_of_four(scale: float) -> float:
    """This power of two, or half of it, whose root is a power of two as well."""
    return scale if math.frexp(scale)[1] % 2 == 1 else scale / 2


def _check(A: CSRTensor, M: CSRTensor) -> None:
    if not isinstance(M, CSRTensor):
        raise TypeError(f"M: expected a CSRTensor, got {type(M).__name__}")
    if M.shape != A.shape:
        raise ValueError(f"M: expected shape {tuple(A.shape)} like A, got {tuple(M.shape)}")
    if M.dtype != A.dtype:
        raise TypeError(f"M: expected {A.dtype} like A, got {M.dtype}; convert one with .to(dtype)")
    if M.device != A.device or M.device.type != "cpu":
        raise ValueError(f"M: is factorized, on the CPU, got {M.device} and A on {A.device}")
    if not M.pattern.is_symmetric:
        raise ValueError(f"M: expected a {kind(M)} matrix, got an entry without a mirror")


@dataclass(frozen=True, eq=False, kw_only=True)
class PencilProblem(Problem):
    """What `eigsh` was asked, on the pattern of A and M; `mass` is that of M, at these `places`."""

    mass: Pattern
    places: Tensor

    @property
    def pencil(self) -> Pencil:
        """The solver for derivatives of eigenvectors."""
        return Pencil(self.pattern, self.adjoint_rtol, self.inverse[0] if self.inverse else None)

    def solve_pencil(self, a: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """(w, V) for values (nnz,) of both matrices."""
        self.check_symmetric("A", a)
        self.check_symmetric("M", m)
        S, T = (CSRTensor(self.pattern, self.symmetric(v)) for v in (a, m))
        mass = Mass(T.matvec, self._factored(T))
        inverse = None if self.sigma is None else self.shifted_inverse(S - self.sigma * T)
        w, V = in_order(*self.eigenpairs(S, inverse, mass))
        return w, V / real_products(V, T @ V).sqrt()

    def _factored(self, T: CSRTensor) -> Operator:
        own = CSRTensor(self.mass, T.values.index_select(0, self.places))
        try:
            return factorized(own, "cholesky")
        except SolveError as error:
            raise ValueError(
                f"M: expected a positive definite matrix, but {error.solution.detail}"
            ) from None

    def gaps(self, w: Tensor, a: Tensor, m: Tensor) -> Gaps:
        """The gaps, and which are nothing but rounding."""
        smallest = CSRTensor(self.pattern, m.detach()).diagonal().real.amin(-1)
        return Gaps(w, self.bound(a) / smallest)


class _Generalized(torch.autograd.Function):
    """(w, V) from the values of A and M."""

    @staticmethod
    @full_precision
    def forward(a: Tensor, m: Tensor, problem: PencilProblem) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return problem.solve_pencil(a, m)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        a, m, ctx.problem = inputs
        ctx.save_for_backward(a, m, *output)
        ctx.save_for_forward(a, m, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    @full_precision
    def backward(ctx: Any, *grads: Tensor | None):
        a, m, w, V = ctx.saved_tensors
        problem: PencilProblem = ctx.problem
        layout, gaps = problem.pattern.layout, problem.gaps(w, a, m)
        g_w, g_V = grads
        factor, scaling = torch.zeros_like(V), torch.zeros_like(V)
        if g_w is not None:
            factor = factor + V * g_w
        if g_V is not None:
            S, T = problem.symmetric(a), problem.symmetric(m)
            W = product(layout, T, V)

            def adjoint(g: Tensor) -> Tensor:
                zeros = torch.zeros_like(V.mH @ V)
                return BorderedPencil.apply(S, T, w, W, V, g, zeros, problem.pencil)[0]

            H = V.mH @ g_V
            rotation = gaps.divide((H - H.mH) / 2, g_V)
            factor = factor + V @ rotation - map_gradients(adjoint, g_V)
            scaling = V @ (H + H.mH) / 4
        conj = conjugate(V)
        g_a = problem.symmetric(sddmm(layout, factor, conj))
        g_m = -problem.symmetric(sddmm(layout, factor * w + scaling, conj))
        if gaps.any:
            return once_differentiable(g_a), once_differentiable(g_m), None
        return g_a, g_m, None

    @staticmethod
    @nestable
    @full_precision
    def jvp(ctx: Any, da: Tensor | None, dm: Tensor | None, _: None):
        a, m, w, V = ctx.saved_tensors
        problem: PencilProblem = ctx.problem
        layout = problem.pattern.layout
        of_A, of_M = (
            torch.zeros_like(V) if d is None else product(layout, problem.symmetric(d), V)
            for d in (da, dm)
        )
        X, Y = V.mH @ of_A, V.mH @ of_M
        image = of_A - of_M * w
        mean = (w.unsqueeze(-1) + w.unsqueeze(-2)) / 2
        rotation = problem.gaps(w, a, m).divide_or_nan(X - mean * Y, image) - Y / 2
        S, T = problem.symmetric(a), problem.symmetric(m)
        W = product(layout, T, V)
        rest, _ = BorderedPencil.apply(
            S, T, w, W, V, -image, torch.zeros_like(rotation), problem.pencil
        )
        return real_products(V, image), V @ rotation + rest

    @staticmethod
    def vmap(info: Any, in_dims: tuple, a: Tensor, m: Tensor, problem: PencilProblem):
        pairs = [
            _Generalized.apply(
                *(t if d is None else t.select(d, i) for t, d in zip((a, m), in_dims)),
                replace(problem, inverse=[]),
            )
            for i in range(info.batch_size)
        ]
        if not pairs:
            raise ValueError("eigsh under torch.vmap: expected a mapped A with at least one member")
        return tuple(torch.stack(parts) for parts in zip(*pairs)), (0, 0)
