"""GMRES: Saad and Schultz (1986); Saad, Iterative Methods, algorithm 9.5."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.arnoldi import minimise_residual
from sparsetorch.linalg.krylov import Callback, Operator, Preconditioner, run
from sparsetorch.linalg.solution import Solution


def gmres(
    A: CSRTensor | Operator,
    b: Tensor,
    *,
    preconditioner: Preconditioner | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    restart: int | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Solve A x = b for a general A by right-preconditioned GMRES.

    A: a square CSRTensor or a callable x -> A x on (n,). b: (n,), or (n, k) solved column by
    column; of any floating or complex dtype. preconditioner: fixed and linear; a callable r -> z,
    an object with `apply(r)`, or a CSRTensor. Stops at |b - A x| <= max(rtol |b|, atol), with rtol
    1e-6 in single and 1e-10 in double precision by default, or after maxiter (10 n) iterations. x0:
    initial guess, like b. restart: steps per cycle; None keeps the whole basis, one vector (n,) per
    iteration. callback: called with (iteration, residual norm).

    No gradients are recorded: `sparsetorch.linalg.solve` is the differentiable call. A failure is
    the solution's status. Equivalent to `scipy.sparse.linalg.gmres`, which preconditions from the
    left.

    float16 and bfloat16 are solved in float32, which is also what callables get, and x is rounded
    once.

    Raises:
        TypeError, ValueError: an argument does not fit, or b is not finite.
    """
    return run(
        partial(minimise_residual, restart=restart, flexible=False),
        A,
        b,
        preconditioner=preconditioner,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        x0=x0,
        callback=callback,
    )
