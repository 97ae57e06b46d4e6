"""Some eigenpairs of a sparse symmetric or complex Hermitian matrix, and their derivatives.

With S v_i = w_i v_i, V^H V = I and a tangent dS,

    dw_i = v_i^H dS v_i,
    dv_i = sum over j of v_j (v_j^H dS v_i) / (w_i - w_j)  +  u_i,
    (S - w_i) u_i = -dS v_i on the complement of V,

where j runs over the other computed pairs (Magnus 1985; Giles 2008, section 3.1). Only the last
line needs a solve, on a space that lacks the eigenvalues close to w_i. All of it is made of
differentiable operations, so derivatives of every order are exact up to the tolerance of the solve.

A complex v_i is determined but for a phase. The dv_i above is the tangent for which v_i^H dv_i is
zero; none of what follows from it depends on the phase that v_i has. Making the largest component
real, v_i conj(p_i) / |p_i|, is a differentiable step behind it, and adds the imaginary multiple of
v_i that keeps that component real.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from sparsetorch.checks import check_count, check_tolerance
from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.bordered import Bordered, real_products
from sparsetorch.linalg.columns import unit_scale
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, conjugate
from sparsetorch.linalg.eigenproblem import (
    Gaps,
    Problem,
    kind,
    once_differentiable,
    phases,
    remedy,
)
from sparsetorch.linalg.full_precision import full_precision
from sparsetorch.linalg.generalized import generalized_eigsh
from sparsetorch.linalg.krylov import check_system, starting_point
from sparsetorch.linalg.solvers import product
from sparsetorch.linalg.thick_restart import WANTED
from sparsetorch.structure import plain, refuse_compiled
from sparsetorch_kernels import nestable, sddmm

Which = Literal["LM", "SM", "LA", "SA", "BE"]


class Options(TypedDict, total=False):
    """The options of `eigsh`, as it describes them."""

    M: CSRTensor | None
    sigma: float | None
    which: Which
    v0: Tensor | None
    ncv: int | None
    maxiter: int | None
    tol: float
    adjoint_rtol: float | None


@overload
def eigsh(
    A: CSRTensor,
    k: int = ...,
    *,
    return_eigenvectors: Literal[False],
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def eigsh(
    A: CSRTensor,
    k: int = ...,
    *,
    return_eigenvectors: Literal[True] = ...,
    **options: Unpack[Options],
) -> tuple[Tensor, Tensor]: ...
def eigsh(
    A: CSRTensor,
    k: int = 6,
    *,
    M: CSRTensor | None = None,
    sigma: float | None = None,
    which: Which = "LM",
    v0: Tensor | None = None,
    ncv: int | None = None,
    maxiter: int | None = None,
    tol: float = 0.0,
    return_eigenvectors: bool = True,
    adjoint_rtol: float | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """k eigenvalues, ascending, and orthonormal eigenvectors of a Hermitian A; differentiable.

    A: one CSRTensor (n, n), symmetric if float32 or float64, Hermitian if complex64 or complex128;
    k < n. M: a positive definite one like A, on the CPU, for the generalized problem A v = w M v,
    with V^H M V = I; differentiable in both. which: "LM" and "SM" the largest and smallest in
    magnitude, "LA" and "SA" algebraically, "BE" half from each end. sigma: the eigenvalues around
    it, by a factorization of A - sigma I, or A - sigma M, on the CPU; `which` then speaks of
    1 / (w - sigma), so that "LM" are the closest ones. v0: (n,), the start; random but always the
    same by default. ncv: size of the basis, max(2 k + 1, 20) by default. maxiter: restarts, 10 n by
    default. tol: relative accuracy, 0 for machine precision. adjoint_rtol: of the solves behind
    derivatives of eigenvectors, 1e-6 in single and 1e-10 in double precision by default.

    The smallest eigenvalues of a positive definite matrix are found far sooner by sigma=0 than by
    "SM" or "SA". Those of an indefinite one lie inside the spectrum, where a Krylov method cannot
    know what it has not seen: it may find eigenpairs, each of them right, and miss one closer to
    zero (as SciPy's does). On the CPU, "SM" without M therefore counts the eigenvalues that there
    are, by two L D L^T factorizations, and if some are missing finds all by sigma=0. It does not
    where A has more than 10^5 rows, its factor more than 10^7 entries, or A needs exchanges of rows
    (see `factorized`).

    Returns w (k,), always real, and V (n, k), or w alone. The largest component of each vector
    (the first one of several) is real and positive. On the CPU ARPACK computes those of a real
    matrix (`scipy.sparse.linalg.eigsh`, whose arguments these are), elsewhere and for complex ones
    a thick-restart Lanczos method; both may miss copies of a multiple eigenvalue.

    Derivatives are those of the eigenpairs of (A + A^H) / 2, with vectors normalized as said, so
    gradients are Hermitian, like those of `torch.linalg.eigh` of that, which has none of complex
    vectors that depend on the phase. The gradient of a symmetric function of equal eigenvalues, and
    of the projector V V^H on all of them, is right. That of single vectors among equal eigenvalues
    is undefined: it raises in reverse mode, and is NaN in forward mode, where `torch.linalg.eigh`
    returns NaN, infinity or noise. Second derivatives need distinct eigenvalues, and raise without.

    Raises:
        SolveError: not all k converged, or A - sigma I is singular; later, a solve for a derivative
            failed, as it does if an eigenvalue that was left out equals one of the k.
        ValueError: a batch (use torch.vmap), a matrix that is not square, finite and symmetric, if
            complex Hermitian, or an option out of range; an M that is not positive definite; sigma
            or M where A is not on the CPU.
        TypeError: A is not a CSRTensor of single or double precision, or M not one like it; an
            option that should be a number is not.
        RuntimeError: derivatives that do not exist, as said above.
    """
    refuse_compiled("eigsh")
    problem = _checked(A, k, sigma, which, v0, ncv, maxiter, tol, adjoint_rtol)
    size = unit_scale(A.values)  # ARPACK takes what is far below 1 for zero
    problem = replace(problem, sigma=None if sigma is None else sigma / size, size=size)
    A = A / size
    w, V = _Eigsh.apply(A.values, problem) if M is None else generalized_eigsh(A, M, problem)
    w = w * size
    if not return_eigenvectors:
        return w
    return w, (V * phases(V) if V.is_complex() else V)


def _checked(
    A: CSRTensor,
    k: int,
    sigma: float | None,
    which: Which,
    v0: Tensor | None,
    ncv: int | None,
    maxiter: int | None,
    tol: float,
    adjoint_rtol: float | None,
) -> Problem:
    """The problem that valid arguments describe."""
    like = plain(A.values) if isinstance(A, CSRTensor) else torch.empty(0)
    if isinstance(A, CSRTensor) and A.ndim == 2:
        like = like.new_zeros(A.shape[0])
    check_system(A, like, dtypes=DEFAULT_RTOL)
    n = A.shape[0]
    if not A.pattern.is_symmetric:
        raise ValueError(
            f"A: expected a {kind(A)} matrix, got an entry without a mirror{remedy(A)}"
        )
    k = check_count("k", k, "eigenpair")
    if k >= n:
        raise ValueError(
            f"k: expected 1 <= k < {n} for {n} rows, got {k}; torch.linalg.eigh(A.to_dense()) "
            "finds all"
        )
    if which not in WANTED:
        raise ValueError(f"which: expected one of {', '.join(map(repr, WANTED))}, got {which!r}")
    if sigma is not None and (isinstance(sigma, complex) or not math.isfinite(sigma)):
        raise ValueError(f"sigma: expected a finite number, and a real one, or None, got {sigma}")
    if sigma is not None and A.device.type != "cpu":
        raise ValueError(f"sigma: needs a factorization, on the CPU, got {A.device}; use which=")
    basis = min(n, max(2 * k + 1, 20)) if ncv is None else check_count("ncv", ncv, "vector")
    if not k < basis <= n:
        raise ValueError(f"ncv: expected an integer with k = {k} < ncv <= {n}, got {ncv}")
    restarts = 10 * n if maxiter is None else check_count("maxiter", maxiter, "restart")
    check_tolerance("tol", tol)
    if adjoint_rtol is not None:
        check_tolerance("adjoint_rtol", adjoint_rtol)
    if v0 is None:  # NumPy's generator, for vmap forbids PyTorch's
        v0 = torch.from_numpy(np.random.default_rng(0).standard_normal(n)).to(like)
    start = plain(starting_point(v0, like, (n,), "v0"))
    if not bool(start.any()) or not bool(start.isfinite().all()):
        raise ValueError("v0: expected finite numbers that are not all zero")
    return Problem(A.pattern, k, sigma, which, start, basis, restarts, tol, adjoint_rtol)


class _Eigsh(torch.autograd.Function):
    """(w, V) from values."""

    @staticmethod
    @full_precision
    def forward(values: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return problem.solve(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        values, ctx.problem = inputs
        ctx.save_for_backward(values, *output)
        ctx.save_for_forward(values, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    @full_precision
    def backward(ctx: Any, *grads: Tensor | None):
        values, w, V = ctx.saved_tensors
        problem: Problem = ctx.problem
        gaps = Gaps(w, problem.bound(values))
        g_w, g_V = grads
        factor = torch.zeros_like(V)
        if g_w is not None:
            factor = factor + V * g_w
        if g_V is not None:
            S, border = problem.symmetric(values), problem.border

            def adjoint(g: Tensor) -> Tensor:
                return Bordered.apply(S, w, V, g, torch.zeros_like(V.mH @ V), border)[0]

            H = V.mH @ g_V
            rotation = gaps.divide((H - H.mH) / 2, g_V)
            factor = factor + V @ rotation - map_gradients(adjoint, g_V)
        gradient = problem.symmetric(sddmm(problem.pattern.layout, factor, conjugate(V)))
        return (once_differentiable(gradient) if gaps.any else gradient), None

    @staticmethod
    @nestable
    @full_precision
    def jvp(ctx: Any, d_values: Tensor, _: None):
        values, w, V = ctx.saved_tensors
        problem: Problem = ctx.problem
        image = product(problem.pattern.layout, problem.symmetric(d_values), V)  # dS V
        rotation = Gaps(w, problem.bound(values)).divide_or_nan(V.mH @ image, image)
        zeros = torch.zeros_like(rotation)
        rest, _ = Bordered.apply(problem.symmetric(values), w, V, -image, zeros, problem.border)
        return real_products(V, image), V @ rotation + rest

    @staticmethod
    def vmap(info: Any, in_dims: tuple, values: Tensor, problem: Problem):
        if in_dims[0] is None or info.batch_size == 0:
            raise ValueError("eigsh under torch.vmap: expected a mapped A with at least one member")
        pairs = [
            _Eigsh.apply(values.select(in_dims[0], i), problem.independent())
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*pairs)), (0, 0)
