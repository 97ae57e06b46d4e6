"""Tuning by trying: the best is found, racing drops what cannot win, and nobody waits too long."""

import copy
import csv
import dataclasses
import time
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from matplotlib import pyplot as plt
from small_problems import delaunay

import ddm
from ddm import petsc
from ddm.classical import Classical
from ddm.peers import Direct, Multigrid
from ddm.promise import FIRST, first_candidates, neighbours
from ddm.racing import COLUMNS, Race
from ddm.tuning import TuningError
from ddm.workbench import Workbench
from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, fgmres

QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="module")
def problem():
    return ddm.poisson(delaunay(20))


@pytest.fixture(scope="module")
def tuned(problem):
    return ddm.tune(problem, **QUIET)


class Clock:
    """A clock that moves by a ten-thousandth of a second when it is read, and by what is spent."""

    now = 0.0

    def __call__(self):
        self.now += 1e-4
        return self.now

    def spend(self, seconds):
        self.now += seconds

    def slow(self, seconds):
        """A method whose set-up takes its time."""

        def make(bench):
            self.spend(seconds)
            return Classical(subdomain=40)(bench)

        return make


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def race(problem, **options):
    settings = {"rtol": 1e-6, "maxiter": 500, "solves": 1, "deadline": float("inf")} | options
    return Race(Workbench(problem), **settings)


def with_best(problem, cost_s, **options):
    """A race whose best candidate so far cost that much."""
    runner = race(problem, **options)
    runner.best = dataclasses.replace(
        runner.enter("good", lambda bench: Direct(bench.matrix)), cost_s=cost_s
    )
    return runner


def test_the_best_is_the_cheapest_of_those_that_converged(tuned):
    costs = [trial.cost_s for trial in tuned.trials if trial.cost_s is not None]
    assert tuned.best.cost_s == min(costs)
    for trial in tuned.trials:
        if trial.converged:
            assert trial.cost_s == pytest.approx(trial.setup_s + trial.solve_s)
    assert not tuned.interrupted


def test_learned_classical_and_other_methods_are_tried(tuned):
    names = {trial.method for trial in tuned.trials}
    assert {"amg", "direct", "mggnn, 64", "schwarz", "geneo"} <= names


def test_it_solves(problem, tuned):
    exact = np.linalg.solve(problem.A.toarray(), problem.b)
    np.testing.assert_allclose(tuned.solve(problem.b), exact, rtol=1e-4, atol=1e-6)
    b = torch.from_numpy(np.stack([problem.b, 2 * problem.b], axis=1))
    x = tuned.solve(b, rtol=1e-10)
    np.testing.assert_allclose(x[:, 1].numpy(), 2 * exact, rtol=1e-7, atol=1e-9)
    with pytest.raises(SolveError, match="maxiter"):
        _with_limit(tuned, 0).solve(problem.b, rtol=1e-14)


def _with_limit(tuned, maxiter):
    limited = copy.copy(tuned)
    limited._maxiter = maxiter
    return limited


def test_the_preconditioner_serves_scipy_and_this_library(problem, tuned):
    M = tuned.preconditioner
    x, info = scipy.sparse.linalg.gmres(
        problem.A, problem.b, M=M.as_linear_operator(), rtol=1e-8, restart=100
    )
    assert info == 0
    np.testing.assert_allclose(problem.A @ x, problem.b, atol=1e-6)
    A, b = CSRTensor.from_scipy(problem.A), torch.from_numpy(problem.b)
    assert fgmres(A, b, preconditioner=M, rtol=1e-8).converged


def test_a_restricted_schwarz_method_can_be_exported(problem, tmp_path):
    tuned = ddm.tune(problem, methods={"mine": Classical(theta=0.5, subdomain=40)}, **QUIET)
    assert isinstance(tuned.preconditioner, ddm.Schwarz)
    petsc.export(tuned.preconditioner, tmp_path / "mine.npz")
    assert petsc.load(tmp_path / "mine.npz").n == len(problem.b)


def test_only_the_methods_that_were_asked_for(problem):
    tuned = ddm.tune(problem, methods=("ras", "amg"), **QUIET)
    assert [trial.method for trial in tuned.trials] == ["ras", "amg"]
    assert isinstance(tuned.preconditioner, (ddm.Schwarz, Multigrid))


def test_right_hand_sides_of_any_kind_are_solved(problem, tuned):
    want = tuned.solve(problem.b)
    np.testing.assert_allclose(tuned.solve(problem.b.tolist()), want)
    np.testing.assert_allclose(
        tuned.solve(problem.b.astype(np.float32)), want, rtol=1e-3, atol=1e-6
    )
    backwards = tuned.solve(problem.b[::-1])
    np.testing.assert_allclose(problem.A @ backwards, problem.b[::-1], atol=1e-4)
    both = tuned.solve(np.stack([problem.b, problem.b[::-1]], 1))
    np.testing.assert_allclose(both[:, 1], backwards, atol=1e-5)
    with pytest.raises(ValueError, match=r"b: expected shape \(324,\) or \(324, k\), got \(3,\)"):
        tuned.solve([1, 2, 3])
    with pytest.raises(TypeError, match="b: complex, but A is real"):
        tuned.solve(problem.b * 1j)


def test_later_right_hand_sides_are_brought_into_the_range_too():
    free = ddm.poisson(delaunay(12), dirichlet={}, singular="nullspace")
    tuned = ddm.tune(free, methods=("oras",), **QUIET)
    b = np.arange(len(free.b), dtype=np.float64)
    x = tuned.solve(b)
    np.testing.assert_allclose(free.A @ x, b - b.mean(), atol=1e-3)
    np.testing.assert_allclose(tuned.solve(torch.from_numpy(b)).numpy(), x)
    both = tuned.solve(torch.from_numpy(np.stack([b, 2 * b], 1)))
    np.testing.assert_allclose(both.numpy(), np.stack([x, 2 * x], 1), atol=1e-3)
    with pytest.raises(ValueError, match="b"):
        tuned.solve(torch.ones(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="rtol: expected a number between 0 and 1, got 2"):
        tuned.solve(b, rtol=2)


def test_many_right_hand_sides_favour_cheap_solves(problem, clock):
    """A set-up that takes a while pays if it serves enough solves, and not otherwise."""

    def dear(bench):
        clock.spend(0.3)
        return Direct(bench.matrix)

    methods = {"ras": "ras", "dear": dear}
    once = ddm.tune(problem, methods=methods, rtol=1e-10, **QUIET)
    often = ddm.tune(problem, methods=methods, rtol=1e-10, solves=10_000, **QUIET)
    assert once.best.method == "ras"
    best: Any = often.best
    assert best.method == "dear"
    assert best.cost_s == pytest.approx(best.setup_s + 1e4 * best.solve_s)


def test_a_set_up_that_costs_more_than_the_best_is_not_followed_by_a_solve(problem, clock):
    runner = race(problem)
    runner.enter("amg", lambda bench: Classical(subdomain=40)(bench))
    trial = runner.enter("slow", clock.slow(1.0))
    assert trial.status == "dropped: its set-up costs more than the best"
    assert trial.residuals == []
    assert trial.setup_s is not None
    assert trial.setup_s > 1


def test_a_solve_that_cannot_win_is_given_up_with_its_history(problem, clock):
    class Useless(Direct):
        """The identity, which takes its time."""

        def apply(self, r):
            clock.spend(0.02)
            return r.clone()

    runner = with_best(problem, cost_s=0.5, rtol=1e-10)
    best = runner.best
    trial = runner.enter("bad", lambda bench: Useless(bench.matrix))
    assert trial.status.startswith("dropped after ")
    assert 1 < len(trial.residuals) < 40
    assert runner.best is best


def test_a_history_that_is_behind_loses_and_one_that_is_ahead_does_not(problem):
    runner = with_best(problem, cost_s=10.0)
    assert runner._loses(6.0, 0.2, 0.0)  # 6 s for a fifth: 15 s at twice that pace
    assert not runner._loses(3.0, 0.2, 0.0)
    assert runner._loses(3.0, 0.2, 3.0)
    assert runner._loses(6.0, -0.1, 0.0)  # the residual has grown
    assert not runner._loses(9.0, 0.95, 0.5)


def test_time_is_up(problem, clock):
    """No candidate is begun after the budget, but one is tried whatever the budget."""
    tuned = ddm.tune(
        problem,
        methods={"a": clock.slow(0.2), "b": clock.slow(0.2), "c": "direct"},
        budget_s=0.1,
        **QUIET,
    )
    assert [trial.method for trial in tuned.trials] == ["a"]
    runner = with_best(problem, cost_s=1e9, deadline=0.0)
    assert runner.enter("late", Classical(subdomain=40)).status.endswith("time is up")


def test_an_interrupt_keeps_the_best_so_far(problem):
    def interrupt(bench):
        raise KeyboardInterrupt

    tuned = ddm.tune(problem, methods={"a": "ras", "b": interrupt, "c": "direct"}, **QUIET)
    assert tuned.interrupted
    assert tuned.best.method == "a"
    with pytest.raises(KeyboardInterrupt):
        ddm.tune(problem, methods={"b": interrupt, "a": "ras"}, **QUIET)


def test_what_fails_is_a_row(problem):
    def broken(bench):
        raise ValueError("A: too odd")

    tuned = ddm.tune(problem, methods={"a": broken, "b": "ras"}, **QUIET)
    assert tuned.rows[0]["status"] == "does not apply: A: too odd"
    assert tuned.best.method == "b"


def test_where_nothing_converges_the_table_comes_with_the_error(problem):
    with pytest.raises(TuningError, match="none of 2 candidates reached the tolerance") as caught:
        ddm.tune(problem, methods=("ras", "as"), maxiter=2, **QUIET)
    assert [row["method"] for row in caught.value.table.rows] == ["ras", "as"]


def test_the_table_and_the_picture(tuned, tmp_path):
    assert tuned.to_markdown() == tuned.table.to_markdown()
    tuned.to_csv(tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == len(tuned.trials)
    figure = tuned.plot()
    begun = [trial for trial in tuned.trials if trial.residuals]
    assert len(figure.axes[0].lines) == len(begun)
    bars = min(12, sum(trial.converged for trial in tuned.trials))
    assert len(figure.axes[1].patches) == 2 * bars
    first = figure.axes[1].patches[0].get_width() + figure.axes[1].patches[bars].get_width()
    assert first == pytest.approx(tuned.best.cost_s)
    plt.close(figure)
    assert tuned.best.method in repr(tuned)


def test_a_factorization_is_not_tried_where_it_would_take_forever(problem, monkeypatch):
    bench = Workbench(problem)
    assert "direct" in dict(first_candidates(bench))
    monkeypatch.setattr("ddm.promise.DIRECT_UP_TO", {"plane": 100, "solid": 10})
    assert "direct" not in dict(first_candidates(bench))


def test_neighbours_differ_in_one_number(problem):
    best = FIRST[0]
    for candidate in neighbours(best, Workbench(problem)):
        different = [
            field.name
            for field in dataclasses.fields(best)
            if getattr(best, field.name) != getattr(candidate, field.name)
        ]
        assert len(different) <= 1 or set(different) == {"theta", "between"}
    additive = list(neighbours(FIRST[-1], Workbench(problem)))
    assert all(candidate.theta == 1 for candidate in additive)


def test_the_search_leaves_the_first_candidates_behind(problem):
    """Many solves: neighbours of the best classical method are tried until none is cheaper."""
    tuned = ddm.tune(problem, rtol=1e-8, solves=1000, budget_s=5, **QUIET)
    settings = {trial.settings for trial in tuned.trials if trial.method == "schwarz"}
    assert len(settings) > len(FIRST)


def test_a_budget_without_an_end(problem):
    assert ddm.tune(problem, budget_s=np.inf, methods=("ras",), progress=True).trials


def test_fixed_unknowns_stay_zero_for_later_right_hand_sides():
    graph = sp.eye_array(100, k=1) + sp.eye_array(100, k=-1)
    L = sp.csgraph.laplacian(sp.csr_array(graph))
    problem = ddm.graph_laplacian(graph)
    tuned = ddm.tune(problem, methods=("direct",), progress=False)
    b = np.random.default_rng(5).standard_normal((100, 2))
    b -= b.mean(axis=0)  # in the range of L
    for right in (b, b[:, 0], torch.from_numpy(b), torch.from_numpy(b[:, 1].copy())):
        x = tuned.solve(right)
        assert np.abs(L @ np.asarray(x) - np.asarray(right)).max() < 1e-10
    assert problem.fixed is not None
    assert problem.fixed.sum() == 1
    other = ddm.tune(problem, b[:, 0], methods=("direct",), progress=False)
    assert other._bench.problem.b[problem.fixed] == 0
