"""Run two-level Schwarz methods, and AMG, on one system side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy.sparse as sp
import torch

from ddm.extras import extra
from ddm.learned import InterfaceNet
from ddm.partition import partition
from ddm.rates import best_theta
from ddm.schwarz import Schwarz
from ddm.setup import Setup, set_up
from sparsetorch import CSRTensor
from sparsetorch.linalg import Solution, fgmres, richardson

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One method on one system.

    Attributes:
        method: its name.
        stationary: its iteration alone, `x <- x + M (b - A x)`.
        krylov: FGMRES with it as the preconditioner.
        setup_s: seconds for partition, set-up, inference and factorizations.
        solve_s: seconds of the Krylov solve, the fastest of three.
    """

    method: str
    stationary: Solution
    krylov: Solution
    setup_s: float
    solve_s: float


class Stopwatch:
    """Seconds by name: `with stopwatch("factor"): ...` adds to an entry."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> Stopwatch:
        """Choose the entry."""
        self._name = name
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        passed = time.perf_counter() - self._start
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + passed


@torch.no_grad()
def compare(
    A: sp.csr_array,
    b: np.ndarray,
    net: InterfaceNet | None = None,
    *,
    subdomain: int = 64,
    rtol: float = 1e-8,
    maxiter: int = 500,
    method: str = "metis",
    amg: bool = True,
) -> dict[str, Run]:
    """Two-level RAS and ORAS with plain and smoothed coarse space, MG-GNN, PyAMG: runs by name.

    Every Schwarz method has the same subdomains. ORAS has the constant Robin weight that needs the
    fewest iterations on this very matrix; the search does not count as set-up. PyAMG is
    Ruge-Stueben: its `stationary` is the V-cycle alone, its `krylov` FGMRES with one V-cycle, its
    `solve_s` that of its own CG, what a user would call.

    Args:
        A: (n, n) SciPy CSR array, symmetric positive definite.
        b: (n,) right-hand side.
        net: a trained network; None leaves MG-GNN out.
        subdomain: unknowns that a subdomain owns.
        rtol: relative residual.
        maxiter: of the stationary iterations and of FGMRES.
        method: partitioner.
        amg: whether to run PyAMG.

    Raises:
        TypeError, ValueError: see `partition`; a `subdomain` below 1.
    """
    if subdomain < 1:
        raise ValueError(f"subdomain: expected at least 1 unknown, got {subdomain}")
    right = torch.from_numpy(b)
    watch = Stopwatch()
    with watch("partition"):
        owner = partition(A, max(1, round(A.shape[0] / subdomain)), method=method)
    runs: dict[str, Run] = {}

    def run(name: str, schwarz: Schwarz, seconds: dict[str, float]) -> None:
        runs[name] = measure(name, schwarz.A, right, schwarz, seconds, rtol, maxiter)

    for smoothing, suffix in ((0, ""), (1, ", smoothed")):
        common = Stopwatch()
        with common("set-up"):
            setup = set_up(A, owner, smoothing=smoothing)
        theta = best_theta(setup.A, setup.decomposition, setup.P, local=setup.local)
        for name, weight in ((f"RAS{suffix}", 1.0), (f"ORAS {theta:g}{suffix}", theta)):
            own = Stopwatch()
            with own("factor"):
                schwarz = setup.classical(weight)
            run(name, schwarz, watch.seconds | common.seconds | own.seconds)
        if smoothing == 1 and net is not None:
            schwarz, seconds = learned_with_times(setup, net)
            run("MG-GNN", schwarz, watch.seconds | common.seconds | seconds)
    if amg:
        runs["PyAMG + CG"] = _pyamg(A, b, rtol, maxiter)
    return runs


def learned_with_times(setup: Setup, net: InterfaceNet) -> tuple[Schwarz, dict[str, float]]:
    """MG-GNN's method and the seconds of features, inference and factorization."""
    watch = Stopwatch()
    with torch.no_grad():
        with watch("features"):
            inputs = setup.inputs
        with watch("inference"):
            interface, correction = net(inputs)
        with watch("factor"):
            schwarz = setup.with_values(interface, correction)
    return schwarz, watch.seconds


def measure(
    name: str,
    A: CSRTensor,
    b: torch.Tensor,
    schwarz: Schwarz,
    seconds: dict[str, float],
    rtol: float,
    maxiter: int,
) -> Run:
    """Solve by the stationary iteration and by FGMRES with a method whose set-up is done."""
    stationary = richardson(A, b, preconditioner=schwarz, rtol=rtol, maxiter=maxiter)
    krylov, solve_s = best_of(
        3, lambda: fgmres(A, b, preconditioner=schwarz, rtol=rtol, maxiter=maxiter)
    )
    return Run(name, stationary, krylov, sum(seconds.values()), solve_s)


def best_of(times: int, function: Callable[[], T]) -> tuple[T, float]:
    """Result and seconds of the fastest of some calls: other programs only ever add time."""
    runs: list[tuple[T, float]] = []
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        runs.append((result, time.perf_counter() - start))
    return min(runs, key=lambda run: run[1])


def _pyamg(A: sp.csr_array, b: np.ndarray, rtol: float, maxiter: int) -> Run:
    watch = Stopwatch()
    with watch("set-up"):
        hierarchy = extra("pyamg").ruge_stuben_solver(sp.csr_matrix(A))
    cycle = hierarchy.aspreconditioner(cycle="V")
    _, solve_s = best_of(3, lambda: hierarchy.solve(b, tol=rtol, accel="cg", maxiter=maxiter))
    matrix, right = CSRTensor.from_scipy(A), torch.from_numpy(b)

    def precondition(r: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(cycle.matvec(r.numpy()))

    stationary, krylov = (
        solver(matrix, right, preconditioner=precondition, rtol=rtol, maxiter=maxiter)
        for solver in (richardson, fgmres)
    )
    return Run("PyAMG + CG", stationary, krylov, watch.seconds["set-up"], solve_s)
