"""The iterations by themselves: counts that theory gives, and a known failure for each status."""

import pickle

import pytest
import torch
from random_matrices import dense, random_square

from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, Status, cg, factorized, fgmres, gmres, richardson
from sparsetorch.precond import Jacobi

METHODS = [cg, gmres, fgmres]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def matrix(*rows: list[float]) -> CSRTensor:
    return CSRTensor.from_dense(torch.tensor(rows, dtype=torch.float64))


def vector(*entries: float) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.float64)


@every_method
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
    full, restarted = gmres(A, b), gmres(A, b, restart=3)
    assert restarted.converged
    assert restarted.iterations > full.iterations
    torch.testing.assert_close(restarted.x, full.x)


def test_only_flexible_gmres_takes_a_preconditioner_that_changes():
    A, b = random_square(30).detach(), torch.randn(30).double()

    def changing(r):
        return torch.tanh(30 * r)

    assert fgmres(A, b, preconditioner=changing).converged
    assert gmres(A, b, preconditioner=changing).status is Status.INACCURATE


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
ONES, FIRST, LAST = vector(1, 1), vector(1, 0), vector(0, 1)
NAN = float("nan")

FAILURES = [
    (Status.MAXITER, "raise maxiter", lambda: cg(COUPLED, FIRST, maxiter=1)),
    (Status.MAXITER, "raise maxiter", lambda: gmres(COUPLED, FIRST, maxiter=1)),
    (Status.INDEFINITE, "p.A p = -3", lambda: cg(REFLECTION, vector(1, 2))),
    (Status.INDEFINITE, "r.M r = -2", lambda: cg(IDENTITY, ONES, preconditioner=torch.neg)),
    (Status.BREAKDOWN, "in the range of A", lambda: gmres(SHIFT, LAST)),
    (Status.BREAKDOWN, "in the range of A", lambda: fgmres(SINGULAR, FIRST)),
    (Status.DIVERGED, "NaN", lambda: gmres(lambda x: NAN * x, ONES)),
    (Status.DIVERGED, "NaN", lambda: cg(lambda x: NAN * x, ONES)),
    (Status.DIVERGED, "NaN", lambda: fgmres(IDENTITY, ONES, preconditioner=lambda r: r / 0)),
    (Status.DIVERGED, "r.M r is NaN", lambda: cg(IDENTITY, ONES, preconditioner=lambda r: NAN * r)),
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


def test_jacobi():
    A = random_square(5)
    J = Jacobi(A)
    r = torch.randn(3, 5).double()
    torch.testing.assert_close(J(r), r / dense(A).diagonal())
    assert J.T is J
    assert J(r).requires_grad
    with pytest.raises(ValueError, match="zero in 1 rows, the first of them row 1"):
        Jacobi(matrix([1, 2], [3, 0]))
    with pytest.raises(ValueError, match="expected one square matrix"):
        Jacobi(matrix([1, 2]))
