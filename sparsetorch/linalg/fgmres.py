"""Flexible GMRES: Saad (1993), A flexible inner-outer preconditioned GMRES algorithm."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.arnoldi import minimise_residual
from sparsetorch.linalg.krylov import Callback, Operator, Preconditioner, run
from sparsetorch.linalg.solution import Solution


def fgmres(
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
    """Solve A x = b by GMRES with a preconditioner that may change from call to call.

    The preconditioner may be nonlinear, a neural network or an inner iteration; in exchange two
    vectors (n,) are kept per iteration. Arguments and results as in `gmres`.

    Raises:
        TypeError, ValueError: an argument does not fit, or b is not finite.
    """
    return run(
        partial(minimise_residual, restart=restart, flexible=True),
        A,
        b,
        preconditioner=preconditioner,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        x0=x0,
        callback=callback,
    )
