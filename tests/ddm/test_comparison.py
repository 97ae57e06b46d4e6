"""Methods side by side, and their table."""

import csv

import numpy as np
import pytest
import torch
from small_problems import delaunay

from ddm.comparison import compare
from ddm.learned import InterfaceNet
from ddm.partition import partition
from ddm.problems import poisson
from ddm.setup import set_up
from ddm.table import Table
from sparsetorch.linalg import fgmres, richardson


@pytest.fixture(scope="module")
def problem():
    return poisson(delaunay(20))


@pytest.fixture(scope="module")
def runs(problem):
    torch.manual_seed(0)
    return compare(problem.A, problem.b, InterfaceNet(width=8, layers=1), subdomain=40)


def test_every_method_solves_the_system(problem, runs):
    assert [name.split(" ")[0] for name in runs] == [
        "RAS",
        "ORAS",
        "RAS,",
        "ORAS",
        "MG-GNN",
        "PyAMG",
    ]
    exact = np.linalg.solve(problem.A.toarray(), problem.b)
    for run in runs.values():
        for solution in (run.stationary, run.krylov):
            assert solution.converged, run.method
            np.testing.assert_allclose(solution.x.numpy(), exact, rtol=1e-5, atol=1e-9)
        assert run.setup_s > 0
        assert run.solve_s > 0


def test_counts_are_those_of_the_solvers(problem, runs):
    owner = partition(problem.A, round(len(problem.b) / 40))
    setup = set_up(problem.A, owner, smoothing=0)
    b = torch.from_numpy(problem.b)
    for solve, found in ((richardson, runs["RAS"].stationary), (fgmres, runs["RAS"].krylov)):
        expected = solve(setup.A, b, preconditioner=setup.classical(), rtol=1e-8)
        assert found.iterations == expected.iterations


def test_the_untrained_network_is_the_classical_method_it_starts_from(problem, runs):
    setup = set_up(problem.A, partition(problem.A, round(len(problem.b) / 40)))
    b = torch.from_numpy(problem.b)
    expected = richardson(setup.A, b, preconditioner=setup.classical(0.5), rtol=1e-8)
    assert runs["MG-GNN"].stationary.iterations == expected.iterations


def test_a_method_that_does_not_converge_says_so(problem):
    runs = compare(problem.A, problem.b, subdomain=40, maxiter=3, amg=False)
    assert "MG-GNN" not in runs
    assert not runs["RAS"].stationary.converged


def test_table(tmp_path):
    table = Table(("name", "count", "seconds"))
    table.add(name="a", count=3, seconds=0.12345)
    table.add(name="long name", count=None, seconds=2.0)
    assert table.to_markdown() == (
        "| name      | count | seconds |\n"
        "| --------- | ----: | ------: |\n"
        "| a         |     3 |   0.123 |\n"
        "| long name |       |       2 |\n"
    )
    table.to_csv(tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert rows[1] == {"name": "long name", "count": "", "seconds": "2.0"}
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(ValueError, match="row: expected the columns"):
        table.add(name="b")
