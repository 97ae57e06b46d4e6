"""Block conjugate gradients: fewer steps than CG, and blocks that CG alone would not mind."""

import pytest
import torch
from random_matrices import dense, random_square
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import SolveError, Status, block_cg, cg, solve
from sparsetorch.precond import Jacobi


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small factorizations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_takes_fewer_steps_than_the_worst_column_alone():
    A, b = poisson(20, 20, dtype=torch.float64), torch.randn(400, 12).double()
    block, single = block_cg(A, b), cg(A, b)
    assert block.converged
    assert block.iterations < 0.7 * single.iterations
    torch.testing.assert_close(block.x, single.x, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_takes_as_many_steps_as_the_spectrum_has_groups(columns):
    # Distinct eigenvalues 1, ..., 12: k independent columns finish after 12 / k steps.
    A = CSRTensor.diag(torch.arange(1.0, 13.0).double())
    solution = block_cg(A, torch.randn(12, columns).double(), rtol=1e-9)
    assert solution.converged
    assert solution.iterations == 12 // columns


def test_columns_may_be_equal_zero_dependent_or_of_any_size():
    A = random_square(40, symmetric=True).detach()
    u, v = torch.randn(2, 40).double()
    b = torch.stack([u, u, 0 * u, v, u + v, 1e-12 * v, 1e12 * u, -u], 1)
    solution = block_cg(A, b, rtol=1e-11)
    assert solution.converged
    residuals = (b - A @ solution.x).norm(dim=0)
    assert bool((residuals <= 1e-11 * b.norm(dim=0)).all())
    assert solution.x[:, 2].abs().max() == 0
    only_two = block_cg(A, b[:, [0, 3]], rtol=1e-11)
    assert solution.iterations <= only_two.iterations + 1


def test_a_column_that_has_converged_does_not_stop_the_others():
    A = poisson(40, dtype=torch.float64)
    eigenvector = torch.sin(torch.arange(1, 41) * torch.pi / 41).double()
    b = torch.stack([eigenvector, torch.randn(40).double()], 1)
    solution = block_cg(A, b)
    assert solution.converged
    torch.testing.assert_close(A @ solution.x, b, rtol=0, atol=1e-8)


@pytest.mark.parametrize("columns", [(), (0,), (3,), (60,)], ids=str)
def test_shapes(columns):
    A, b = random_square(40, symmetric=True).detach(), torch.randn(40, *columns).double()
    solution = block_cg(A, b)
    assert solution.converged
    torch.testing.assert_close(solution.x, torch.linalg.solve(dense(A), b))
    assert block_cg(CSRTensor.eye(0).to(torch.float64), b[:0]).x.shape == (0, *columns)


def test_preconditioned_guessed_and_by_a_callable():
    A, b = poisson(12, 12, dtype=torch.float64), torch.randn(144, 4).double()
    scale = torch.logspace(0, 1, 144).double()
    badly = A.scale_rows(scale).scale_cols(scale)
    plain, scaled = block_cg(badly, b), block_cg(badly, b, preconditioner=Jacobi(badly))
    assert scaled.converged
    assert scaled.iterations < 0.7 * plain.iterations
    exact = block_cg(A, b, rtol=1e-12).x
    assert block_cg(A, b, x0=exact, rtol=1e-9).iterations == 0
    torch.testing.assert_close(block_cg(lambda X: A @ X, b, rtol=1e-12).x, exact)


def test_reports_every_iteration():
    A, b, calls = poisson(12, dtype=torch.float64), torch.randn(12, 2).double(), []
    solution = block_cg(A, b, callback=lambda *record: calls.append(record))
    assert [iteration for iteration, _ in calls] == list(range(solution.iterations + 1))
    assert [residual for _, residual in calls[:-1]] == solution.residuals[:-1]
    assert solution.residuals[-1] == float((b - A @ solution.x).norm(dim=0).max())


def test_a_known_failure_for_each_status():
    A, b = poisson(30, 30, dtype=torch.float64), torch.randn(900, 3).double()
    assert block_cg(A, b, maxiter=3).status is Status.MAXITER
    assert block_cg(A, b, maxiter=3).iterations == 3
    assert block_cg(A * -1, b).status is Status.INDEFINITE
    assert block_cg(A, b, preconditioner=lambda r: -r).status is Status.INDEFINITE
    with_nan = A.with_values(torch.where(A.values > 0, torch.nan, A.values))
    assert block_cg(with_nan, b).status is Status.DIVERGED
    with pytest.raises(SolveError, match=r"indefinite after 0 iterations: .*column 0"):
        solve(A * -1, b, "block_cg")


def test_float32():
    A, b = poisson(30, 30), torch.randn(900, 8)
    solution = block_cg(A, b)
    assert solution.converged
    assert solution.x.dtype == torch.float32
    torch.testing.assert_close(A @ solution.x, b, rtol=0, atol=1e-4)


def test_rounding_that_holds_the_residual_above_the_tolerance_is_said():
    A, b = poisson(200, dtype=torch.float64), torch.ones(200, 2).double()
    solution = block_cg(A, b, rtol=1e-15)
    assert solution.converged
    assert "rounding holds the relative residual at" in solution.detail


def test_derivatives_of_first_and_second_order_through_solve():
    A = random_square(6, symmetric=True)
    b = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)

    def x(values, b):
        M = A.with_values(values)
        return solve((M + M.T) / 2, b, "block_cg", preconditioner=Jacobi(A.detach()), rtol=1e-13)

    options = {"fast_mode": True, "atol": 1e-7}
    assert gradcheck(x, (A.values, b), check_forward_ad=True, check_batched_grad=True, **options)
    assert gradgradcheck(x, (A.values, b), check_fwd_over_rev=True, **options)
