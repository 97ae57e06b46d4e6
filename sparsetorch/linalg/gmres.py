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

    Arguments, stopping rule, dtypes and result are those of `cg`, with any square A and any
    preconditioner that is fixed and linear. restart: steps per cycle; None keeps the whole basis,
    one vector (n,) per iteration. Equivalent to `scipy.sparse.linalg.gmres`, which preconditions
    from the left.

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
