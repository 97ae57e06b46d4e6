"""The methods of `solve` by name, and the solver that a name and its options stand for."""

from __future__ import annotations

from typing import Any, Literal

import torch

from sparsetorch.linalg.bicgstab import bicgstab
from sparsetorch.linalg.block_cg import block_cg
from sparsetorch.linalg.cg import cg
from sparsetorch.linalg.chebyshev import Bounds, chebyshev
from sparsetorch.linalg.direct import DirectMethod
from sparsetorch.linalg.fgmres import fgmres
from sparsetorch.linalg.gmres import gmres
from sparsetorch.linalg.krylov import Callback, Preconditioner
from sparsetorch.linalg.minres import minres
from sparsetorch.linalg.solvers import Conjugated, DirectSolver, KrylovSolver, Solver
from sparsetorch.pattern import Pattern

Method = Literal[
    "direct",
    "cholesky",
    "ldlt",
    "cg",
    "block_cg",
    "minres",
    "chebyshev",
    "gmres",
    "fgmres",
    "bicgstab",
]
DIRECT: dict[str, DirectMethod] = {"direct": "auto", "cholesky": "cholesky", "ldlt": "ldlt"}
METHODS = {
    "cg": cg,
    "block_cg": block_cg,
    "minres": minres,
    "chebyshev": chebyshev,
    "gmres": gmres,
    "fgmres": fgmres,
    "bicgstab": bicgstab,
}
SYMMETRIC = ("cg", "block_cg", "minres", "chebyshev")
PARTICULAR = {"restart": ("gmres", "fgmres"), "bounds": ("chebyshev",)}


def solver_for(
    pattern: Pattern,
    dtype: torch.dtype,
    method: str,
    *,
    preconditioner: Preconditioner | None,
    preconditioner_T: Preconditioner | None,
    rtol: float | None,
    atol: float,
    maxiter: int | None,
    restart: int | None,
    bounds: Bounds | None,
    callback: Callback | None = None,
) -> Solver:
    """The solver of matrices on this pattern, of this dtype; `solve` describes the options.

    Raises:
        ValueError: no such method, or an option that is not for it.
    """
    if method in DIRECT:
        given = (preconditioner, preconditioner_T, rtol, maxiter, restart, bounds, callback)
        if atol != 0.0 or any(option is not None for option in given):
            raise ValueError(f"method: {method!r} takes no options of the iterative methods")
        return DirectSolver(pattern, DIRECT[method])
    if method not in METHODS:
        known = ", ".join(map(repr, (*DIRECT, *METHODS)))
        raise ValueError(f"method: expected {known}, got {method!r}")
    options = {"rtol": rtol, "atol": atol, "maxiter": maxiter}
    options |= _particular(method, restart=restart, bounds=bounds)
    if preconditioner_T is None:
        preconditioner_T = _transposed(preconditioner, method, dtype)
    return KrylovSolver(
        pattern, METHODS[method], options, preconditioner, preconditioner_T, callback
    )


def _particular(method: str, **options: Any) -> dict[str, Any]:
    """The options that are given, none of which may belong to other methods only."""
    given = {name: option for name, option in options.items() if option is not None}
    for name in given:
        if method not in PARTICULAR[name]:
            raise ValueError(f"{name}: for {' and '.join(PARTICULAR[name])}, not for {method!r}")
    return given


def _transposed(
    preconditioner: Preconditioner | None, method: str, dtype: torch.dtype
) -> Preconditioner | None:
    if method in SYMMETRIC:
        if preconditioner is None or not dtype.is_complex:
            return preconditioner
        return Conjugated(preconditioner)
    return getattr(preconditioner, "T", None)
