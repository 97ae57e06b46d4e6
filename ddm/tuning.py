"""Tune a solver for one's own system, by trying."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ddm.classical import Classical
from ddm.extras import extra
from ddm.given import as_problem, with_right_hand_side
from ddm.learned import InterfaceNet
from ddm.limits import check_limits, check_rtol
from ddm.methods import Maker, Operator, classical, makers
from ddm.problems.problem import Elements
from ddm.promise import first_candidates, neighbours, other_sizes
from ddm.racing import COLUMNS, Race, Trial
from ddm.runs import krylov, warm_up
from ddm.safeguard import LearnedRefusedWarning
from ddm.table import Table
from ddm.workbench import Workbench
from sparsetorch.checks import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TuningError(RuntimeError):
    """No candidate reached the tolerance; `.table` says what each came to."""

    def __init__(self, table: Table) -> None:
        ends = "; ".join(f"{row['method']}: {row['status']}" for row in table.rows[:5])
        super().__init__(
            f"none of {len(table.rows)} candidates reached the tolerance ({ends}); raise budget_s "
            "or maxiter, or loosen rtol"
        )
        self.table = table

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.table,)


class Tuned:
    """The fastest method that a tuning run found, and the table of all that it tried.

    Attributes:
        preconditioner: the method: called with a residual by `sparsetorch.linalg`, with
            `as_linear_operator()` for SciPy; where it is a `Schwarz`, `ddm.petsc.export` writes it.
        best: its `Trial`.
        trials: of all candidates, in the order in which they were tried.
        table: a row for each.
        seconds: that the run took.
        interrupted: whether the user ended it.
    """

    def __init__(self, race: Race, seconds: float, interrupted: bool) -> None:
        self.table = table_of(race.trials)
        if race.best is None or race.operator is None:
            raise TuningError(self.table)
        self.best: Trial = race.best
        self.preconditioner: Operator = race.operator
        self.trials = race.trials
        self.seconds, self.interrupted = seconds, interrupted
        self._bench, self._rtol, self._maxiter = race.bench, race.rtol, race.maxiter

    def solve(self, b: Any, rtol: float | None = None) -> Any:
        """The solution of A x = b, (n,) or (n, k): a tensor for a tensor, else an array.

        Where the problem has a null space, b is brought into the range of A first; where unknowns
        are fixed to zero in its place, so is b. x has no gradients: `sparsetorch.linalg.solve`
        with the preconditioner has them.

        Raises:
            SolveError: the tolerance was not reached.
            TypeError, ValueError: b or `rtol` does not fit.
        """
        rtol = self._rtol if rtol is None else rtol
        check_rtol(rtol)
        right = self._tensor(b) if isinstance(b, Tensor) else self._right_hand_side(b)
        found = krylov(
            self._bench, self.preconditioner, b=right, rtol=rtol, maxiter=self._maxiter
        ).checked()
        return found.x if isinstance(b, Tensor) else found.x.numpy()

    def _tensor(self, b: Tensor) -> Tensor:
        """The same in the range of A; what does not fit, the solve refuses."""
        null, A, fixed = self._bench.null, self._bench.matrix, self._bench.problem.fixed
        fits = b.dtype == A.dtype and b.device == A.device and b.ndim in (1, 2)
        if not fits or len(b) != A.shape[0]:
            return b
        if fixed is not None:
            b = b.clone()
            b[torch.from_numpy(fixed)] = 0
        if null is None:
            return b
        return null.project(b[:, None])[:, 0] if b.ndim == 1 else null.project(b)

    def _right_hand_side(self, b: Any) -> Tensor:
        problem = self._bench.problem
        columns = np.asarray(b)
        if columns.ndim not in (1, 2) or len(columns) != len(problem.b) or not columns.size:
            raise ValueError(
                f"b: expected shape ({len(problem.b)},) or ({len(problem.b)}, k), got "
                f"{columns.shape}"
            )
        if columns.ndim == 1:
            return torch.from_numpy(with_right_hand_side(problem, columns).b)
        return torch.from_numpy(
            np.stack([with_right_hand_side(problem, column).b for column in columns.T], axis=1)
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table."""
        return self.table.rows

    def to_markdown(self) -> str:
        """The table in Markdown."""
        return self.table.to_markdown()

    def to_csv(self, path: Any) -> None:
        """Write the table as CSV."""
        self.table.to_csv(path)

    def plot(self) -> Figure:
        """Residuals over seconds of all candidates that began to solve, and the costs."""
        from ddm.plot import plot_trials

        return plot_trials(self.trials, self.best)

    def __repr__(self) -> str:
        best = self.best
        settings = f" ({best.settings})" if best.settings else ""
        return (
            f"Tuned({best.method}{settings}: set-up {best.setup_s:.3g} s, solve {best.solve_s:.3g} "
            f"s, {len(self.trials)} candidates in {self.seconds:.3g} s)"
        )


def table_of(trials: Sequence[Trial]) -> Table:
    """The table of some trials."""
    table = Table(COLUMNS)
    for trial in trials:
        table.add(**trial.row())
    return table


def tune(
    A: Any,
    b: np.ndarray | Tensor | None = None,
    coords: np.ndarray | None = None,
    budget_s: float = 60.0,
    *,
    rtol: float = 1e-6,
    solves: int = 1,
    methods: Sequence[str] | Mapping[str, str | Maker] | None = None,
    near_nullspace: np.ndarray | None = None,
    block_size: int | None = None,
    elements: Elements | None = None,
    net: InterfaceNet | str | None = None,
    maxiter: int = 1000,
    partitioner: str = "auto",
    progress: bool = True,
) -> Tuned:
    """Find the fastest solver for a system by trying candidates on it.

    First one of each kind: algebraic multigrid, a factorization, learned and classical Schwarz
    methods; then neighbours of the best classical one in subdomain size, overlap, coarse space and
    Robin weight, until none is faster or time is up. The measure is seconds of set-up and of
    `solves` solves to the tolerance. A candidate is given up once it has taken longer than the best
    one, or halfway if it would lose even at twice its pace. No candidate is begun after `budget_s`
    and no solve goes on, so that the run exceeds it by one set-up at most; but as long as nothing
    has reached the tolerance, a solve goes on to its end. Control-C ends it with the best so far.

    Args:
        A: (n, n) SciPy sparse matrix, the path of a file of one (see `ddm.from_matrix`), CSRTensor
            (from any device; all runs on the CPU, in float64 or complex128), or
            `ddm.Problem`.
        b: (n,) right-hand side; None takes the problem's, or normal numbers where that is zero.
        coords: (n, d) positions of the unknowns.
        budget_s: seconds.
        rtol: relative residual.
        solves: right-hand sides that one set-up is to serve.
        methods: only these, see `ddm.compare`; None is the search above.
        near_nullspace, block_size, elements, net, partitioner: see `ddm.compare`.
        maxiter: of the Krylov methods.
        progress: whether to show a bar, on a terminal.

    Raises:
        TypeError, ValueError: arguments that do not fit, a singular matrix or one with NaN.
        TuningError: no candidate reached the tolerance.
        KeyboardInterrupt: before any did.
    """
    if not budget_s > 0:
        raise ValueError(f"budget_s: expected a positive number of seconds, got {budget_s}")
    solves = check_count("solves", solves, "right-hand side")
    maxiter = check_limits(rtol, maxiter)
    chosen = None if methods is None else makers(methods)
    problem = as_problem(
        A, b, coords=coords, near_nullspace=near_nullspace, block_size=block_size, elements=elements
    )
    bench = Workbench(problem, partitioner=partitioner, net=net, search_s=budget_s / 4)
    warm_up()
    start = time.perf_counter()
    race = Race(bench, rtol, maxiter, solves, start + budget_s)
    interrupted = False
    with _Bar(race, budget_s, progress) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore", LearnedRefusedWarning)  # the table says it
        try:
            if chosen is None:
                _search(race, bar)
            else:
                for name, maker in chosen.items():
                    bar.enter(name, maker)
        except KeyboardInterrupt:
            if race.best is None:
                raise
            interrupted = True
    return Tuned(race, time.perf_counter() - start, interrupted)


class _Bar:
    """A progress bar over the seconds of a race."""

    def __init__(self, race: Race, budget_s: float, shown: bool) -> None:
        self.race, self.start = race, time.perf_counter()
        self.total = max(1, round(budget_s)) if math.isfinite(budget_s) else None
        self.bar: Any = extra("tqdm").tqdm(
            total=self.total,
            desc="tuning",
            unit="s",
            disable=None if shown else True,
            bar_format=None
            if self.total is None
            else "{l_bar}{bar}| {n_fmt}/{total_fmt} s{postfix}",
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def enter(self, name: str, maker: Maker) -> Trial | None:
        """Try a candidate; None where time is up, unless it is the first."""
        race = self.race
        if race.trials and time.perf_counter() > race.deadline:
            return None
        trial = race.enter(name, maker)
        best = "" if race.best is None else f"best: {race.best.method} {race.least:.3g} s"
        self.bar.set_postfix_str(f"{len(race.trials)} tried, {best}", refresh=False)
        passed = int(time.perf_counter() - self.start)
        passed = passed if self.total is None else min(passed, self.total)
        self.bar.update(passed - self.bar.n)
        return trial


def _search(race: Race, bar: _Bar) -> None:
    """One candidate of each kind, then neighbours of the best classical one."""
    best, cost = None, float("inf")
    tried: set[Classical] = set()

    def enter(candidate: Classical) -> None:
        nonlocal best, cost
        if candidate in tried:
            return
        tried.add(candidate)
        trial = bar.enter("schwarz", lambda bench: classical(bench, candidate))
        if trial is not None and trial.cost_s is not None and trial.cost_s < cost:
            best, cost = candidate, trial.cost_s

    for name, maker in first_candidates(race.bench):
        if isinstance(maker, Classical):
            enter(maker)
        else:
            bar.enter(name, maker)
    if best is None:  # all of them were slower before they began to solve
        for candidate in other_sizes(Classical(), race.bench):
            enter(candidate)
    while best is not None and time.perf_counter() < race.deadline:
        before = best
        for candidate in neighbours(best, race.bench):
            enter(candidate)
        if best == before:
            return
