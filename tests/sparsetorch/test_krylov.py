"""The iterations by themselves: counts that theory gives, and a known failure for each status."""

import math
import pickle

import pytest
import torch
from random_matrices import dense, random_square

from sparsetorch import CSRTensor, diags, eye, poisson
from sparsetorch.distributed.blocks import Blocks
from sparsetorch.distributed.halo import Halo
from sparsetorch.linalg import (
    SolveError,
    Status,
    bicgstab,
    block_cg,
    cg,
    chebyshev,
    factorized,
    fgmres,
    gmres,
    lsqr,
    minres,
    richardson,
)
from sparsetorch.linalg.eigenproblem import Problem
from sparsetorch.linalg.generalized import PencilProblem
from sparsetorch.linalg.krylov import as_operator
from sparsetorch.linalg.lanczos import eigenvalue_bounds
from sparsetorch.linalg.lu import Ordering
from sparsetorch.linalg.solvers import DirectSolver, KrylovSolver
from sparsetorch.precond import Jacobi

KRYLOV = [cg, minres, gmres, fgmres, bicgstab]
METHODS = [*KRYLOV, chebyshev]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def matrix(*rows: list[float]) -> CSRTensor:
    return CSRTensor.from_dense(torch.tensor(rows, dtype=torch.float64))


def vector(*entries: float) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.float64)


@pytest.mark.parametrize("method", KRYLOV, ids=lambda m: m.__name__)
def test_takes_as_many_steps_as_there_are_eigenvalues(method):
    eigenvalues = vector(1, 1, 1, 2, 2, 5, 5, 5)
    solution = method(CSRTensor.diag(eigenvalues), torch.ones(8).double(), rtol=1e-12)
    assert solution.converged
    assert solution.iterations == 3
    torch.testing.assert_close(solution.x, 1 / eigenvalues)


@every_method
def test_takes_a_callable_in_place_of_a_matrix(method):
    A, b = random_square(12, symmetric=True).detach(), torch.ones(12).double()
    by_callable = method(lambda x: dense(A) @ x, b)
    torch.testing.assert_close(by_callable.x, method(A, b).x)


@every_method
@pytest.mark.parametrize("exponent", [-50, 50])
def test_does_not_depend_on_the_unit_of_the_matrix(method, exponent):
    """A power of two changes no digit: the matrix of a mesh in micrometres is no singular one."""
    A, b = poisson(8, 8), torch.ones(64)
    solution = method(A, b)
    scaled = method(A * 2.0**exponent, b)
    assert scaled.status is Status.CONVERGED
    torch.testing.assert_close(scaled.x * 2.0**exponent, solution.x, rtol=1e-4, atol=0)
    assert abs(scaled.iterations - solution.iterations) <= 1


@every_method
def test_an_exact_preconditioner_takes_one_step(method):
    A, b = random_square(12, symmetric=True), torch.ones(12).double()
    assert method(A, b, preconditioner=factorized(A)).iterations == 1


@every_method
def test_solves_a_block_column_by_column(method):
    A, b = random_square(12, symmetric=True), torch.randn(12, 3).double()
    b[:, 1] = 0
    solution = method(A, b)
    singles = [method(A, column) for column in b.T]
    torch.testing.assert_close(solution.x, torch.stack([s.x for s in singles], 1))
    assert solution.iterations == max(s.iterations for s in singles)
    assert solution.residuals[-1] == max(s.residuals[-1] for s in singles)
    assert method(A, b[:, :0]).x.shape == (12, 0)


@every_method
def test_records_no_gradients(method):
    A = random_square(6, symmetric=True)
    b = torch.ones(6).double().requires_grad_()
    assert not method(A, b, preconditioner=Jacobi(A)).x.requires_grad


@every_method
def test_reports_every_iteration(method):
    A, b, calls = random_square(12, symmetric=True), torch.ones(12).double(), []
    solution = method(A, b, callback=lambda *record: calls.append(record))
    assert [iteration for iteration, _ in calls] == list(range(solution.iterations + 1))
    # The last residual is computed afresh, the others are the method's own.
    assert [residual for _, residual in calls[:-1]] == solution.residuals[:-1]


@every_method
def test_starts_from_a_guess(method):
    A, b = random_square(12, symmetric=True), torch.ones(12).double()
    x = method(A, b, rtol=1e-12).x
    assert method(A, b, x0=x, rtol=1e-10).iterations == 0
    assert method(A, 0 * b, x0=x).x.abs().max() == 0


@every_method
def test_atol_alone_may_end_the_iteration(method):
    A, b = random_square(12, symmetric=True), torch.ones(12).double()
    assert method(A, b, rtol=0, atol=1e-3).iterations < method(A, b).iterations


def test_full_gmres_minimises_the_residual():
    A, b = random_square(10).detach(), torch.randn(10).double()
    D = dense(A)
    for steps in (1, 3, 5):
        krylov = torch.stack([torch.linalg.matrix_power(D, k) @ b for k in range(steps)], 1)
        best = torch.linalg.lstsq(D @ krylov, b[:, None]).solution
        expected = (b[:, None] - D @ krylov @ best).norm()
        assert gmres(A, b, maxiter=steps).residuals[-1] == pytest.approx(float(expected), rel=1e-8)


def test_restarted_gmres_takes_longer_and_arrives():
    A, b = random_square(40).detach(), torch.randn(40).double()
    full, restarted = gmres(A, b), gmres(A, b, restart=2)
    assert restarted.converged
    assert restarted.iterations > full.iterations
    torch.testing.assert_close(restarted.x, full.x)


def test_only_flexible_gmres_takes_a_preconditioner_that_changes():
    A, b = random_square(30).detach(), torch.randn(30).double()

    def changing(r):
        return torch.tanh(30 * r)

    assert fgmres(A, b, preconditioner=changing).converged
    assert gmres(A, b, preconditioner=changing).status is Status.INACCURATE


@pytest.mark.parametrize("method", [minres, gmres], ids=lambda m: m.__name__)
def test_an_indefinite_spectrum_on_both_sides_of_zero_is_no_obstacle(method):
    eigenvalues = vector(-3, -3, -1, 2, 2, 5, 5, 5)
    solution = method(CSRTensor.diag(eigenvalues), torch.ones(8).double(), rtol=1e-12)
    assert solution.converged
    assert solution.iterations == 4
    torch.testing.assert_close(solution.x, 1 / eigenvalues)


def test_minres_minimises_the_residual():
    A, b = random_square(12, symmetric=True).detach(), torch.randn(12).double()
    A = A.with_diagonal(A.diagonal() * torch.tensor([1.0, -1.0] * 6).double())
    full = gmres(A, b, rtol=1e-13)
    solution = minres(A, b, rtol=1e-13)
    torch.testing.assert_close(torch.tensor(solution.residuals), torch.tensor(full.residuals))


def test_minres_reports_the_residual_itself_though_it_minimises_that_of_the_preconditioner():
    A, b = random_square(30, symmetric=True).detach(), torch.randn(30).double()
    M = CSRTensor.diag(torch.logspace(-1, 1, 30).double())
    for steps in (1, 2, 7):
        solution = minres(A, b, preconditioner=M, maxiter=steps)
        reported = minres(A, b, preconditioner=M, maxiter=steps + 1).residuals[steps]
        assert reported == pytest.approx(float((b - A @ solution.x).norm()), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_minres_takes_a_singular_matrix_and_says_whether_b_is_in_its_range(dtype):
    # SciPy's reports success for the second b, with entries of x in the millions.
    L = poisson(30, 30, dtype=dtype)
    L = L.with_diagonal(L.diagonal() - L.sum(-1))  # Neumann: constants are its null space
    b = torch.randn(900, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert minres(L, b - b.mean()).converged
    solution = minres(L, b)
    assert solution.status is Status.BREAKDOWN
    assert solution.residuals[-1] == pytest.approx(float(30 * b.mean().abs()), rel=1e-3)
    assert solution.x.abs().max() < 100


def test_minres_does_not_take_an_ill_conditioned_matrix_for_a_singular_one():
    d = torch.cat([vector(1e-10, 1e-9, -1e-9), torch.linspace(1, 2, 20).double()])
    solution = minres(CSRTensor.diag(d), torch.ones(23).double(), rtol=1e-5)
    assert solution.converged


def test_bicgstab_starts_anew_where_its_shadow_is_orthogonal():
    A, b = matrix([-2, -1, -2], [2, -1, 0], [0, -1, -2]), vector(0, 0, 1)
    second = b - A @ bicgstab(A, b, maxiter=1).x
    assert abs(b @ second) <= 1e-16  # and b, the first residual, is the shadow
    solution = bicgstab(A, b)
    assert solution.converged
    assert solution.iterations == 4  # one, and three for three unknowns
    torch.testing.assert_close(A @ solution.x, b)


def test_chebyshev_contracts_as_its_polynomial():
    A = poisson(40, dtype=torch.float64)
    low, high = 2 - 2 * math.cos(math.pi / 41), 2 + 2 * math.cos(math.pi / 41)
    b = torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    residuals = chebyshev(A, b, bounds=(low, high), maxiter=60).residuals[:-1]
    for k, residual in enumerate(residuals):
        bound = 1 / math.cosh(k * math.acosh((high + low) / (high - low)))
        assert residual <= bound * residuals[0] * (1 + 1e-10)
    # On an eigenvector of the smallest eigenvalue the bound is attained.
    v = torch.sin(math.pi * torch.arange(1, 41).double() / 41)
    attained = chebyshev(A, v, bounds=(low, high), maxiter=20).residuals
    assert attained[20] / attained[0] == pytest.approx(
        1 / math.cosh(20 * math.acosh((high + low) / (high - low))), rel=1e-6
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_estimated_bounds_enclose_the_spectrum(scaled):
    A = random_square(200, symmetric=True).detach()
    M = Jacobi(A) if scaled else CSRTensor.eye(200, dtype=torch.float64)
    low, high = eigenvalue_bounds(A.matvec, as_operator("M", M), A.values.new_empty(200))
    spectrum = torch.linalg.eigvals(dense(A) / (A.diagonal()[:, None] if scaled else 1)).real
    assert 0.8 * spectrum.min() <= low <= 1.1 * spectrum.min()
    assert spectrum.max() <= high <= 1.05 * spectrum.max()


def test_chebyshev_estimates_bounds_once_for_all_columns():
    A, calls = random_square(30, symmetric=True).detach(), []

    def counted(x):
        calls.append(x)
        return A @ x

    b = torch.randn(30, 3).double()
    single = chebyshev(counted, b[:, 0])
    estimation = len(calls) - single.iterations
    calls.clear()
    chebyshev(counted, b)
    singles = sum(chebyshev(A, column).iterations for column in b.T)
    assert len(calls) <= estimation + singles + 3 * 2


@pytest.mark.parametrize("bounds", [(0, 1), (2, 1), (1, float("nan")), (1, float("inf")), (1,)])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match=r"bounds: expected \(smallest, largest\) eigenvalue, 0 <"):
        chebyshev(eye(2, dtype=torch.float64), ONES, bounds=bounds)


def test_refinement_closes_the_gap_that_rounding_opens():
    # In float32 the recurrence of cg meets the tolerance long before b - A x does.
    n = 400
    d = torch.logspace(0, -3, n)
    solution = cg(CSRTensor.diag(d), torch.ones(n), rtol=1e-5, maxiter=100 * n)
    assert solution.converged
    assert (1 - d * solution.x).norm() <= 1e-4 * n**0.5


def test_richardson_contracts_at_the_rate_of_its_spectral_radius():
    A = CSRTensor.diag(vector(0.5, 1.0, 1.5))
    solution = richardson(A, torch.ones(3).double(), rtol=1e-9)
    assert solution.converged
    assert solution.residuals[-1] / solution.residuals[-2] == pytest.approx(0.5)
    assert richardson(3 * A, torch.ones(3).double()).status is Status.DIVERGED


IDENTITY, REFLECTION = matrix([1, 0], [0, 1]), matrix([1, 0], [0, -1])
COUPLED, SINGULAR, SHIFT = matrix([2, 1], [1, 2]), matrix([1, 1], [1, 1]), matrix([0, 1], [0, 0])
SKEW, SKEWED = matrix([0, 1], [-1, 0]), matrix([2, 1], [0, 1])
ONES, FIRST, LAST = vector(1, 1), vector(1, 0), vector(0, 1)
NAN = float("nan")


def _nan(r):
    return NAN * r


FAILURES = [
    (Status.MAXITER, "raise maxiter", lambda: cg(COUPLED, FIRST, maxiter=1)),
    (Status.MAXITER, "raise maxiter", lambda: gmres(COUPLED, FIRST, maxiter=1)),
    (Status.MAXITER, "raise maxiter", lambda: minres(COUPLED, FIRST, maxiter=1)),
    (Status.MAXITER, "raise maxiter", lambda: bicgstab(COUPLED, FIRST, maxiter=1)),
    (
        Status.MAXITER,
        "from 0.5 to 9",
        lambda: chebyshev(COUPLED, FIRST, bounds=(0.5, 9), maxiter=3),
    ),
    (Status.INDEFINITE, "p.A p = -3", lambda: cg(REFLECTION, vector(1, 2))),
    (Status.INDEFINITE, "r.M r = -2", lambda: cg(IDENTITY, ONES, preconditioner=torch.neg)),
    (Status.INDEFINITE, "r.M r = -2", lambda: minres(IDENTITY, ONES, preconditioner=torch.neg)),
    (Status.INDEFINITE, "'minres'", lambda: chebyshev(REFLECTION, vector(1, 2))),
    (Status.BREAKDOWN, "in the range of A", lambda: minres(SINGULAR, FIRST)),
    (Status.BREAKDOWN, "maps a vector to zero", lambda: bicgstab(SHIFT, FIRST)),
    (Status.LANCZOS_BREAKDOWN, "'gmres'", lambda: bicgstab(SKEW, FIRST)),
    (Status.BREAKDOWN, "in the range of A", lambda: gmres(SHIFT, LAST)),
    (Status.BREAKDOWN, "in the range of A", lambda: fgmres(SINGULAR, FIRST)),
    (Status.DIVERGED, "NaN", lambda: gmres(lambda x: NAN * x, ONES)),
    (Status.DIVERGED, "NaN", lambda: cg(lambda x: NAN * x, ONES)),
    (Status.DIVERGED, "r.M r is NaN", lambda: minres(IDENTITY, ONES, preconditioner=_nan)),
    (Status.DIVERGED, "r0.A M p is NaN", lambda: bicgstab(IDENTITY, ONES, preconditioner=_nan)),
    (Status.DIVERGED, "from nan to nan", lambda: chebyshev(IDENTITY, ONES, preconditioner=_nan)),
    (Status.DIVERGED, "bounds that enclose", lambda: chebyshev(COUPLED, FIRST, bounds=(0.5, 1))),
    (Status.DIVERGED, "NaN", lambda: fgmres(IDENTITY, ONES, preconditioner=lambda r: r / 0)),
    (Status.DIVERGED, "r.M r is NaN", lambda: cg(IDENTITY, ONES, preconditioner=_nan)),
    (Status.MAXITER, "is not symmetric", lambda: minres(SKEWED, vector(1, 2))),
    (Status.INACCURATE, "'fgmres'", lambda: gmres(IDENTITY, ONES, preconditioner=_Alternating())),
]


class _Alternating:
    """A preconditioner that changes sign from call to call."""

    def __init__(self):
        self.sign = -1.0

    def __call__(self, r):
        self.sign = -self.sign
        return self.sign * r


@pytest.mark.parametrize(
    ("status", "hint", "run"),
    FAILURES,
    ids=[f"{i}-{s.name}" for i, (s, _, _) in enumerate(FAILURES)],
)
def test_failures_have_a_status_and_a_remedy(status, hint, run):
    solution = run()
    assert solution.status is status
    assert not solution.converged
    assert hint in solution.message
    assert status.remedy in solution.message
    with pytest.raises(SolveError, match=f"^{status.name.lower()} after"):
        solution.checked()


def test_a_failing_column_is_named():
    solution = cg(REFLECTION, torch.stack([FIRST, LAST], 1))
    assert solution.status is Status.INDEFINITE
    assert "column 1, p.A p = -1" in solution.message


def test_errors_can_be_pickled():
    error = SolveError(cg(REFLECTION, vector(1, 2)))
    restored = pickle.loads(pickle.dumps(error))
    assert str(restored) == str(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": float("nan")}, "rtol: expected a number of at least 0"),
        ({"rtol": -1.0}, "rtol: expected a number of at least 0"),
        ({"atol": float("inf")}, "atol: expected a number of at least 0"),
        ({"maxiter": 2.5}, "maxiter: expected at least 0 iterations, got 2.5"),
        ({"maxiter": -1}, "maxiter: expected at least 0 iterations, got -1"),
        ({"restart": 0}, "restart: expected at least 1 step, got 0"),
        ({"restart": -1}, "restart: expected at least 1 step, got -1"),
        ({"restart": 2.5}, "restart: expected at least 1 step, got 2.5"),
    ],
)
def test_options_that_no_iteration_can_have(options, message):
    A = random_square(5)
    with pytest.raises(ValueError, match=message):
        gmres(A, torch.ones(5, dtype=torch.float64), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"atol": None}, "atol: expected a number of at least 0, got NoneType"),
        ({"rtol": "1e-6"}, "rtol: expected a number of at least 0, got str"),
    ],
)
def test_tolerances_that_are_no_numbers(options, message):
    A, b = random_square(5), torch.ones(5, dtype=torch.float64)
    for method in (cg, gmres, lsqr, block_cg):
        with pytest.raises(TypeError, match=message):
            method(A.detach(), b, **options)


def test_solutions_are_compared_by_identity():
    solutions = [cg(REFLECTION, vector(1, 2)) for _ in range(2)]
    assert solutions[0] == solutions[0]
    assert solutions[0] != solutions[1]
    assert len(set(solutions)) == 2


@pytest.mark.parametrize(
    "kind",
    [Blocks, DirectSolver, Halo, KrylovSolver, Ordering, PencilProblem, Problem],
    ids=lambda kind: kind.__name__,
)
def test_what_holds_tensors_is_compared_by_identity(kind):
    assert (kind.__eq__, kind.__hash__) == (object.__eq__, object.__hash__)


def test_rounding_that_holds_the_residual_above_the_tolerance_is_said():
    n = 1000
    A = diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n), dtype=torch.float64)
    solution = gmres(A, torch.ones(n, dtype=torch.float64), rtol=1e-14)
    assert solution.residuals[-1] > 1e-14 * n**0.5
    assert "rounding holds the relative residual at" in solution.detail
