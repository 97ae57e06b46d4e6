"""The best classical method is found, at equal local work."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import delaunay, laplacian

import ddm
from ddm.classical import Classical
from ddm.problems import checkerboard
from ddm.rates import iterations_to_reduce
from ddm.search import best_classical, equal_work
from ddm.workbench import Workbench
from sparsetorch import CSRTensor
from sparsetorch.linalg import fgmres

FEW: Any = {"thetas": (0.4, 0.7, 1.0), "smoothings": (0, 1)}


@pytest.fixture(scope="module")
def problem():
    return ddm.poisson(delaunay(24))


@pytest.fixture(scope="module")
def elastic():
    return ddm.elasticity(delaunay(12), source=[0.0, 1.0], dirichlet={lambda x, y: x < 1e-9: 0.0})


def counts(problem, subdomain, **options):
    """Iterations of every combination, one by one."""
    bench = Workbench(problem, subdomain=subdomain)
    sizes = equal_work(bench, options.get("overlaps", (1, 2)))
    return {
        candidate: iterations_to_reduce(candidate(bench), 1e-8)
        for overlap, size in sizes.items()
        for smoothing in FEW["smoothings"]
        for theta in FEW["thetas"]
        for between in ((False, True) if theta < 1 else (False,))
        for space in ("near_nullspace", "linear")
        for candidate in [Classical(theta, between, overlap, size, space, smoothing)]
    }


def test_the_exhaustive_search_finds_the_smallest_count(problem):
    expected = counts(problem, 40)
    found = best_classical(problem, subdomain=40, exhaustive=True, **FEW)
    assert len(found.table.rows) == len(expected)
    assert found.score == min(expected.values()) == expected[found.best]
    assert iterations_to_reduce(found.method, 1e-8) == found.score


def test_the_search_by_coordinates_is_as_good_here_and_tries_no_more(problem):
    found = best_classical(problem, subdomain=40, **FEW)
    whole = best_classical(problem, subdomain=40, exhaustive=True, **FEW)
    assert found.score == whole.score
    assert len(found.table.rows) <= len(whole.table.rows)


def test_scores_of_beaten_candidates_are_missing(problem):
    scores = [row["score"] for row in best_classical(problem, subdomain=40).table.rows]
    known = [score for score in scores if score is not None]
    assert known == sorted(known, reverse=True)
    assert len(set(known)) == len(known) < len(scores)


def test_krylov_iterations_as_the_objective(problem):
    found = best_classical(problem, subdomain=40, objective="krylov", exhaustive=True, **FEW)
    x = torch.randn(found.method.shape[0], dtype=torch.float64, generator=_seeded())
    b = found.method.A @ x
    counted = fgmres(found.method.A, b, preconditioner=found.method, rtol=1e-8).iterations
    assert counted == found.score
    ras = Classical(smoothing=0, subdomain=40)(Workbench(problem))
    assert counted < fgmres(ras.A, b, preconditioner=ras, rtol=1e-8).iterations


def _seeded():
    return torch.Generator().manual_seed(0)


def test_seconds_as_the_objective(problem):
    found = best_classical(problem, subdomain=40, objective="time", **FEW)
    assert 0 < found.score < math.inf
    assert found.table.rows[0]["score"] is not None  # the first cannot be beaten
    assert found.table.rows[-1]["method"].endswith(", single precision")


def test_the_best_is_tried_with_slow_errors_in_its_coarse_space(problem):
    plain = best_classical(problem, subdomain=40, **FEW)
    found = best_classical(problem, subdomain=40, enrich=(2, 4), **FEW)
    assert found.table.rows[: len(plain.table.rows)] == plain.table.rows
    names = [row["method"] for row in found.table.rows[len(plain.table.rows) :]]
    assert names == [f"{plain.best}, {count} slow errors" for count in (2, 4)]
    assert found.best in (replace(plain.best, enrich=count) for count in (2, 4))
    assert found.score < plain.score
    assert found.method.P is not None
    assert plain.method.P is not None
    added = found.method.P.shape[1] - plain.method.P.shape[1]
    assert added == found.best.enrich * found.method.decomposition.n_subdomains


def test_more_overlap_has_larger_subdomains_and_as_much_work(problem):
    overlap = 2
    bench = Workbench(problem, subdomain=12)
    sizes = equal_work(bench, (1, overlap))
    reference = len(bench.decomposition(12, 1).block_source)
    work = len(bench.decomposition(sizes[overlap], overlap).block_source)
    assert sizes[1] == 12
    assert sizes[overlap] > 2 * 12
    assert work == pytest.approx(reference, rel=0.25)


def test_the_reference_may_have_more_overlap(problem):
    bench = Workbench(problem, subdomain=40)
    sizes = equal_work(bench, (1, 2), reference_overlap=2)
    assert sizes[2] == 40
    assert sizes[1] < 40
    reference = len(bench.decomposition(40, 2).block_source)
    assert len(bench.decomposition(sizes[1], 1).block_source) == pytest.approx(reference, rel=0.25)


def test_an_overlap_with_too_little_work_stays_and_comes_as_near_as_it_can(problem):
    """Subdomains of one unknown with a layer around them store less than half of what is wanted."""
    bench = Workbench(problem, subdomain=2)
    assert equal_work(bench, (1,), reference_overlap=4) == {1: 1}
    wanted, most = (len(bench.decomposition(*way).block_source) for way in ((2, 4), (1, 1)))
    assert most < wanted / 2
    few = {"overlaps": (1,), "thetas": (1.0,), "smoothings": (0,)}
    assert best_classical(bench, reference_overlap=4, **few).best.subdomain == 1


def chains(count: int, length: int) -> ddm.Problem:
    """Chains that meet in one unknown: halves of it fall into pieces, each a subdomain."""
    n = 1 + count * length
    end = np.arange(1, n)
    start = np.where((end - 1) % length == 0, 0, end - 1)
    graph = sp.csr_array((np.ones(n - 1), (start, end)), shape=(n, n))
    laplacian = sp.csgraph.laplacian(sp.csr_array(graph + graph.T))
    return ddm.from_matrix(sp.csr_array(laplacian + 0.1 * sp.eye_array(n)))


def test_overlaps_that_take_too_much_work_are_left_out_or_refused():
    """Four subdomains at least, and with so many layers each of them is all of the matrix."""
    problem = chains(6, 20)
    assert equal_work(Workbench(problem, subdomain=10), (1, 100)) == {1: 10}
    assert best_classical(problem, subdomain=10, overlaps=(1, 100), **FEW).best.overlap == 1
    with pytest.raises(ValueError, match=r"overlaps: .*reference_overlap=1, got \[100\] and more"):
        best_classical(problem, subdomain=10, overlaps=(100,), **FEW)


def test_where_equal_work_is_beyond_two_halves_the_largest_subdomains_come_nearest():
    """Two layers around 128 of 1,000 unknowns in space store 2.7 times A, and 1.6 are wanted."""
    bench = Workbench(ddm.random_problem("poisson_3d", 55_000_000, 1_000))
    sizes = equal_work(bench, (1, 2), 128)
    wanted, found = (len(bench.decomposition(sizes[o], o).block_source) for o in (1, 2))
    assert sizes[2] == len(bench.problem.b) // 2
    assert wanted / 1.25 < found < wanted


def test_elasticity_takes_neumann_matrices_and_beats_ras(elastic):
    bench = Workbench(elastic, subdomain=40)
    found = best_classical(bench)
    between = [row["status"] for row in found.table.rows if "Neumann" in row["method"]]
    assert between
    assert not any("does not apply" in status for status in between)
    assert found.score < iterations_to_reduce(Classical()(bench), 1e-8)
    bare = best_classical(
        ddm.from_matrix(elastic.A, block_size=2, near_nullspace=elastic.near_nullspace),
        subdomain=40,
    )
    status = [row["status"] for row in bare.table.rows if "Neumann" in row["method"]]
    assert status
    assert all(s.startswith("does not apply: A: algebraic Neumann") for s in status)
    assert found.score <= bare.score


def test_linear_functions_make_a_richer_coarse_space(problem):
    plain = best_classical(problem, subdomain=20, linear=False, exhaustive=True, **FEW)
    rich = best_classical(problem, subdomain=20, exhaustive=True, **FEW)
    assert rich.best.vectors == "linear"
    assert rich.score < plain.score
    assert rich.method.P is not None
    assert rich.method.P.shape[1] == 3 * rich.method.decomposition.n_subdomains
    lost = best_classical(ddm.from_matrix(problem.A), subdomain=40, **FEW)
    assert not any("linear" in row["method"] for row in lost.table.rows)


def test_linear_functions_of_each_component(elastic):
    P = Workbench(elastic).prolongation(40, 1, "linear", 0).to_dense()
    x = elastic.coordinates[:, 0] * np.tile([1.0, 0.0], len(elastic.b) // 2)
    fitted = torch.linalg.lstsq(P, torch.from_numpy(x)[:, None]).solution
    torch.testing.assert_close((P @ fitted)[:, 0], torch.from_numpy(x))


def test_a_jump_is_searched_like_any_other():
    mesh = delaunay(16)
    problem = ddm.diffusion(mesh, checkerboard(mesh, 0, contrast=1e3), 1.0)
    found = best_classical(problem, subdomain=30)
    assert found.score <= iterations_to_reduce(
        Classical(0.5)(Workbench(problem, subdomain=30)), 1e-8
    )


def test_the_first_candidate_may_take_all_of_maxiter(problem):
    few: Any = {"subdomain": 40, "overlaps": (1,), "thetas": (1.0,), "smoothings": (0,)}
    count = iterations_to_reduce(Classical(smoothing=0)(Workbench(problem, subdomain=40)), 1e-8)
    found = best_classical(problem, maxiter=count, linear=False, **few)
    assert (found.score, found.objective) == (count, "stationary")
    less = best_classical(problem, maxiter=count - 1, linear=False, **few)
    assert less.objective == "krylov"


def test_where_nothing_converges_the_first_candidate_has_no_score(problem):
    found = best_classical(problem, subdomain=40, maxiter=1, **FEW)
    assert (found.score, found.objective) == (math.inf, "krylov")
    assert str(found.best) == found.table.rows[0]["method"]
    assert all(row["score"] is None for row in found.table.rows)


@pytest.mark.parametrize("objective", ["stationary", "krylov"])
def test_each_candidate_is_made_once_the_winner_too(problem, objective, monkeypatch):
    made, make = [], Classical.__call__

    def counted(candidate, bench):
        made.append(candidate)
        return make(candidate, bench)

    monkeypatch.setattr(Classical, "__call__", counted)
    found = best_classical(problem, subdomain=40, objective=objective, **FEW)
    assert [str(candidate) for candidate in made] == [row["method"] for row in found.table.rows]
    assert made.index(found.best) < len(made) - 1
    assert found.objective == objective


def test_weights_and_the_others_may_be_arrays(problem):
    arrays: Any = {name: np.array(values) for name, values in (FEW | {"overlaps": (1, 2)}).items()}
    found = best_classical(problem, subdomain=40, **arrays)
    assert found.best == best_classical(problem, subdomain=40, **FEW).best


def test_where_no_stationary_iteration_converges_fgmres_is_counted():
    """Helmholtz: errors grow with every method, and FGMRES still converges."""
    mesh = delaunay(16)
    problem = ddm.helmholtz(mesh, 30.0, 1.0)
    found = best_classical(problem, subdomain=30, maxiter=100, **FEW)
    assert iterations_to_reduce(found.method, 1e-8, maxiter=100) == 100
    assert found.score < 100
    assert found.objective == "krylov"


def test_the_budget_ends_the_search(problem):
    found = best_classical(problem, subdomain=40, budget_s=0.0)
    assert len(found.table.rows) == 1
    assert found.best == Classical(subdomain=40)


def test_refusals(problem):
    with pytest.raises(ValueError, match=r"objective: expected one of .*, got 'speed'"):
        best_classical(problem, objective="speed")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="expected at least one of each"):
        best_classical(problem, thetas=())
    with pytest.raises(ValueError, match=r"rtol: expected a number between 0 and 1, got 2\.0"):
        best_classical(problem, rtol=2.0)
    with pytest.raises(ValueError, match="maxiter: expected at least 1 iteration, got 0"):
        best_classical(problem, maxiter=0)
    with pytest.raises(ValueError, match="theta: expected a weight of at least 0, got -3"):
        best_classical(problem, thetas=(-3.0, 1.0))
    with pytest.raises(ValueError, match="no classical method can be made"):
        best_classical(ddm.from_matrix(-problem.A), subdomain=40, between=(True,), thetas=(0.5,))


def test_a_matrix_alone_is_searched_for():
    A = laplacian(12)
    found = best_classical(A, subdomain=30, thetas=(1.0, 0.5), smoothings=(1,))
    same = best_classical(CSRTensor.from_scipy(A), subdomain=30, thetas=(1.0, 0.5), smoothings=(1,))
    assert found.best == same.best


def test_a_zero_on_the_diagonal_leaves_methods_without_smoothing():
    A, G = laplacian(22), sp.random_array((40, 400), density=0.05, rng=np.random.default_rng(0))
    saddle = sp.csr_array(sp.block_array([[A, G.T], [G, None]]))
    found = best_classical(saddle, overlaps=(1,), thetas=(1.0,))
    assert found.best.smoothing == 0
    assert np.isfinite(found.score)
    with pytest.raises(ValueError, match=r"no classical method can be made for it; the first: d"):
        best_classical(saddle, overlaps=(1,), thetas=(1.0,), smoothings=(1,))
