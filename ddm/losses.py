"""Unsupervised losses on the error propagator of a two-level method.

Taghibakhshi et al. (2023), section 4.3: for m random unit vectors e_0 and `e_k = T e_{k-1}`,

    z_k = (max_j ||e_k^(j)||_2)^(1/k),    k = 1 .. K
    loss = <softmax(z), z> + gamma tr(P^T A P) / tr(P_0^T A P_0)

The paper draws e_0 from U(0, 1) and takes gamma = 5 (its code; `ddm.published` has it). Such
vectors are nearly one smooth mode, and the trace term then rules the loss. With zero-mean vectors
that have gone through iterations without gradient the z_k estimate the spectral radius, and no term
but `krylov_reduction` is needed beside them: how all errors fall together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsetorch import CSRTensor, masked_matmul


def random_vectors(
    n: int,
    count: int,
    *,
    kind: str = "normal",
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Random start vectors with unit 2-norm, (n, count): "normal", or "uniform" as in the paper.

    `device` None is that of the generator, if there is one.

    Raises:
        ValueError: another `kind`.
    """
    draw = {"normal": torch.randn, "uniform": torch.rand}.get(kind)
    if draw is None:
        raise ValueError(f"kind: expected 'normal' or 'uniform', got {kind!r}")
    if device is None and generator is not None:
        device = generator.device
    vectors = draw(n, count, generator=generator, dtype=dtype, device=device)
    return vectors / vectors.norm(dim=0)


def stochastic_norm(
    propagate: Callable[[Tensor], Tensor],
    vectors: Tensor,
    *,
    steps: int = 10,
    warmup: int = 0,
    sharpness: float = 1.0,
) -> Tensor:
    """`<softmax(sharpness z), z>` over k = 1 .. steps, a differentiable estimate of ||T^k||^(1/k).

    Args:
        propagate: e -> T e for (n, m) columns.
        vectors: (n, m) start vectors.
        steps: K.
        warmup: iterations without gradient before the first step; the columns are normalized after.
        sharpness: weight of the largest z_k; 1 is the paper's.
    """
    e = vectors
    with torch.no_grad():
        for _ in range(warmup):
            e = propagate(e)
            e = e / e.norm(dim=0)
    z = []
    for k in range(1, steps + 1):
        e = propagate(e)
        z.append(e.norm(dim=0).amax() ** (1 / k))
    values = torch.stack(z)
    return torch.softmax(sharpness * values, 0) @ values


@torch.no_grad()
def slow_errors(
    propagate: Callable[[Tensor], Tensor], known: Tensor | None, fresh: Tensor, iterations: int
) -> Tensor:
    """Errors that fall slowly, (n, m): known ones, the first quarter drawn anew, iterated.

    Args:
        propagate: e -> T e.
        known: (n, m) what this function gave before; None starts with `fresh`.
        fresh: (n, m) random errors, in the precision of the result; they also take the place of
            those that overflow.
        iterations: of T, normalized after each.
    """
    quarter = fresh.shape[1] // 4
    e = fresh.clone()
    if known is not None:
        e[:, quarter:] = known[:, quarter:]
    for _ in range(iterations):
        e = propagate(e)
        e = e / e.norm(dim=0)
    return e.where(torch.isfinite(e).all(0), fresh)


def krylov_reduction(
    A: CSRTensor, apply: Callable[[Tensor], Tensor], vectors: Tensor, *, steps: int = 8
) -> Tensor:
    """Mean reduction a step of the residual by `steps` steps of GMRES, preconditioned from right.

    The geometric mean over the vectors, real or complex, of `min_x ||b - A M K x||^(1/steps)`, with
    K a basis of the Krylov space. Unlike the spectral radius it counts how all errors fall
    together. Differentiable. Below about 1.4 eps^(1/steps), 0.19 in float32 with 8 steps, it is
    rounding, and so is its gradient: `is_rounding` tells.

    Args:
        A: (n, n).
        apply: M, for (n, m) columns.
        vectors: (n, m) right-hand sides with unit 2-norm.
        steps: dimension of the Krylov space.
    """
    r, images = vectors, []
    for _ in range(steps):
        image = A @ apply(r)
        images.append(image)
        r = r - image  # spans the same space as powers of A M, and stays well scaled
        size = r.norm(dim=0)
        r = r / size.where(size > 0, 1)  # zero where the space holds the solution
    basis, _ = torch.linalg.qr(torch.stack(images, -1).transpose(0, 1))  # (m, n, steps)
    b = vectors.T.unsqueeze(-1)
    residual = b - basis @ (basis.mH @ b)
    return (residual.norm(dim=1).log().mean() / steps).exp()


def is_rounding(reduction: Tensor, steps: int = 8) -> bool:
    """Whether what `krylov_reduction` gave after so many steps is too small for its dtype."""
    return bool(reduction < 1.4 * torch.finfo(reduction.dtype).eps ** (1 / steps))


def coarse_energy(A: CSRTensor, P: CSRTensor, P0: CSRTensor) -> Tensor:
    """`tr(P^T A P) / tr(P0^T A P0)`: how smooth the columns of P are, against those of P0.

    The trace of `P^T (A P)` is the sum of the products of the entries of P and A P, so that A P is
    needed on the pattern of P only.
    """

    def trace(Q: CSRTensor) -> Tensor:
        return masked_matmul(A, Q, Q.pattern).values @ Q.values

    return trace(P) / trace(P0)
