"""log det A = tr log A by stochastic Lanczos quadrature: Ubaru, Chen and Saad (2017).

For a vector z and the tridiagonal T = Y diag(t) Y^T of `steps` Lanczos steps from it,

    z . log(A) z  ~  |z|^2 sum over k of Y_1k^2 log t_k,

Gauss' quadrature rule. The gradient is d log det A = tr(A^-1 dA) ~ z . A^-1 dA z with the same z.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsetorch.checks import check_count
from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.dtypes import REAL
from sparsetorch.linalg.factorization import check_finite
from sparsetorch.linalg.krylov import check_system
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.linalg.solve import Method, solve
from sparsetorch.linalg.solvers import product
from sparsetorch.linalg.trace import Estimate, mean_of, signs
from sparsetorch.pattern import Pattern
from sparsetorch.structure import refuse_compiled
from sparsetorch_kernels import nestable, sddmm


def logdet_estimate(
    A: CSRTensor,
    n_samples: int = 30,
    *,
    steps: int = 50,
    generator: torch.Generator | None = None,
    method: Method = "cg",
    **options: Any,
) -> Estimate:
    """An estimate of log det A, A symmetric positive definite, without a factorization.

    A: one CSRTensor (n, n), float32 or float64. n_samples: random vectors. steps: of Lanczos for
    each, all at once; the error of the quadrature falls by ((sqrt(c) - 1) / (sqrt(c) + 1))^2 per
    step, c the condition number. generator: on the CPU, PyTorch's global one if None.

    Differentiable in `A.values`: the gradient is the mean of the symmetric parts of (A^-1 z) z^T on
    the pattern, an unbiased estimate of A^-1 there, by solves with `method` and its options (see
    `solve`). It is not the derivative of the estimate but of what is estimated; so are derivatives
    of higher order and the tangent, with the same vectors.

    Returns (value, standard_error), both (); the standard error is that of the samples alone,
    without the error of the quadrature. `torch.logdet(A.to_dense())` is exact.

    Raises:
        SolveError: A is not positive definite; later, a solve for the gradient failed.
        ValueError: A is a batch (use torch.vmap with randomness="same"), not square or not finite,
            or a count is below 1.
        TypeError: A is not a CSRTensor of float32 or float64, or a count is no number.
    """
    refuse_compiled("logdet_estimate")
    count = check_count("n_samples", n_samples, "random vector")
    steps = check_count("steps", steps, "step")
    if not isinstance(A, CSRTensor):
        raise TypeError(f"A: expected a CSRTensor, got {type(A).__name__}")
    Z = signs(A.shape[-1], count, torch.empty(0, dtype=A.dtype, device=A.device), generator)
    check_system(A, Z, dtypes=REAL)
    samples = _Quadrature.apply(A.values, Z, A.pattern, steps, {"method": method, **options})
    return mean_of(samples)


class _Quadrature(torch.autograd.Function):
    """z . log(A) z for each column z, (count,); derivatives are those of its exact mean."""

    @staticmethod
    def forward(
        values: Tensor, Z: Tensor, pattern: Pattern, steps: int, options: dict[str, Any]
    ) -> Tensor:
        if Z.shape[0] == 0:
            return Z.new_zeros(Z.shape[1])
        check_finite(CSRTensor(pattern, values))
        T = _tridiagonal(values, Z, pattern, min(steps, Z.shape[0]))
        nodes, Y = torch.linalg.eigh(T)
        if not bool(nodes.min() > 0):
            detail = f"the Lanczos process found {float(nodes.min()):.3g} among its eigenvalues"
            raise SolveError(Solution(Z, Status.INDEFINITE, T.shape[-1], [], detail))
        return Z.shape[0] * (Y[..., 0, :] ** 2 * nodes.log()).sum(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        values, Z, ctx.pattern, _, ctx.options = inputs
        ctx.save_for_backward(values, Z)
        ctx.save_for_forward(values, Z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        values, Z = ctx.saved_tensors
        X = solve(CSRTensor(ctx.pattern, values), Z, **ctx.options)
        layout = ctx.pattern.layout
        # Two products of rank `count`, for A is symmetric and so is what is estimated.
        gradient = sddmm(layout, X * grads[0], Z) + sddmm(layout, Z * grads[0], X)
        return gradient / 2, None, None, None, None

    @staticmethod
    @nestable
    def jvp(ctx: Any, d_values: Tensor, *_: Any) -> Tensor:
        values, Z = ctx.saved_tensors
        X = solve(CSRTensor(ctx.pattern, values), Z, **ctx.options)
        image = product(ctx.pattern.layout, d_values, Z)
        transposed = product(ctx.pattern.layout.T, d_values, Z)
        return (X * (image + transposed)).sum(0) / 2

    @staticmethod
    def vmap(info: Any, in_dims: tuple, values: Tensor, Z: Tensor, *others: Any):
        samples = [
            _Quadrature.apply(
                *(t if d is None else t.select(d, i) for t, d in zip((values, Z), in_dims)), *others
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(samples), 0


def _tridiagonal(values: Tensor, Z: Tensor, pattern: Pattern, steps: int) -> Tensor:
    """T of the Lanczos process from every column of Z, (count, steps, steps).

    A process that has exhausted its space goes on with ones, whose logarithm is zero, beside it.
    """
    V_before, V = torch.zeros_like(Z), Z / max(1, Z.shape[0]) ** 0.5
    T = Z.new_zeros(Z.shape[1], steps, steps)
    beta = Z.new_zeros(Z.shape[1])
    alive = torch.ones_like(beta)
    for j in range(steps):
        W = product(pattern.layout, values, V)
        alpha = (V * W).sum(0)
        T[:, j, j] = torch.where(alive > 0, alpha, 1)
        W = W - alpha * V - beta * V_before
        scale = torch.hypot(alpha, beta)
        beta = torch.linalg.vector_norm(W, dim=0)
        alive = torch.where(beta > 100 * torch.finfo(Z.dtype).eps * scale, alive, 0)
        beta = beta * alive
        V_before, V = V, torch.where(beta > 0, W / beta, 0)
        if j + 1 < steps:
            T[:, j, j + 1] = T[:, j + 1, j] = beta
    return T
