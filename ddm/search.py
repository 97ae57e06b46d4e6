"""The best classical two-level method for a matrix, by search: what a learned one must beat.

Robin weights and the way they are set, overlaps, smoothing steps and vectors of the coarse space
are all searched. Methods with more overlap get larger subdomains, so that the stored entries of all
local matrices, the work of an application, are about those of the reference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, TypeVar, get_args

import torch

from ddm.classical import Classical
from ddm.given import as_problem
from ddm.limits import check_limits
from ddm.rates import THETAS, iterations_to_reduce
from ddm.schwarz import Schwarz
from ddm.table import Table
from ddm.workbench import Workbench
from sparsetorch.linalg import fgmres

V = TypeVar("V", int, float)
Objective = Literal["stationary", "krylov", "time"]
COLUMNS = ("method", "subdomains", "local_nnz", "coarse", "score", "status")
WORK_TOLERANCE = 0.05  # of the stored entries of local matrices
ROUNDS = 3


class _BeatenError(Exception):
    """A solve has taken longer than the best one."""


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        best: the best candidate; the first that could be made where none converges.
        method: it, made for the matrix.
        score: its iterations, or seconds; infinity where none converges.
        table: a row for each candidate that was tried; the score of one that was beaten is None.
        objective: what was counted: what was asked for, or "krylov", iterations of FGMRES, where
            no stationary iteration converges.
    """

    best: Classical
    method: Schwarz
    score: float
    table: Table
    objective: Objective


@torch.no_grad()
def best_classical(
    A: Any,
    *,
    objective: Objective = "stationary",
    subdomain: int = 64,
    reference_overlap: int = 1,
    overlaps: Sequence[int] = (1, 2),
    thetas: Sequence[float] = THETAS,
    between: Sequence[bool] = (False, True),
    smoothings: Sequence[int] = (0, 1, 2, 3),
    linear: bool = True,
    enrich: Sequence[int] = (),
    exhaustive: bool = False,
    rtol: float = 1e-8,
    maxiter: int = 500,
    budget_s: float = math.inf,
) -> Search:
    """Search the classical methods for the one that needs least, at equal local work.

    A candidate is dropped as soon as it has needed more than the best one. What cannot be made
    (Robin weights between Dirichlet and Neumann matrices where there are no Neumann matrices, local
    matrices that are singular) has a row that says so. Where no stationary iteration converges,
    iterations of FGMRES are counted instead, see `Search.objective`. The search tries every other
    value of each number first, and then one number at a time around the best, until none improves;
    `exhaustive` tries all combinations.

    Args:
        A: a problem, a SciPy sparse matrix or CSRTensor, or a `Workbench`, whose `subdomain` is
            then the reference.
        objective: "stationary": iterations until random errors have fallen by rtol; "krylov":
            iterations of FGMRES for random right-hand sides; "time": seconds of set-up and FGMRES,
            which the best method is tried for with local factors in single precision, too.
        subdomain, reference_overlap: unknowns that a subdomain of the reference owns, and its
            layers of overlap. Overlaps that take more than twice its work, with subdomains of any
            size, are left out.
        overlaps, thetas, between, smoothings: see `Classical`.
        linear: whether coarse spaces with coordinates as vectors are tried too, where there are
            coordinates: they have more columns, and coarse work is not held equal.
        enrich: numbers of slow errors that the coarse space of the best method is tried with, see
            `ddm.enriched`; here, too, coarse work is not held equal.
        exhaustive: whether all combinations are tried.
        rtol, maxiter: of each solve.
        budget_s: seconds after which no other candidate is begun.

    Raises:
        TypeError: `maxiter` is no number.
        ValueError: another objective; limits that no solve can have; no candidates, or none that
            can be made; overlaps that all take more work than the reference.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"objective: expected one of {get_args(Objective)}, got {objective!r}")
    maxiter = check_limits(rtol, maxiter)
    if not all(len(values) for values in (overlaps, thetas, between, smoothings)):
        raise ValueError("overlaps, thetas, between, smoothings: expected at least one of each")
    bench = A if isinstance(A, Workbench) else Workbench(as_problem(A), subdomain=subdomain)
    deadline = time.perf_counter() + budget_s
    sizes = equal_work(bench, overlaps, reference_overlap=reference_overlap)
    if not sizes:
        raise ValueError(
            f"overlaps: expected some with at most twice the work of {bench.subdomain} unknowns a "
            f"subdomain at reference_overlap={reference_overlap}, got {sorted(map(int, overlaps))} "
            "and more work at any size; give fewer layers, or a larger reference_overlap"
        )
    weights = [(1.0, False)] if 1.0 in thetas else []
    weights += [(theta, way) for way in between for theta in thetas if theta != 1.0]
    linear = linear and bench.problem.positions is not None
    vectors = ("near_nullspace", "linear") if linear else ("near_nullspace",)
    while True:
        race = _Race(bench, objective, rtol, maxiter, deadline)
        if exhaustive:
            for overlap, (theta, way), space, steps in product(sizes, weights, vectors, smoothings):
                race.enter(Classical(theta, way, overlap, sizes[overlap], space, steps))
        else:
            _by_coordinates(race, sizes, weights, vectors, smoothings)
        if objective == "time" and race.best is not None:
            race.enter(replace(race.best, single=True))
        winner = race.best
        if winner is not None:
            for count in enrich:
                race.enter(replace(winner, enrich=count))
        if race.best is not None or objective != "stationary":
            return race.result()
        objective = "krylov"


def _by_coordinates(
    race: _Race,
    sizes: dict[int, int],
    weights: Sequence[tuple[float, bool]],
    vectors: Sequence[str],
    smoothings: Sequence[int],
) -> None:
    """Every other value of each coordinate, then one at a time around the best, until none helps.

    Beginning with Robin weights alone, at one smoothing step, ended at up to a quarter more
    iterations than the best combination has, and at half more with linear functions.
    """
    thetas = _every_other({theta for theta, _ in weights})
    some = [(theta, way) for theta, way in weights if theta in thetas]
    steps_tried = _every_other(smoothings)
    for overlap, space, steps, (theta, way) in product(sizes, vectors, steps_tried, some):
        race.enter(Classical(theta, way, overlap, sizes[overlap], space, steps))
    if race.leader is None:  # as where a zero on the diagonal leaves no smoothing: the others
        for overlap, space, steps in product(sizes, vectors, smoothings):
            race.enter(Classical(*some[0], overlap, sizes[overlap], space, steps))
    for _ in range(ROUNDS):
        before = race.best
        if before is None:
            return
        for steps, space in product(smoothings, vectors):
            race.enter(replace(race.best or before, smoothing=steps, vectors=space))
        for overlap, (theta, way) in product(sizes, weights):
            race.enter(
                replace(
                    race.best or before,
                    theta=theta,
                    between=way,
                    overlap=overlap,
                    subdomain=sizes[overlap],
                )
            )
        if race.best == before:
            return


def _every_other(values: Collection[V]) -> list[V]:
    """The second, the fourth and so on in ascending order, of more than three; else all."""
    ordered = sorted(set(values))
    return ordered[1::2] if len(ordered) > 3 else ordered


class _Race:
    """Candidates one after the other, each as far as it can still win."""

    def __init__(
        self, bench: Workbench, objective: Objective, rtol: float, maxiter: int, deadline: float
    ) -> None:
        self.bench, self.deadline, self.rtol, self.maxiter = bench, deadline, rtol, maxiter
        self.objective: Objective = objective
        self.best: Classical | None = None
        self.least = math.inf
        self.table = Table(COLUMNS)
        self.tried: set[Classical] = set()
        # The best, or the first that can be made, with its method: those of others are freed.
        self.leader: tuple[Classical, Schwarz] | None = None

    def enter(self, candidate: Classical) -> None:
        """Try a candidate, unless it was tried or time is up."""
        if candidate in self.tried or (self.tried and time.perf_counter() > self.deadline):
            return
        self.tried.add(candidate)
        try:
            method, setup_s = self.bench.timed(candidate)
        except (ValueError, RuntimeError) as error:
            self._note(candidate, None, None, f"does not apply: {error}")
            return
        found = SCORES[self.objective](self, method, setup_s)
        if found < self.least:
            self.best, self.least = candidate, found
        if self.leader is None or self.best == candidate:
            self.leader = candidate, method
        self._note(candidate, method, found if math.isfinite(found) else None, "")

    def _note(
        self, candidate: Classical, method: Schwarz | None, score: float | None, status: str
    ) -> None:
        d = None if method is None else method.decomposition
        P = None if method is None else method.P
        self.table.add(
            method=str(candidate),
            subdomains=None if d is None else d.n_subdomains,
            local_nnz=None if d is None else len(d.block_source),
            coarse=None if P is None else P.shape[1],
            score=score,
            status=status or ("" if score is not None else "beaten, or does not converge"),
        )

    def result(self) -> Search:
        """The best candidate; where none converges, the first that could be made."""
        if self.leader is None:
            raise ValueError(
                "A: no classical method can be made for it; the first: "
                + self.table.rows[0]["status"]
            )
        return Search(*self.leader, self.least, self.table, self.objective)


Score = Callable[[_Race, Schwarz, float], float]


def _stationary(race: _Race, method: Schwarz, setup_s: float) -> float:
    # An end at the limit is a failure: the first candidate may take maxiter, others less than it.
    limit = race.maxiter + 1 if math.isinf(race.least) else int(race.least)
    count = iterations_to_reduce(method, race.rtol, maxiter=limit)
    return count if count < limit else math.inf


def _right(method: Schwarz) -> torch.Tensor:
    """A random right-hand side in the range of A."""
    generator = torch.Generator("cpu").manual_seed(0)
    A = method.A
    x = torch.randn(A.shape[0], dtype=A.dtype, generator=generator, device="cpu")
    return A @ x.to(A.device)


def _krylov(race: _Race, method: Schwarz, setup_s: float) -> float:
    limit = race.maxiter if math.isinf(race.least) else int(race.least) - 1
    b = _right(method)
    found = fgmres(method.A, b, preconditioner=method, rtol=race.rtol, maxiter=limit)
    return found.iterations if found.converged else math.inf


def _time(race: _Race, method: Schwarz, setup_s: float) -> float:
    start = time.perf_counter()

    def stop(iteration: int, residual: float) -> None:
        if setup_s + time.perf_counter() - start > race.least:
            raise _BeatenError

    b = _right(method)
    try:
        found = fgmres(
            method.A, b, preconditioner=method, rtol=race.rtol, maxiter=race.maxiter, callback=stop
        )
    except _BeatenError:
        return math.inf
    return setup_s + time.perf_counter() - start if found.converged else math.inf


SCORES: dict[str, Score] = {"stationary": _stationary, "krylov": _krylov, "time": _time}


def equal_work(
    bench: Workbench,
    overlaps: Sequence[int],
    subdomain: int | None = None,
    reference_overlap: int = 1,
) -> dict[int, int]:
    """Subdomain sizes, by overlap, that store as many local entries as one size at one overlap.

    `subdomain` is that size, None the bench's, and `reference_overlap` that overlap.

    Overlaps that take more than twice the work with subdomains of any size are left out; those that
    cannot have as much come as near as they can.
    """

    def excess(size: int, overlap: int) -> float:
        """Stored entries of local matrices beyond those of A, in units of A's."""
        stored = len(bench.decomposition(size, overlap).block_source)
        return max(stored / bench.problem.A.nnz - 1, 0.01)

    reference = subdomain or bench.subdomain
    wanted, largest = excess(reference, reference_overlap), len(bench.problem.b) // 2
    sizes: dict[int, int] = {}
    for overlap in dict.fromkeys(overlaps):
        size, nearest = reference, math.inf  # log of the work over that of the reference
        for _ in range(6):
            found = excess(size, overlap)
            miss = math.log((1 + found) / (1 + wanted))
            if abs(miss) < abs(nearest):
                nearest, sizes[overlap] = miss, size
            # The excess goes with size^(-1/d); with d = 2 steps fall short in 3D.
            step = round(size * min(max(found / wanted, 0.1), 10.0) ** 2)
            step = max(1, min(step, largest))
            if abs(miss) <= WORK_TOLERANCE or step == size:
                break
            size = step
        if nearest > math.log(2):
            del sizes[overlap]
    return sizes
