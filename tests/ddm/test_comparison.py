"""Methods side by side: every one solves, counts are those of the solvers, failures are rows."""

import csv
import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from matplotlib import pyplot as plt
from small_problems import delaunay

import ddm
from ddm.classical import Classical
from ddm.comparison import DEFAULT
from ddm.learned import InterfaceNet
from ddm.methods import METHODS
from ddm.partition import decompose, partition
from ddm.peers import Direct
from ddm.problems import poisson
from ddm.rates import convergence_factor
from ddm.runs import COLUMNS, sizes
from ddm.setup import set_up
from ddm.table import Table
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg, fgmres, richardson


@pytest.fixture(scope="module")
def problem():
    return poisson(delaunay(20))


@pytest.fixture(scope="module")
def table(problem):
    torch.manual_seed(0)
    net = InterfaceNet(width=8, layers=1)
    return ddm.compare(problem, methods=tuple(METHODS), net=net, subdomain=40, rtol=1e-8)


def test_every_method_solves_the_system(problem, table):
    assert [row["method"] for row in table.rows] == list(METHODS)
    exact = np.linalg.solve(problem.A.toarray(), problem.b)
    for run in table.runs.values():
        assert run.status == "converged", run.method
        np.testing.assert_allclose(run.krylov.x.numpy(), exact, rtol=1e-5, atol=1e-9)
        assert run.setup_s > 0
        assert run.solve_s > 0


def test_cg_is_for_methods_that_are_symmetric(table):
    found = {name: run.krylov_name for name, run in table.runs.items()}
    assert {name for name, used in found.items() if used == "cg"} == {
        "as",
        "soras",
        "geneo",
        "amg",
        "direct",
    }


def test_counts_are_those_of_the_solvers(problem, table):
    owner = partition(problem.A, round(len(problem.b) / 40))
    setup = set_up(problem.A, owner, smoothing=0)
    b, row = torch.from_numpy(problem.b), table.rows[0]
    M = setup.classical()
    assert row["stationary"] == richardson(setup.A, b, preconditioner=M, rtol=1e-8).iterations
    assert row["iterations"] == fgmres(setup.A, b, preconditioner=M, rtol=1e-8).iterations
    assert row["factor"] == pytest.approx(convergence_factor(M), rel=1e-6)
    row = table.rows[list(METHODS).index("amg")]
    amg = table.runs["amg"].operator
    assert row["iterations"] == cg(setup.A, b, preconditioner=amg, rtol=1e-8).iterations


def test_sizes_are_those_of_the_decomposition(problem, table):
    d = decompose(problem.A, partition(problem.A, round(len(problem.b) / 40)))
    row = table.rows[0]
    assert (row["subdomains"], row["overlap"]) == (d.n_subdomains, 1)
    assert row["local_nnz"] == sum(
        problem.A[nodes][:, nodes].nnz
        for nodes in (d.node[d.subdomain == i] for i in range(d.n_subdomains))
    )
    P = set_up(problem.A, d.owner, smoothing=0).P.to_scipy()
    assert (row["coarse"], row["coarse_nnz"]) == (d.n_subdomains, (P.T @ problem.A @ P).nnz)


def test_entries_of_the_coarse_matrix_are_counted_without_making_it_again(table, monkeypatch):
    def refuse(*_):
        raise AssertionError("a product")

    monkeypatch.setattr(CSRTensor, "__matmul__", refuse)
    for name, row in zip(table.runs, table.rows):
        assert sizes(table.runs[name].operator)["coarse_nnz"] == row["coarse_nnz"]


def test_symmetric_methods_say_so_in_their_settings(table):
    assert table.runs["as"].settings == "additive form, balanced levels, overlap 1, smoothing 1"
    assert "symmetric form, balanced levels" in table.runs["soras"].settings


def test_the_untrained_network_is_the_classical_method_it_starts_from(problem, table):
    assert table.runs["mggnn"].settings == "learned"
    net = InterfaceNet(width=8, layers=1)
    owner = partition(problem.A, round(len(problem.b) / 40))
    start = set_up(problem, owner, **net.options).classical(net.theta)
    found = richardson(start.A, torch.from_numpy(problem.b), preconditioner=start, rtol=1e-8)
    assert table.runs["mggnn"].stationary.iterations == found.iterations


def test_the_tuned_method_needs_fewest_iterations_of_the_classical_ones(table):
    counts = {name: table.runs[name].stationary.iterations for name in ("ras", "oras")}
    assert table.runs["oras_tuned"].stationary.iterations <= min(counts.values())
    assert "overlap" in table.runs["oras_tuned"].settings


def test_iterations_that_do_not_end_are_rows_with_histories(problem):
    table = ddm.compare(problem, methods=("ras", "as", "direct"), subdomain=40, maxiter=3)
    ras, additive, direct = table.rows
    for row in (ras, additive):
        assert row["status"].startswith("not converged after 3 iterations: the residual fell to ")
        assert row["iterations"] is None
        run: Any = table.runs[row["method"]]
        assert len(run.krylov.residuals) == 4
    assert direct["status"] == "converged"


def test_a_diverging_method_is_a_row_with_its_history_and_the_reason(problem):
    """With M = -A^-1 errors double, and CG meets a direction of negative curvature."""

    def wrong(bench):
        return Direct(CSRTensor.from_scipy(-bench.problem.A))

    table = ddm.compare(problem, methods={"wrong": wrong, "ras": "ras"}, subdomain=40)
    run: Any = table.runs["wrong"]
    row = table.rows[0]
    assert run.stationary.message.startswith("diverged after ")
    residuals = run.stationary.residuals
    np.testing.assert_allclose(np.divide(residuals[1:], residuals[:-1]), 2, rtol=1e-6)
    assert row["stationary"] is row["iterations"] is None
    assert row["status"].startswith("indefinite after 0 iterations: ")
    assert table.runs["ras"].converged


def test_a_method_that_cannot_be_made_leaves_the_others(problem):
    def broken(bench):
        raise ValueError("A: too odd")

    table = ddm.compare(problem, methods={"mine": broken, "RAS": "ras"}, subdomain=40)
    assert table.rows[0]["status"] == "does not apply: A: too odd"
    assert table.rows[0]["iterations"] is None
    assert table.runs["RAS"].converged


class Stranger:
    """A preconditioner with a defect, which shows in the solve."""

    is_symmetric = True

    def apply(self, r):
        return r

    def __call__(self, r):
        raise KeyError("r")


@pytest.mark.parametrize(
    ("maker", "status"),
    [
        (lambda bench: 1 / 0, "does not apply: ZeroDivisionError: division by zero"),
        (lambda bench: bench.nothing, "does not apply: AttributeError: 'Workbench' object has no"),
        (
            lambda bench: None,
            "does not apply: methods: .* got NoneType without apply",
        ),
        (lambda bench: Stranger(), "failed: KeyError: 'r'"),
    ],
)
def test_whatever_a_method_of_ones_own_does_is_its_row_alone(problem, maker, status):
    methods = {"mine": maker, "RAS": "ras"}
    table = ddm.compare(problem, methods=methods, subdomain=40)
    assert re.match(status, table.rows[0]["status"])
    assert table.runs["RAS"].converged
    tuned = ddm.tune(problem, methods=methods, progress=False)
    assert re.match(status, tuned.rows[0]["status"])
    assert tuned.best.method == "RAS"


def test_methods_of_ones_own(problem):
    smoothed = Classical(theta=0.5, overlap=2)
    table = ddm.compare(problem, methods={"mine": smoothed, "named": "oras"}, subdomain=40)
    assert table.runs["mine"].settings == "theta 0.5, overlap 2, smoothing 1"
    assert table.rows[0]["overlap"] == 2


@pytest.mark.parametrize("kind", ["scipy", "tensor"])
def test_a_matrix_alone_will_do(problem, kind):
    A = problem.A if kind == "scipy" else CSRTensor.from_scipy(problem.A)
    b = problem.b if kind == "scipy" else torch.from_numpy(problem.b)
    found = ddm.compare(A, b, methods=("ras",), coords=problem.coordinates, subdomain=40)
    expected = ddm.compare(problem, methods=("ras",), subdomain=40)
    assert found.rows[0]["iterations"] == expected.rows[0]["iterations"]


def test_elements_make_geneo_and_rigid_motions_make_a_coarse_space():
    """Elasticity: no M-matrix, so that the Neumann matrices must come from the elements."""
    problem = ddm.elasticity(delaunay(12), source=[0.0, 1.0], dirichlet={left: 0.0})
    given = {"near_nullspace": problem.near_nullspace, "block_size": 2}
    methods = ("ras", "soras", "geneo")
    bare = ddm.compare(problem.A, problem.b, methods, subdomain=40, **given)
    for row in bare.rows[1:]:
        assert row["status"].startswith("does not apply: A: algebraic Neumann matrices need")
    full = ddm.compare(
        problem.A, problem.b, methods, subdomain=40, elements=problem.elements, **given
    )
    same = ddm.compare(problem, methods=methods, subdomain=40)
    assert all(run.converged for run in full.runs.values())
    assert full.rows[0]["coarse"] == 3 * full.rows[0]["subdomains"]
    assert [r["iterations"] for r in full.rows] == [r["iterations"] for r in same.rows]


def left(x, y):
    return x < 1e-9


def test_the_default_is_that_of_the_documentation():
    assert DEFAULT == ("ras", "oras", "oras_tuned", "geneo", "mggnn", "amg")
    assert set(DEFAULT) < set(METHODS)


def test_the_table_prints_itself(table, tmp_path):
    assert table.to_markdown().count("\n") == 2 + len(METHODS)
    table.to_csv(tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["status"] for row in rows] == ["converged"] * len(METHODS)


def test_the_picture_has_a_curve_and_a_bar_for_each_method(table):
    figure = table.plot()
    krylov, alone, seconds = figure.axes
    assert len(krylov.lines) == len(alone.lines) == len(METHODS)
    assert len(seconds.patches) == 2 * len(METHODS)
    labels = [text.get_text() for text in krylov.get_legend().get_texts()]
    assert labels[0] == f"ras: {table.rows[0]['iterations']}"
    plt.close(figure)


def test_a_picture_without_what_does_not_apply():
    A = sp.csr_array(-poisson(delaunay(8)).A)
    figure = ddm.compare(A, methods=("geneo", "ras"), subdomain=10).plot()
    assert len(figure.axes[0].lines) == 1
    plt.close(figure)


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
