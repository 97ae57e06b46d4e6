"""Least squares: minima, minimum norms, both stopping rules, and what is refused."""

import pytest
import torch
from random_matrices import dense, random_csr

from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, Status, lsqr


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("m", "n"), [(40, 15), (15, 40), (20, 20), (1, 1)])
@pytest.mark.parametrize("columns", [(), (3,), (0,)], ids=["vector", "block", "empty"])
def test_is_the_shortest_minimiser(m, n, columns):
    A, b = random_csr(m, n, 0.5 if m > 1 else 1.0).detach(), torch.randn(m, *columns).double()
    solution = lsqr(A, b, rtol=1e-13)
    assert solution.converged
    expected = torch.linalg.pinv(dense(A)) @ b
    torch.testing.assert_close(solution.x, expected, rtol=1e-8, atol=1e-9)


def test_a_rank_deficient_matrix_is_no_obstacle():
    A = random_csr(30, 5).detach() @ random_csr(5, 20).detach()
    b = torch.randn(30).double()
    solution = lsqr(A, b, rtol=1e-12)
    assert solution.converged
    assert solution.iterations <= 7  # the rank, and rounding
    torch.testing.assert_close(solution.x, torch.linalg.pinv(dense(A), rtol=1e-10) @ b)


def test_takes_as_many_steps_as_there_are_singular_values():
    A = CSRTensor.diag(torch.tensor([1.0, 1, -1, 2, -2, 5]).double())
    solution = lsqr(A, torch.ones(6).double(), rtol=1e-12)
    assert (solution.converged, solution.iterations) == (True, 3)


def test_reports_the_residual_at_every_iteration():
    A, b, calls = random_csr(40, 15).detach(), torch.randn(40).double(), []
    solution = lsqr(A, b, callback=lambda *record: calls.append(record))
    assert [k for k, _ in calls] == list(range(solution.iterations + 1))
    assert solution.residuals == sorted(solution.residuals, reverse=True)
    for k in (0, 3, 7):
        x = lsqr(A, b, maxiter=k).x
        assert solution.residuals[k] == pytest.approx(float((b - A @ x).norm()), rel=1e-10)


def test_starts_from_a_guess_and_stops_where_asked():
    A, b = random_csr(40, 15).detach(), torch.randn(40).double()
    x = lsqr(A, b, rtol=1e-12).x
    assert lsqr(A, b, x0=x).iterations == 0
    assert lsqr(A, b, atol=10 * float(b.norm())).iterations == 0
    assert lsqr(A, 0 * b, x0=x).x.abs().max() == 0
    loose = lsqr(A, b, rtol=1e-2)
    assert 0 < loose.iterations < lsqr(A, b).iterations


def test_a_right_hand_side_orthogonal_to_the_range_has_solution_zero():
    A = CSRTensor.from_dense(torch.tensor([[1.0], [0.0]]).double())
    solution = lsqr(A, torch.tensor([0.0, 2.0]).double())
    assert (solution.converged, solution.iterations, solution.residuals) == (True, 0, [2.0])


def test_float32_stays_float32():
    A = random_csr(40, 15, dtype=torch.float32).detach()
    b = torch.randn(40)
    solution = lsqr(A, b)
    assert solution.converged
    assert solution.x.dtype == torch.float32
    torch.testing.assert_close(solution.x, torch.linalg.lstsq(dense(A), b[:, None]).solution[:, 0])


def test_failures_have_a_status():
    A, b = random_csr(40, 15).detach(), torch.randn(40).double()
    solution = lsqr(A, b, maxiter=2)
    assert solution.status is Status.MAXITER
    assert solution.iterations == 2
    with pytest.raises(SolveError, match="raise maxiter"):
        solution.checked()
    assert lsqr(A.with_values(A.values * torch.nan), b).status is Status.DIVERGED


def test_a_gradient_is_refused_and_not_lost():
    A, b = random_csr(6, 4), torch.ones(6).double()
    with pytest.raises(ValueError, match=r"A: requires a gradient, .* normal equations"):
        lsqr(A, b)
    with pytest.raises(ValueError, match="b: requires a gradient"):
        lsqr(A.detach(), b.clone().requires_grad_())
    with torch.no_grad():
        assert lsqr(A, b).converged


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"b": torch.ones(4)}, TypeError, r"b: expected torch.float64 like A, got torch.float32"),
        ({"b": torch.ones(3).double()}, ValueError, r"b: expected 4 rows like A, got shape \(3,\)"),
        ({"b": torch.full((4,), torch.nan).double()}, ValueError, r"b: expected finite numbers"),
        ({"A": torch.eye(4)}, TypeError, r"A: expected a CSRTensor, got Tensor"),
        ({"A": random_csr(4, 3, batch=(2,))}, ValueError, r"A: expected one matrix, got a batch"),
        ({"x0": torch.ones(4).double()}, ValueError, r"x0: expected torch.float64 of shape \(3,\)"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    good = {"A": random_csr(4, 3).detach(), "b": torch.ones(4).double()}
    with pytest.raises(error, match=message):
        lsqr(**(good | arguments))
