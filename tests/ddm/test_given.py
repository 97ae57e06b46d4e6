"""What a user may hand to `compare` and `tune`, and what is refused."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import delaunay, laplacian

import ddm
from ddm.given import as_problem, check_sum, with_right_hand_side
from ddm.problems import Elements
from sparsetorch import CSRTensor

A = laplacian(9)
N = A.shape[0]
ALL = ("ras", "oras", "oras_tuned", "as", "soras", "geneo", "mggnn", "amg", "direct")
FREE = sp.csr_array(A - sp.diags_array(np.asarray(A.sum(axis=1)).ravel()))


def with_nan():
    bad = A.copy()
    bad.data[5] = np.nan
    return bad


@pytest.mark.parametrize("call", [ddm.compare, ddm.tune])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((with_nan(),), {}, ValueError, "A: some entries are not finite"),
        ((FREE,), {}, ValueError, r"the matrix is singular: it has 1 null vector.*'ground'"),
        ((sp.csr_array((3, 4)),), {}, ValueError, "A: expected a square matrix"),
        ((sp.csr_array((0, 0)),), {}, ValueError, "A: expected a square matrix with rows"),
        ((A.toarray(),), {}, TypeError, "A: expected a SciPy sparse matrix"),
        ((sp.block_diag([A, sp.csr_array((2, 2))]),), {}, ValueError, rf"A: row {N} is zero \(2"),
        ((A, np.zeros(3)), {}, ValueError, "b: expected shape"),
        ((A, np.full(N, np.inf)), {}, ValueError, "b: some values are not finite"),
        ((A, np.ones(N) * 1j), {}, TypeError, "b: complex, but A is real"),
        ((A,), {"methods": ("ras", "other")}, ValueError, "methods: expected some of ras, oras"),
        ((A,), {"methods": ()}, ValueError, "methods: expected at least one of ras"),
        ((A,), {"methods": {"mine": 3}}, TypeError, "functions of a Workbench, got int"),
        ((A,), {"rtol": 0.0}, ValueError, "rtol: expected a number between 0 and 1, got 0"),
        ((A,), {"rtol": float("nan")}, ValueError, "rtol: expected a number between 0 and 1"),
        ((A,), {"maxiter": 0}, ValueError, "maxiter: expected at least 1 iteration, got 0"),
        (
            (A,),
            {"block_size": 2},
            ValueError,
            f"block_size: expected a divisor of {N}, the number of unknowns, got 2",
        ),
        ((A,), {"elements": 3}, TypeError, "elements: expected ddm.problems.Elements, got int"),
        ((A,), {"near_nullspace": np.ones(N)}, ValueError, "near_nullspace: expected finite"),
        ((A,), {"near_nullspace": np.ones((N, 1)) * 1j}, TypeError, "near_nullspace: complex, but"),
        (
            (A,),
            {"elements": Elements(np.arange(N)[:, None], np.full((N, 1, 1), 9.0))},
            ValueError,
            r"elements: expected matrices that sum to A, got a difference of .* in entry \(\d+, \d",
        ),
        ((A,), {"coords": np.ones((3, 2))}, ValueError, "coordinates: expected"),
        (
            (A,),
            {"elements": Elements(np.array([[0, N]]), np.ones((1, 2, 2)))},
            ValueError,
            f"dofs: expected unknowns -1 .. {N - 1}",
        ),
    ],
)
def test_refusals(call, arguments, options, error, message):
    with pytest.raises(error, match=message):
        call(*arguments, **options)


def test_refusals_of_one_of_them():
    with pytest.raises(ValueError, match="subdomain: expected at least 1 unknown, got 0"):
        ddm.compare(A, subdomain=0)
    with pytest.raises(ValueError, match="partitioner: expected one of"):
        ddm.compare(A, partitioner="other")
    with pytest.raises(ValueError, match=r"coordinates: expected positions .* for method='rcb'"):
        ddm.compare(A, partitioner="rcb")
    with pytest.raises(ValueError, match="budget_s: expected a positive number of seconds, got 0"):
        ddm.tune(A, budget_s=0)
    with pytest.raises(ValueError, match="solves: expected at least 1 right-hand side, got 0"):
        ddm.tune(A, solves=0)
    batch = CSRTensor.from_scipy(A)
    with pytest.raises(ValueError, match=r"A: expected one matrix, got shape \(2,"):
        ddm.compare(batch.with_values(torch.stack([batch.values] * 2)))


def test_a_problem_brings_its_arrays():
    problem = ddm.poisson(delaunay(9))
    with pytest.raises(ValueError, match=r"coords: the problem has it; use dataclasses\.replace"):
        ddm.compare(problem, coords=problem.coordinates)
    with pytest.raises(ValueError, match=r"b: expected shape \(49,\), got \(3,\)"):
        ddm.compare(problem, np.zeros(3))
    with pytest.raises(ValueError, match="b: some entries are not finite"):
        ddm.compare(problem, np.full(49, np.nan))


@pytest.mark.parametrize("size", [1, 10**6])
def test_more_subdomains_than_unknowns_and_one_that_holds_all(size):
    """The number of subdomains is between one and the number of unknowns, whatever is asked."""
    table = ddm.compare(A, methods=ALL, subdomain=size)
    assert [run.status for run in table.runs.values()] == ["converged"] * len(ALL)
    found = table.rows[0]["subdomains"]
    assert 0.9 * N < found <= N if size == 1 else found == 1


@pytest.mark.filterwarnings("ignore::ddm.safeguard.LearnedRefusedWarning")
@pytest.mark.parametrize(
    "matrix",
    [
        sp.csr_array([[2.0]]),
        sp.csr_array([[2.0, -1], [-1, 2]]),
        sp.csr_array(sp.eye_array(9)),
        sp.csr_array(sp.block_diag([A, 3 * sp.eye_array(4)])),  # isolated nodes
        sp.csr_array(sp.block_diag([A, A])),
    ],
)
def test_small_and_disconnected_matrices(matrix):
    table = ddm.compare(matrix, methods=ALL, subdomain=12)
    for run in table.runs.values():
        assert run.status == "converged", run.method
    assert ddm.tune(matrix, progress=False).best.converged


@pytest.mark.filterwarnings("ignore::ddm.safeguard.LearnedRefusedWarning")
@pytest.mark.parametrize("singular", ["ground", "nullspace"])
def test_singular_systems_made_regular_or_solved_with_their_null_space(singular):
    problem = ddm.from_matrix(FREE, singular=singular)
    table = ddm.compare(problem, methods=ALL, subdomain=12)
    runs: dict[str, Any] = table.runs
    for run in runs.values():
        if singular == "nullspace" and run.method in ("mggnn", "direct"):
            assert "A: it is singular" in run.status
            assert "singular='ground'" in run.status
            continue
        assert run.status == "converged", run.method
        x = run.krylov.x.numpy()
        assert np.linalg.norm(problem.b - problem.A @ x) <= 2e-6 * np.linalg.norm(problem.b)


def test_a_new_right_hand_side_of_a_singular_problem_is_made_consistent():
    problem = ddm.from_matrix(FREE, singular="nullspace")
    table = ddm.compare(problem, np.ones(N) + problem.b, methods=("ras",), subdomain=12)
    assert table.runs["ras"].converged


def test_a_new_right_hand_side_is_in_the_range_of_a_complex_symmetric_matrix():
    """Which is orthogonal to the conjugated null vectors."""
    rng = np.random.default_rng(0)
    z = np.array([1, 1j, 0, 2])
    z /= np.linalg.norm(z)
    C = rng.standard_normal((4, 4)) + 1j * rng.standard_normal((4, 4))
    Q = np.eye(4) - np.outer(z, z.conj())
    S = Q.T @ (C + C.T) @ Q
    problem = ddm.from_matrix(sp.csr_array(S), near_nullspace=z[:, None], singular="nullspace")
    assert problem.kind == "symmetric"
    b = rng.standard_normal(4)
    for given in (problem, with_right_hand_side(problem, b)):
        x = np.linalg.lstsq(S, given.b, rcond=1e-10)[0]
        assert abs(S @ x - given.b).max() < 1e-13
        assert abs(z @ given.b) < 1e-13
    again = with_right_hand_side(problem, with_right_hand_side(problem, b).b)
    assert np.allclose(again.b, with_right_hand_side(problem, b).b)


@pytest.mark.filterwarnings("ignore::ddm.safeguard.LearnedRefusedWarning")
def test_indefinite_matrices_say_which_methods_apply():
    shifted = sp.csr_array(A - 1.5 * sp.eye_array(N))
    assert np.linalg.eigvalsh(shifted.toarray())[0] < 0
    table = ddm.compare(shifted, methods=ALL, subdomain=12)
    for name in ("as", "soras", "geneo"):
        assert "ras, oras, oras_tuned and direct take others" in table.runs[name].status
    for name in ("ras", "oras", "oras_tuned", "direct"):
        assert table.runs[name].converged
        assert table.runs[name].krylov_name == "fgmres"


def test_a_zero_right_hand_side():
    table = ddm.compare(A, np.zeros(N), methods=("ras", "as", "amg"), subdomain=12)
    runs: dict[str, Any] = table.runs
    for run in runs.values():
        assert run.converged
        assert not run.krylov.x.any()
    table.plot()
    tuned = ddm.tune(A, np.zeros(N), progress=False)
    assert tuned.best.converged
    assert tuned.rows[0]["iterations"] == 0
    tuned.plot()


def test_what_a_problem_lacks_may_be_set():
    problem = ddm.poisson(delaunay(9))
    bare = dataclasses.replace(problem, near_nullspace=None, positions=None)
    expected = ddm.compare(problem, methods=("ras",), subdomain=12).rows[0]["iterations"]
    assert ddm.compare(bare, methods=("ras",), subdomain=12).rows[0]["iterations"] == expected


def test_elements_that_sum_to_the_matrix_are_taken():
    problem = ddm.poisson(delaunay(9))
    elements = problem.elements
    assert elements is not None
    for dtype in (np.float64, np.float32):  # rounding is no difference
        for A, matrices in (
            (problem.A.astype(dtype), elements.matrices),
            (problem.A, elements.matrices.astype(dtype)),
            (sp.dok_array(problem.A.astype(dtype)), elements.matrices),
        ):
            given = as_problem(A, elements=Elements(elements.dofs, matrices))
            assert given.elements is not None
            assert given.elements.couplings == problem.A.nnz


def test_one_large_entry_hides_no_wrong_elements():
    """As a penalty for a boundary condition, or another scale of some unknowns."""
    problem = ddm.poisson(delaunay(9))
    elements = problem.elements
    assert elements is not None
    k = 20
    penalty = Elements(
        np.concatenate([elements.dofs, [[k, -1, -1]]]),
        np.concatenate([elements.matrices, np.full((1, 3, 3), 1e12)]),
    )
    A = penalty.assemble(len(problem.b))
    scale = np.logspace(0, 9, len(problem.b))
    around = np.append(scale, 1.0)[penalty.dofs]
    scaled = around[:, :, None] * penalty.matrices * around[:, None, :]
    scaling = sp.diags_array(scale)
    for matrix, right in (
        (A, penalty.matrices),
        (sp.csr_array(scaling @ A @ scaling), scaled),
    ):
        check_sum(Elements(penalty.dofs, right), matrix)
        for e, i, j in ((3, 0, 0), (40, 0, 1), (77, 2, 2)):
            row, col = penalty.dofs[e, i], penalty.dofs[e, j]
            if min(row, col) < 0 or k in (row, col):
                continue
            wrong = right.copy()
            wrong[e, i, j] *= 1 + 1e-5
            with pytest.raises(ValueError, match=rf"in entry \({row}, {col}\), where A's largest"):
                check_sum(Elements(penalty.dofs, wrong), matrix)
    with pytest.raises(TypeError, match="elements: complex, but A is real"):
        check_sum(Elements(penalty.dofs, penalty.matrices + 0j), A)


def test_a_problem_without_a_load_is_compared_with_a_random_one():
    """Such as elasticity, whose default load is none: nothing would be solved."""
    mesh = delaunay(7)
    problem = ddm.elasticity(mesh, dirichlet={}, singular="ground")
    assert not problem.b.any()
    table = ddm.compare(problem, methods=("ras", "direct"))
    assert all(row["iterations"] >= 1 for row in table.rows)
    assert ddm.tune(problem, methods=("ras",), progress=False).best.status == "converged"


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_a_near_null_space_of_other_numbers_is_the_same(dtype):
    tables = [
        ddm.compare(A, methods=("ras", "as"), near_nullspace=np.ones((N, 1), kind))
        for kind in (np.float64, dtype)
    ]
    for one, other in zip(*(table.rows for table in tables)):
        assert one["status"] == other["status"] == "converged"
        assert one["iterations"] == other["iterations"]


def test_wider_numbers_are_refused():
    wide = sp.csr_array(A, dtype=np.longdouble)
    with pytest.raises(TypeError, match="A: expected float64 or complex128 at most, got"):
        ddm.from_matrix(wide)
    with pytest.raises(TypeError, match="near_nullspace: expected numbers that float64 holds"):
        ddm.from_matrix(A, near_nullspace=np.ones((N, 1), np.longdouble))


def test_a_matrix_that_is_nearly_singular_is_believed_to_be_regular():
    m, h = 4000, 1 / 4000  # -u'' + 0.005 u without boundary values
    ends = np.r_[1, np.full(m - 2, 2.0), 1]
    N = (sp.diags_array(ends) - sp.eye_array(m, k=1) - sp.eye_array(m, k=-1)) / h**2
    A, b = sp.csr_array(N + 0.005 * sp.eye_array(m)), np.cos(np.pi * np.arange(m) * h) + 1
    with pytest.raises(ValueError, match=r"null vector\(s\), up to rounding.*singular='regular'"):
        ddm.from_matrix(A, b)
    problem = ddm.from_matrix(A, b, singular="regular")
    assert problem.nullspace is None
    assert problem.fixed is None
    x = ddm.tune(problem, methods=("direct",), rtol=1e-4, progress=False).solve(b)
    assert abs(x.mean() / 200.05 - 1) < 1e-3


def test_right_hand_sides_are_numbers():
    problem = ddm.from_matrix(sp.csr_array(2 * sp.eye_array(3)))
    for b in (np.array(["a", "b", "c"]), np.array([None] * 3)):
        with pytest.raises(TypeError, match="b: expected numbers, got"):
            ddm.compare(problem, b, methods=("direct",))
        with pytest.raises(TypeError, match="b: expected numbers, got"):
            ddm.from_matrix(problem.A, b)


def test_positions_of_nodes_are_told_from_those_of_unknowns():
    A = sp.csr_array(2 * sp.eye_array(6))
    with pytest.raises(ValueError, match=r"shape \(6, d\).*np.repeat\(x, 2, axis=0\)"):
        ddm.from_matrix(A, coordinates=np.random.default_rng(0).random((3, 2)), block_size=2)
    with pytest.raises(ValueError, match=r"coordinates: .*, got some that are not finite"):
        ddm.from_matrix(A, coordinates=np.full((6, 2), np.nan))


def test_a_problem_prints_what_it_is():
    assert repr(ddm.graph_laplacian(sp.eye_array(9, k=1) + sp.eye_array(9, k=-1))) == (
        "Problem(9 unknowns, 21 entries, float64, spd, 1 fixed)"
    )
    problem = ddm.random_problem("elasticity", 0, 200)
    assert repr(problem).endswith("float64, spd, 2 unknowns a node)")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(ddm.finetune, steps=1.5), "steps: expected at least 0 steps, got 1.5"),  # pyright: ignore
        (partial(ddm.finetune, lr=-1.0), "lr: expected a number of at least 0"),
        (partial(ddm.compare, subdomain=2.9), "subdomain: expected at least 1 unknown, got 2.9"),  # pyright: ignore
        (lambda A: ddm.set_up(A, np.arange(6)).classical(-1.0), "theta: expected a weight of at"),
    ],
)
def test_numbers_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call(sp.csr_array(2 * sp.eye_array(6)))
