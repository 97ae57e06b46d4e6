"""How fast a method converges: iteration counts, rates, and the best constant Robin weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ddm.interface import robin, robin_between
from ddm.local import DenseBlocks, SparseBlocks
from ddm.nullspace import NullSpace
from ddm.partition import Decomposition
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor

THETAS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 1.0)


class Stationary(Protocol):
    """A stationary iteration: `propagate` takes an error (n,) or (n, k) to the next one."""

    A: CSRTensor
    null: NullSpace | None

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        ...

    def propagate(self, e: Tensor, /) -> Tensor:
        """The next error."""
        ...


def random_errors(method: Stationary, vectors: int, seed: int) -> Tensor:
    """Normal numbers (n, vectors), orthogonal to the null space where there is one."""
    generator = torch.Generator("cpu").manual_seed(seed)
    shape, dtype = (method.shape[0], vectors), method.A.dtype
    e = torch.randn(shape, dtype=dtype, generator=generator, device="cpu").to(method.A.device)
    return e if method.null is None else method.null.project(e)


@torch.no_grad()
def iterations_to_reduce(
    method: Stationary, factor: float, *, maxiter: int = 500, vectors: int = 2, seed: int = 0
) -> int:
    """Stationary iterations until the 2-norm of every random error has fallen by `factor`.

    Returns `maxiter` when that is not enough or the error grows without bound.
    """
    e = random_errors(method, vectors, seed)
    start = e.norm(dim=0)
    for k in range(1, maxiter + 1):
        e = method.propagate(e)
        worst = float((e.norm(dim=0) / start).max())
        if worst <= factor:
            return k
        if not worst < 1e6:  # NaN, too
            return maxiter
    return maxiter


@torch.no_grad()
def convergence_factor(
    method: Stationary, *, iterations: int = 20, vectors: int = 1, seed: int = 0
) -> float:
    """Estimate of the spectral radius of T = I - M A, from below.

    The mean reduction of random errors, normalized after each iteration, over the last half of
    `iterations`; the largest of `vectors` errors. 0 where all of them vanish, infinity where one
    overflows.
    """
    e = random_errors(method, vectors, seed)
    logs = torch.zeros(vectors, dtype=torch.float64, device="cpu")
    for k in range(iterations):
        e = method.propagate(e)
        norms = e.norm(dim=0)
        if k >= iterations // 2:
            logs += norms.double().log().cpu()
        e = e / norms.where(norms > 0, 1)
    worst = float((logs / (iterations - iterations // 2)).exp().max())
    return worst if math.isfinite(worst) else math.inf


@torch.no_grad()
def is_exact(method: Stationary) -> bool:
    """Whether one iteration solves, but for rounding: there is nothing to make faster."""
    e = random_errors(method, 1, seed=0)
    left = float(method.propagate(e).norm() / e.norm())
    return left < torch.finfo(e.dtype).eps ** 0.5


def best_theta(
    A: CSRTensor,
    decomposition: Decomposition,
    P: CSRTensor | None,
    *,
    factor: float = 1e-8,
    candidates: Sequence[float] = THETAS,
    local: str | DenseBlocks | SparseBlocks = "auto",
    neumann: CSRTensor | None = None,
    **options: Any,
) -> float:
    """The constant Robin weight that needs the fewest stationary iterations on this very matrix.

    Each candidate iterates until it reduces random errors by `factor`, or is no longer the best.
    Weights depend little on the number of subdomains, so that a small mesh of the same kind, with
    subdomains of the same size, serves for a large one.

    Args:
        A: (n, n).
        decomposition: of A.
        P: prolongation; None is one level.
        factor: reduction asked for.
        candidates: weights.
        local: layout of the local matrices.
        neumann: Neumann matrices, for weights of `robin_between` instead of `robin`.
        options: of `Schwarz`, such as form and levels.
    """
    best, fewest = candidates[0], 500
    for theta in candidates:
        if neumann is None:
            interface = robin(decomposition, theta, A.dtype)
        else:
            interface = robin_between(A, decomposition, neumann, theta)
        method = Schwarz(A, decomposition, interface=interface, P=P, local=local, **options)
        count = iterations_to_reduce(method, factor, maxiter=fewest)
        if count < fewest:
            best, fewest = theta, count
    return best
