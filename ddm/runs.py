"""One method on one system: its set-up, its stationary iteration, and a Krylov method with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ddm.methods import METHODS, Made, Maker, Operator
from ddm.peers import Multigrid
from ddm.problems.matrix import from_matrix
from ddm.rates import convergence_factor
from ddm.schwarz import Schwarz
from ddm.workbench import Workbench
from sparsetorch import poisson
from sparsetorch.linalg import Solution, Status, cg, fgmres, richardson

COLUMNS = (
    "method",
    "settings",
    "subdomains",
    "overlap",
    "local_nnz",
    "coarse",
    "coarse_nnz",
    "stationary",
    "factor",
    "krylov",
    "iterations",
    "setup_s",
    "solve_s",
    "status",
)
PARTS = ("apply", "is_symmetric")
"""What a preconditioner must have; `compare` also calls `propagate`, see `ddm.Schwarz`."""


@dataclass(frozen=True)
class Run:
    """One method on one system; what was not reached is None.

    Attributes:
        method: its name.
        status: "converged", "diverged after k iterations: ...", "does not apply: ...".
        operator: the preconditioner.
        settings: what it was made with.
        stationary: its iteration alone, `x <- x + M (b - A x)`.
        factor: estimate of the spectral radius of `I - M A`.
        krylov: the Krylov method with it.
        krylov_name: "cg" or "fgmres".
        setup_s: seconds of partition, set-up, search or inference, and factorizations.
        solve_s: seconds of the Krylov solve.
    """

    method: str
    status: str
    operator: Operator | None = None
    settings: str = ""
    stationary: Solution | None = None
    factor: float | None = None
    krylov: Solution | None = None
    krylov_name: str | None = None
    setup_s: float | None = None
    solve_s: float | None = None

    @property
    def converged(self) -> bool:
        """Whether the Krylov method reached the tolerance."""
        return self.krylov is not None and self.krylov.converged

    def row(self) -> dict[str, Any]:
        """The row of a table with `COLUMNS`."""
        alone, krylov = self.stationary, self.krylov
        return {
            "method": self.method,
            "settings": self.settings,
            **sizes(self.operator),
            "stationary": alone.iterations if alone is not None and alone.converged else None,
            "factor": self.factor,
            "krylov": self.krylov_name,
            "iterations": krylov.iterations if krylov is not None and krylov.converged else None,
            "setup_s": self.setup_s,
            "solve_s": self.solve_s,
            "status": self.status,
        }


def sizes(operator: Operator | None) -> dict[str, int | None]:
    """Number of subdomains, their work and the coarse problem's: stored entries of matrices."""
    if isinstance(operator, Schwarz):
        d, P = operator.decomposition, operator.P
        return {
            "subdomains": d.n_subdomains,
            "overlap": d.overlap,
            "local_nnz": len(d.block_source),
            "coarse": None if P is None else P.shape[1],
            "coarse_nnz": None if P is None else operator.coarse.nnz,
        }
    work = operator.nnz if isinstance(operator, Multigrid) else None
    return {
        "subdomains": None, "overlap": None, "local_nnz": work, "coarse": None, "coarse_nnz": None
    }  # fmt: skip


@cache
def warm_up() -> None:
    """Import and load what methods use at their first call, so that none of them is charged."""
    problem = from_matrix(poisson(6, 6, dtype=torch.float64, device="cpu").to_scipy())
    bench = Workbench(problem, subdomain=9)
    for maker in (METHODS["oras"], METHODS["as"], METHODS["amg"], METHODS["direct"]):
        run("", maker, bench, rtol=1e-6, maxiter=20, repeats=1)


def krylov_name(operator: Operator, definite: bool) -> str:
    """ "cg" where both the matrix and the preconditioner are fit for it, else "fgmres"."""
    return "cg" if definite and operator.is_symmetric else "fgmres"


def krylov(
    bench: Workbench,
    operator: Operator,
    *,
    b: torch.Tensor | None = None,
    rtol: float,
    maxiter: int,
    callback: Callable[[int, float], object] | None = None,
) -> Solution:
    """Solve with a preconditioner by the Krylov method that suits it."""
    solver = cg if krylov_name(operator, bench.definite) == "cg" else fgmres
    return solver(
        bench.matrix,
        bench.b if b is None else b,
        preconditioner=operator,
        rtol=rtol,
        maxiter=maxiter,
        callback=callback,
    )


def made(bench: Workbench, maker: Maker) -> tuple[Made, float]:
    """A method for the problem, and the seconds of its set-up.

    Raises:
        TypeError: what was made is no preconditioner.
    """
    found, seconds = bench.timed(maker)
    if not isinstance(found, Made):
        found = Made(found)
    lacking = [name for name in PARTS if not hasattr(found.operator, name)]
    if lacking:
        raise TypeError(
            "methods: expected a function that returns a preconditioner, such as a ddm.Schwarz, "
            f"got {type(found.operator).__name__} without {', '.join(lacking)}"
        )
    return found, seconds if found.setup_s is None else found.setup_s


def cause(error: Exception) -> str:
    """What went wrong, in words; of errors that this library does not raise, the class, too."""
    if isinstance(error, ValueError | TypeError | ImportError | RuntimeError):
        return str(error)
    return f"{type(error).__name__}: {error}"


@torch.no_grad()
def run(
    name: str, maker: Maker, bench: Workbench, *, rtol: float, maxiter: int, repeats: int = 3
) -> Run:
    """One method on the workbench's problem; whatever fails is said in `status`.

    A solve of less than a second is repeated and the fastest counts: other programs only add time.
    """
    try:
        found, setup_s = made(bench, maker)
        operator = found.operator
    except Exception as error:  # a user's function may raise anything
        return Run(name, f"does not apply: {cause(error)}")
    known: dict[str, Any] = {"settings": found.settings, "setup_s": setup_s}
    try:
        A, b = bench.matrix, bench.b
        alone = richardson(A, b, preconditioner=operator, rtol=rtol, maxiter=maxiter)
        known |= {"operator": operator, "stationary": alone}
        known["factor"] = factor(operator)
        solution, solve_s = fastest(
            repeats, lambda: krylov(bench, operator, rtol=rtol, maxiter=maxiter)
        )
    except Exception as error:
        return Run(name, f"failed: {cause(error)}", **known)
    return Run(
        name,
        status(solution),
        krylov=solution,
        krylov_name=krylov_name(operator, bench.definite),
        solve_s=solve_s,
        **known,
    )


def status(solution: Solution) -> str:
    """How a solve ended, in words."""
    if solution.converged:
        return "converged"
    if solution.status is Status.MAXITER:
        last, first = solution.residuals[-1], solution.residuals[0]
        return (
            f"not converged after {solution.iterations} iterations: the residual fell to "
            f"{last / first:.1e} of the first"
        )
    return solution.message


def factor(operator: Operator) -> float | None:
    """Convergence factor of the stationary iteration; None where errors overflow."""
    value = convergence_factor(operator)
    return value if math.isfinite(value) else None


def fastest(times: int, solve: Callable[[], Solution]) -> tuple[Solution, float]:
    """Solution and seconds of the fastest of some solves; of one, if it takes a second."""
    best, seconds = None, math.inf
    for _ in range(times):
        start = time.perf_counter()
        found = solve()
        passed = time.perf_counter() - start
        if passed < seconds:
            best, seconds = found, passed
        if passed > 1:
            break
    assert best is not None
    return best, seconds
