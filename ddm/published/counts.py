"""Iterations as the paper counts them: the error of the stationary method, FGMRES's residual."""

from __future__ import annotations

import torch

from ddm.losses import random_vectors
from ddm.schwarz import Schwarz
from sparsetorch.linalg import Status, fgmres

DIVERGED = 1e6


@torch.no_grad()
def stationary_iterations(
    method: Schwarz,
    factor: float = 1e-12,
    *,
    vectors: int = 25,
    maxiter: int = 2000,
    seed: int = 0,
) -> int | None:
    """Iterations until the 2-norm of every error of `vectors` has fallen by `factor`.

    Errors start as columns uniform in (0, 1), as in the paper. None: not within `maxiter`, or some
    error grows without bound.
    """
    generator = torch.Generator().manual_seed(seed)
    e = random_vectors(
        method.shape[0], vectors, kind="uniform", generator=generator, dtype=method.A.dtype
    ).to(method.A.device)
    for k in range(1, maxiter + 1):
        e = method.propagate(e)
        worst = float(e.norm(dim=0).max())
        if worst <= factor:
            return k
        if not worst < DIVERGED:  # NaN, too
            return None
    return None


@torch.no_grad()
def fgmres_iterations(
    method: Schwarz, rtol: float = 1e-12, *, maxiter: int = 1000, seed: int = 0
) -> int | None:
    """FGMRES iterations until the residual has fallen by `rtol`, without restart.

    The paper solves `A x = 0` from a random x with `||A x|| = 1`; this is the same for the error.
    None: not within `maxiter`.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(method.shape[0], generator=generator, dtype=method.A.dtype)
    b = method.A @ x.to(method.A.device)
    solution = fgmres(
        method.A, b / b.norm(), preconditioner=method, rtol=rtol, maxiter=maxiter, restart=maxiter
    )
    # Rounding may keep b - A x above what the recurrence says, which is what the paper counts by.
    stopped = solution.status in (Status.CONVERGED, Status.INACCURATE)
    return solution.iterations if stopped else None
