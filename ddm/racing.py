"""Candidates of a tuning run one after the other, each dropped as soon as it cannot win."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ddm.methods import Maker, Operator
from ddm.runs import cause, krylov, krylov_name, made, sizes, status
from ddm.workbench import Workbench

COLUMNS = (
    "method",
    "settings",
    "subdomains",
    "overlap",
    "local_nnz",
    "coarse",
    "coarse_nnz",
    "krylov",
    "iterations",
    "setup_s",
    "solve_s",
    "cost_s",
    "status",
)
SHARE, MARGIN = 0.5, 2.0
"""Having used this share of the time in which its solve could win, a candidate is dropped if it
would lose even at so many times the pace that it has shown: Krylov methods speed up."""


@dataclass(frozen=True)
class Trial:
    """One candidate on the problem; what was not reached is None.

    Attributes:
        method: its name.
        status: "converged", "dropped after k iterations: ...", "does not apply: ...".
        settings: what it was made with.
        sizes: number of subdomains and so on, by column.
        krylov: "cg" or "fgmres".
        residuals: norms, one an iteration, from the initial guess on.
        setup_s, solve_s: seconds of set-up and of one solve.
        cost_s: seconds of the set-up and of all solves that it is to serve.
    """

    method: str
    status: str
    settings: str = ""
    sizes: dict[str, int | None] = field(default_factory=dict)
    krylov: str | None = None
    residuals: list[float] = field(default_factory=list, repr=False)
    setup_s: float | None = None
    solve_s: float | None = None
    cost_s: float | None = None

    @property
    def converged(self) -> bool:
        """Whether it reached the tolerance."""
        return self.status == "converged"

    def row(self) -> dict[str, Any]:
        """The row of a table with `COLUMNS`."""
        known = {name: getattr(self, name) for name in COLUMNS if hasattr(self, name)}
        iterations = max(len(self.residuals) - 1, 0) if self.converged else None
        return dict.fromkeys(COLUMNS) | known | self.sizes | {"iterations": iterations}


class _DroppedError(Exception):
    """A solve was given up; the message says why."""


@dataclass
class Race:
    """Tries candidates and keeps the best.

    Attributes:
        bench: the problem.
        rtol, maxiter: of the solves.
        solves: right-hand sides that one set-up is to serve.
        deadline: moment (`time.perf_counter`) after which a solve is given up, once there is a
            winner.
    """

    bench: Workbench
    rtol: float
    maxiter: int
    solves: int
    deadline: float
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    operator: Operator | None = None

    @property
    def least(self) -> float:
        """The cost of the best candidate."""
        return math.inf if self.best is None or self.best.cost_s is None else self.best.cost_s

    @torch.no_grad()
    def enter(self, name: str, maker: Maker) -> Trial:
        """Set up a candidate and solve with it, as far as it can win."""
        try:
            found, setup_s = made(self.bench, maker)
        except Exception as error:  # a user's function may raise anything
            return self._note(Trial(name, f"does not apply: {cause(error)}"))
        operator = found.operator
        known: dict[str, Any] = {
            "settings": found.settings,
            "sizes": sizes(operator),
            "krylov": krylov_name(operator, self.bench.definite),
            "setup_s": setup_s,
        }
        if setup_s > self.least:
            return self._note(Trial(name, "dropped: its set-up costs more than the best", **known))
        residuals: list[float] = []
        try:
            seconds, state = self._solved(operator, setup_s, residuals)
        except _DroppedError as dropped:
            return self._note(Trial(name, str(dropped), residuals=residuals, **known))
        except Exception as error:
            said = f"failed: {cause(error)}"
            return self._note(Trial(name, said, residuals=residuals, **known))
        if state != "converged":
            return self._note(Trial(name, state, residuals=residuals, **known))
        cost = setup_s + self.solves * seconds
        trial = Trial(name, state, residuals=residuals, solve_s=seconds, cost_s=cost, **known)
        if cost < self.least:
            self.best, self.operator = trial, operator
        return self._note(trial)

    def _note(self, trial: Trial) -> Trial:
        self.trials.append(trial)
        return trial

    def _solved(
        self, operator: Operator, setup_s: float, residuals: list[float]
    ) -> tuple[float, str]:
        """Seconds of a solve, the faster of two where it is short, and how it ended."""
        best = math.inf
        while True:
            residuals.clear()
            start = time.perf_counter()
            watch = self._watch(start, setup_s, residuals)
            found = krylov(
                self.bench, operator, rtol=self.rtol, maxiter=self.maxiter, callback=watch
            )
            passed = time.perf_counter() - start
            if not found.converged or passed > 0.5 or best < math.inf:
                return min(best, passed), status(found)
            best = passed

    def _watch(
        self, start: float, setup_s: float, residuals: list[float]
    ) -> Callable[[int, float], None]:
        """A callback that gives up a solve which cannot win, or for which there is no time."""

        def watch(iteration: int, residual: float) -> None:
            residuals.append(residual)
            now = time.perf_counter()
            if self.best is None:
                return
            if now > self.deadline:
                raise _DroppedError(f"dropped after {iteration} iterations: time is up")
            if residual <= self.rtol * residuals[0]:
                return
            spent = setup_s + self.solves * (now - start)
            if spent > self.least:
                raise _DroppedError(f"dropped after {iteration} iterations: slower than the best")
            done = math.log(residuals[0] / residual) / -math.log(self.rtol)
            half = self.solves * (now - start) > SHARE * (self.least - setup_s)
            if half and self._loses(now - start, done, setup_s):
                raise _DroppedError(
                    f"dropped after {iteration} iterations: at its pace it cannot win"
                )

        return watch

    def _loses(self, seconds: float, done: float, setup_s: float) -> bool:
        """Whether a solve that is `done` (of 1, in digits) loses at `MARGIN` times its pace."""
        if done <= 0:
            return seconds * self.solves * MARGIN > self.least
        return setup_s + self.solves * seconds / min(1.0, MARGIN * done) > self.least
